"""The record of predictions that are made before their examples are learned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import t as student

from graft_server.adapting.interim.places import MERGED_AT, Places
from graft_server.adapting.interim.single_label.class_sums import ClassSums, Discriminant
from graft_server.adapting.interim.single_label.familiarity import shares, student_quantiles, student_shares
from graft_server.adapting.interim.single_label.new_classes import log_gamma
from graft_server.adapting.interim.single_label.prequential import FADING, Prequential
from graft_server.adapting.interim.single_label.sharpness import USUAL, Sharpness


def fitted() -> Discriminant:
    """Two classes, of one example each."""
    sums = ClassSums(3)
    sums.learn(np.eye(2, 3, dtype=np.float32), np.array([0, 1]), np.ones(2))
    found = sums.fit({})
    assert found is not None
    return found


def note(record: Prequential, right: list[bool]) -> None:
    """Predicts the first of two classes each time."""
    rows = np.tile(np.array([[1, 0, 0]], np.float32), (len(right), 1))
    record.note(fitted(), rows, np.array([0 if it else 1 for it in right]), 0.1, 2)


def test_the_total_counts_all_alike_and_the_running_figure_newer_ones_more():
    record = Prequential()
    note(record, [True, False])
    note(record, [False])
    assert record.accuracy == pytest.approx(1 / 3)
    kept = [FADING**2, FADING, 1.0]
    assert record.faded_accuracy == pytest.approx(kept[0] / sum(kept))


def test_a_class_that_was_not_known_counts_as_wrong():
    record = Prequential()
    record.note(fitted(), np.eye(1, 3, dtype=np.float32), np.array([-1]), 0.1, 2)
    assert record.predicted == 1
    assert record.accuracy == 0


@pytest.mark.parametrize("sharper", [0.5, 1, 2])
def test_the_factor_makes_the_best_class_as_sure_as_it_was_right(sharper):
    """Whatever the unit of the logits is, and however far the truth lies from what is usual."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3_000, 4)).astype(np.float32)
    odds = np.exp(logits / logits.std() * USUAL * sharper)
    answers = (rng.uniform(size=(3_000, 1)) < np.cumsum(odds / odds.sum(1, keepdims=True), 1)).argmax(1)
    learned = Sharpness()
    for start in range(0, 3_000, 50):
        part = slice(start, start + 50)
        learned.note(logits[part] * 100, answers[part], 1.0, 24, FADING**50)
    assert learned.factor(1.0, 24) * 100 == pytest.approx(USUAL * sharper, rel=0.25)


def test_before_there_are_predictions_novelty_is_what_is_usual():
    knots, levels = shares(np.zeros(0), -0.5, 0.1)
    assert np.interp(-0.5, knots, levels) == pytest.approx(0.5, abs=0.02)
    assert np.interp(-0.1, knots, levels) > 0.95
    assert np.interp(-0.9, knots, levels) < 0.05


@pytest.mark.parametrize("examples", [1, 5, 50, 500])
def test_novelty_is_the_share_of_examples_that_are_less_strange(examples):
    rng = np.random.default_rng(examples)
    inside = []
    for _ in range(30):
        knots, levels = shares(rng.normal(3, 0.2, examples), 2.8, 0.15)
        assert (np.diff(knots) > 0).all()
        assert (np.diff(levels) >= -1e-6).all()
        inside.append((np.interp(rng.normal(3, 0.2, 2_000), knots, levels) > 0.95).mean())
    assert np.mean(inside) < {1: 0.2, 5: 0.15}.get(examples, 0.08)


def test_places_are_found_moved_and_removed_across_merges():
    places = Places()
    for number in range(3 * MERGED_AT):
        places.set(f"id {number}", number)
    places.remove("id 5")
    places.set("id 7", 100_000)
    places.remove(f"id {3 * MERGED_AT - 1}")
    for number in range(MERGED_AT + 1):
        places.set(f"more {number}", number)
    assert places.get("id 5") is None
    assert places.get(f"id {3 * MERGED_AT - 1}") is None
    assert places.get("id 7") == 100_000
    assert places.get("never") is None
    kept = [number for number in range(3 * MERGED_AT - 1) if number not in (5, 7)]
    assert [places.get(f"id {number}") for number in kept] == kept


def test_the_functions_that_numpy_lacks_are_right():
    values = np.concatenate([np.geomspace(0.05, 1e5, 200)])
    assert log_gamma(values) == pytest.approx(gammaln(values), rel=1e-9, abs=1e-8)
    levels = np.linspace(0.001, 0.999, 99)
    for freedom in (3, 4, 10, 300):
        assert student_shares(student.ppf(levels, freedom), freedom) == pytest.approx(levels, abs=3e-3)
        assert student_shares(student_quantiles(levels, freedom), freedom) == pytest.approx(levels, abs=1e-9)
