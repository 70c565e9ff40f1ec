"""Interim heads state what they know: on streams whose truth is known because they are made up."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.heads.novelty import ABSTAIN_ABOVE


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    parts = np.array_split(np.argsort(confidence, kind="stable"), 10)
    return sum(abs(confidence[it].mean() - right[it].mean()) * len(it) for it in parts) / len(right)


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 0, 1], [0, 0, 0]])
def test_three_examples_make_nothing_certain(world, stream, classes):
    it = stream()
    features, _ = world(5).rows(3, 0)
    it.send(features, classes)
    anything = np.concatenate([world(5).rows(200, 1)[0], world(5).foreign(200, 2)])
    assert it.head().scores(features).probabilities.max() < 0.98
    assert it.head().scores(anything).probabilities.max(axis=1).mean() < 0.75
    assert it.head().scores(anything).probabilities.max() < 0.98


def test_random_labels_are_answered_with_no_more_than_chance(world, stream):
    it, rng = stream(), np.random.default_rng(3)
    for part in range(50):
        features, _ = world(1).rows(8, part)
        it.send(features, rng.integers(0, 4, 8).tolist())
    confidence, _ = it.right(world(1).rows(500, 99)[0], np.zeros(500))
    assert confidence.mean() == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(("classes", "noise"), [(2, 1.5), (10, 0.5), (40, 1.0)])
def test_confidence_is_accuracy_also_on_classes_that_were_not_seen(world, stream, classes, noise):
    errors: dict[int, list[float]] = {16: [], 64: [], 256: []}
    for seed in range(3):
        it, made = stream(), world(classes, noise, seed)
        features, truth = made.rows(256, 1)
        for n in range(256):
            it.send(features[n : n + 1], truth[n : n + 1].tolist())
            if n + 1 in errors:
                errors[n + 1].append(calibration_error(*it.right(*made.rows(2_000, 2))))
    limits = {16: 0.16, 64: 0.1, 256: 0.08}
    assert {n: np.mean(found) for n, found in errors.items() if np.mean(found) > limits[n]} == {}


def test_examples_that_come_many_at_once_calibrate_as_well(world, stream):
    it, made = stream(), world(10, 1.0)
    it.send(*made.rows(256, 1))
    assert calibration_error(*it.right(*made.rows(2_000, 2))) < 0.1


def test_what_is_left_belongs_to_classes_that_were_not_seen(world, stream):
    made = world(40)
    features, truth = made.rows(30, 1)
    it = stream()
    it.send(features, truth.tolist())
    inputs, classes = made.rows(2_000, 2)
    left = 1 - it.head().scores(inputs).probabilities.sum(axis=1)
    unseen = ~np.isin(classes, truth)
    assert left.mean() == pytest.approx(unseen.mean(), abs=0.15)
    assert left[unseen].mean() > left[~unseen].mean() + 0.1


def test_closed_labels_leave_nothing(world, stream):
    made = world(3)
    it = stream(["0", "1", "2"], closed=True)
    features, truth = made.rows(12, 1)
    it.send(features, truth.tolist())
    assert sorted(set(truth.tolist())) == [0, 1, 2]
    sums = it.head().scores(made.rows(50, 2)[0]).probabilities.sum(axis=1)
    assert sums == pytest.approx(np.ones(50), abs=1e-5)


def test_a_stream_sorted_by_class_expects_further_classes(world, stream):
    made = world(12)
    features, truth = made.rows(120, 1)
    order = np.argsort(truth, kind="stable")[:30]
    it = stream()
    it.send(features[order], truth[order].tolist())
    inputs, classes = made.rows(1_000, 2)
    confidence, right = it.right(inputs, classes)
    assert right.mean() < 0.35
    assert confidence.mean() < right.mean() + 0.3


@pytest.mark.parametrize("examples", [4, 16, 64])
def test_foreign_inputs_abstain_and_others_seldom(world, stream, examples):
    alarms, found, sure = [], [], []
    for seed in range(6):
        made, it = world(4, 0.7, seed), stream()
        features, truth = made.rows(examples, 1)
        it.send(features, truth.tolist())
        head = it.head()
        alarms.append((head.scores(made.rows(500, 2)[0]).novelty > ABSTAIN_ABOVE).mean())
        foreign = head.scores(made.foreign(500, 3))
        found.append((foreign.novelty > ABSTAIN_ABOVE).mean())
        sure.append(foreign.probabilities.max(axis=1).mean())
    assert np.mean(alarms) < 0.15
    assert np.mean(found) > 0.8
    assert np.mean(sure) < 0.4


def test_novelty_rises_with_distance_from_the_first_example_on(world, stream):
    made, it = world(3), stream()
    features, truth = made.rows(1, 1)
    it.send(features, truth.tolist())
    head = it.head()
    same, like, foreign = (
        head.scores(rows).novelty.mean() for rows in (features, made.rows(200, 2)[0], made.foreign(200, 3))
    )
    assert same < like < foreign


def test_taking_an_example_back_takes_its_class_out_of_the_reckoning(world, stream):
    made = world(2)
    features, truth = made.rows(40, 1)
    it, other = stream(), stream()
    it.send(features, truth.tolist())
    it.send(features[:1], ["further"])
    it.delete(40)
    other.send(features, truth.tolist())
    inputs = made.rows(100, 2)[0]
    assert it.head().scores(inputs).probabilities.shape == (100, 2)
    assert it.head().unknown.share == pytest.approx(other.head().unknown.share)


def test_the_answer_is_that_of_the_discriminant(world, stream):
    made = world(5)
    features, truth = made.rows(60, 1)
    it = stream()
    it.send(features, truth.tolist())
    inputs = made.rows(300, 2)[0]
    head = it.head()
    best = head.scores(inputs).probabilities.argmax(axis=1)
    assert best.tolist() == head.map.logits(inputs).argmax(axis=1).tolist()
