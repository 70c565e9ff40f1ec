"""The record of predictions that are made before their examples are learned."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.adapting.interim.places import MERGED_AT, Places
from graft_server.adapting.interim.prequential import ENOUGH, FADING, FIRST_TEMPERATURE, Prequential


def note(record: Prequential, right: list[bool]) -> None:
    """Predicts the first of two classes each time."""
    logits = np.tile(np.array([[3.0, 0.0]], np.float32), (len(right), 1))
    record.note(logits, np.ones(len(right), np.float32), np.array([0 if it else 1 for it in right]))


def test_the_total_counts_all_alike_and_the_running_figure_newer_ones_more():
    record = Prequential()
    note(record, [True, False])
    note(record, [False])
    assert record.accuracy == pytest.approx(1 / 3)
    kept = [FADING**2, FADING, 1.0]
    assert record.faded_accuracy == pytest.approx(kept[0] / sum(kept))


def test_a_class_that_was_not_known_counts_as_wrong():
    record = Prequential()
    record.note(np.array([[1, 0]], np.float32), np.ones(1, np.float32), np.array([-1]))
    assert record.predicted == 1
    assert record.accuracy == 0


def test_the_temperature_makes_predictions_as_sure_as_they_were_right():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3_000, 4)).astype(np.float32)
    odds = np.exp(truth)
    answers = (rng.uniform(size=(3_000, 1)) < np.cumsum(odds / odds.sum(1, keepdims=True), 1)).argmax(1)
    record = Prequential()
    assert record.temperature == FIRST_TEMPERATURE
    for start in range(0, 3_000, 50):
        part = slice(start, start + 50)
        record.note(truth[part] * 8, np.ones(50, np.float32), answers[part])
    assert record.temperature == pytest.approx(8, rel=0.3)


def test_novelty_is_0_until_there_are_predictions_to_measure_it_by():
    directions = np.eye(2, 3, dtype=np.float32)
    foreign = np.array([[0, 0, 1]], np.float32)
    record = Prequential()
    note(record, [True] * (ENOUGH - 1))
    low = np.array([-50.0], np.float32)
    assert record.novelty(directions).scores(low, foreign)[0] == 0
    rng = np.random.default_rng(0)
    logits = rng.normal(3, 1, (100, 2)).astype(np.float32)
    record.note(logits, rng.normal(0.8, 0.1, 100).astype(np.float32), np.zeros(100, int))
    assert record.novelty(directions).scores(low, foreign)[0] > 0.95


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
