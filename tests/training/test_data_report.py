from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft_server.domain.report import DataReport, LearningCurve
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]


def data_of(train: ClassifiedSet) -> DataReport:
    data = select_single_label(train, seed=0).report.data
    assert data is not None
    return data


def curve_of(train: ClassifiedSet) -> LearningCurve:
    curve = select_single_label(train, seed=0).report.learning_curve
    assert curve is not None
    return curve


def test_flipped_labels_are_found_and_named(make_set: MakeSet) -> None:
    train = make_set([25] * 4, noise=0.4)
    flipped = [3, 30, 55, 80]
    labels = train.labels.copy()
    labels[flipped] = (labels[flipped] + 1) % 4
    errors = data_of(replace(train, labels=labels)).label_errors
    assert {error.example.sequence for error in errors[:4]} == set(flipped)
    first = errors[0]
    assert first.example.id == f"id-{first.example.sequence}"
    assert first.example.writer_id == "writer"
    assert first.suggested == f"class {train.labels[first.example.sequence]}"
    assert first.probability < first.suggested_probability


def test_labels_that_a_person_confirmed_are_counted_and_not_doubted(make_set: MakeSet) -> None:
    train = make_set([25] * 4, noise=0.4)
    flipped = [3, 30, 55, 80]
    labels = train.labels.copy()
    labels[flipped] = (labels[flipped] + 1) % 4
    train = replace(train, labels=labels)
    confirmed = frozenset({"id-3", "id-55"})
    before, after = data_of(train), data_of(replace(train, confirmed=confirmed))
    doubted = {error.example.id for error in before.label_errors}
    assert confirmed < doubted
    assert {error.example.id for error in after.label_errors} == doubted - confirmed
    assert after.probable_label_errors == before.probable_label_errors - 2
    assert (before.confirmed_examples, after.confirmed_examples) == (0, 2)


def test_a_conflict_whose_labels_are_all_confirmed_is_none(make_set: MakeSet) -> None:
    train = make_set([15, 15])
    digests = list(train.input_digests)
    digests[20] = digests[2]
    train = replace(train, input_digests=tuple(digests))
    for confirmed, conflicts in (({"id-2"}, 1), ({"id-2", "id-20"}, 0)):
        data = data_of(replace(train, confirmed=frozenset(confirmed)))
        assert (data.conflicting_inputs, len(data.conflicts)) == (conflicts, conflicts)


def test_clean_labels_raise_no_suspicion(make_set: MakeSet) -> None:
    assert data_of(make_set([25] * 4, noise=0.3)).label_errors == ()


def test_label_errors_are_counted_beyond_those_that_are_listed(make_set: MakeSet) -> None:
    train = make_set([250] * 4, noise=0.4)
    labels = train.labels.copy()
    labels[::13] = (labels[::13] + 1) % 4
    data = data_of(replace(train, labels=labels))
    assert len(data.label_errors) == 50
    assert data.probable_label_errors == pytest.approx(len(labels[::13]), abs=8)


def test_near_duplicates_are_counted_beyond_those_that_are_listed_closest_first(make_set: MakeSet) -> None:
    train = make_set([300] * 2, noise=3.0)
    features = train.features["pooled"].copy()
    copies = np.arange(1, 600, 4)
    shift = np.random.default_rng(1).normal(0, 0.012, (len(copies), features.shape[1]))
    features[copies] = features[copies - 1] + shift
    data = data_of(replace(train, features={"pooled": features}))
    rows = features.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = np.triu(rows @ rows.T, 1)
    assert data.near_duplicates == (near >= 0.98).sum() == len(copies) > 100
    found = [pair.similarity for pair in data.near_duplicate_pairs]
    np.testing.assert_allclose(found, np.sort(near.ravel())[::-1][:50], atol=2e-4)


def test_features_that_are_all_the_same_are_read_alike(make_set: MakeSet) -> None:
    train = make_set([300, 300])
    train.features["pooled"][:] = train.features["pooled"][0]
    data = data_of(train)
    assert (data.exact_duplicates, data.read_alike, data.near_duplicates) == (0, 599, 0)
    assert data.duplicate_groups[0].count == 600
    assert data.conflicting_inputs == 1


def test_exact_and_near_duplicates_are_told_apart(make_set: MakeSet) -> None:
    train = make_set([15, 15], noise=1.0)
    features = train.features["pooled"]
    features[1] = features[0]
    features[16] = features[15] + np.linspace(-0.01, 0.01, 32)
    digests = list(train.input_digests)
    digests[1] = digests[0]
    data = data_of(replace(train, input_digests=tuple(digests)))
    assert data.exact_duplicates == 1
    assert [ref.id for ref in data.duplicate_groups[0].examples] == ["id-0", "id-1"]
    assert data.read_alike == 1
    assert data.near_duplicates == 1
    assert data.bound_examples == 4
    assert [ref.id for ref in data.near_duplicate_pairs[0].examples] == ["id-15", "id-16"]
    assert data.conflicting_inputs == 0


def test_one_input_under_two_labels_is_a_conflict(make_set: MakeSet) -> None:
    train = make_set([15, 15])
    digests = list(train.input_digests)
    digests[20] = digests[2]
    data = data_of(replace(train, input_digests=tuple(digests)))
    assert data.conflicting_inputs == 1
    assert {ref.label for ref in data.conflicts[0].examples} == {"class 0", "class 1"}


def test_learning_curve_forecasts_more_for_more_examples(make_set: MakeSet) -> None:
    curve = curve_of(make_set([30] * 6, noise=2.0))
    assert [point.examples for point in curve.forecasts] == [270, 360, 720]
    accuracies = [point.accuracy for point in curve.forecasts]
    assert accuracies == sorted(accuracies)
    for point in (*curve.points, *curve.forecasts):
        assert point.low <= point.accuracy + 0.02
        assert point.accuracy <= point.high + 0.02


def test_forecast_interval_holds_what_twice_the_examples_give(make_set: MakeSet) -> None:
    forecast = curve_of(make_set([30] * 6, noise=2.0)).forecasts[1]
    head = select_single_label(make_set([60] * 6, noise=2.0, seed=3), seed=0).head
    fresh = make_set([300] * 6, noise=2.0, seed=11)
    found = head.scores(fresh.features["pooled"].astype(np.float32)).probabilities.argmax(axis=1)
    assert forecast.low - 0.03 <= (found == fresh.labels).mean() <= forecast.high + 0.03


def test_advice_names_the_class_with_most_errors(make_set: MakeSet) -> None:
    train = make_set([40] * 4, noise=0.8)
    features = train.features["pooled"].copy()
    # Ten rows of class 2 look like each other class: its recall suffers most.
    features[80:110] = features[[*range(10), *range(40, 50), *range(120, 130)]]
    advice = curve_of(replace(train, features={"pooled": features})).advice
    assert advice[0].label == "class 2"
    assert advice[0].more_examples == 40
    assert advice[0].low <= advice[0].gain <= advice[0].high


def test_unlucky_classes_of_few_examples_are_not_taken_for_bad_ones(make_set: MakeSet) -> None:
    # All classes are equally hard; of six examples each, some have none right.
    advice = curve_of(make_set([6] * 30, noise=2.5)).advice
    fresh = make_set([200] * 30, noise=2.5, seed=5)
    head = select_single_label(make_set([6] * 30, noise=2.5), seed=0).head
    found = head.scores(fresh.features["pooled"].astype(np.float32)).probabilities.argmax(axis=1)
    errors = float((found != fresh.labels).mean())
    assert max(one.gain for one in advice) < errors
    assert np.ptp([one.gain for one in advice]) < 0.5 * max(one.gain for one in advice)


def test_reliability_counts_every_evaluated_example(make_set: MakeSet) -> None:
    report = select_single_label(make_set([20] * 3, noise=1.5), seed=0).report
    assert len(report.reliability) == 15
    assert sum(one.examples for one in report.reliability) == 60


def test_map_has_a_point_for_each_example_up_to_a_thousand(make_set: MakeSet) -> None:
    report = select_single_label(make_set([300] * 4), seed=0).report
    assert len(report.feature_map) == 1000
    assert len({point.id for point in report.feature_map}) == 1000


def test_a_class_of_one_example_is_left_out_of_the_curve_and_not_in_its_way(make_set: MakeSet) -> None:
    curve = curve_of(make_set([30, 30, 30, 1], noise=1.5))
    assert [point.examples for point in curve.forecasts] == [136, 182, 364]
    assert curve.forecasts[0].accuracy > 0.8  # the one example is not counted as an error
    assert "class 3" not in {one.label for one in curve.advice}
