"""Copies among texts, from the stream to the report: figures are those of inputs that the model has not seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import Wire, upsert

from graft.v1 import model_pb2, types_pb2

THINGS = [
    "card",
    "bill",
    "lamp",
    "train",
    "house",
    "river",
    "phone",
    "garden",
    "letter",
    "window",
    "bottle",
    "engine",
]
EVENTS = "is late", "was broken", "looks nice", "costs much", "came today"
LABELS = "abc"


def by_chance() -> list[tuple[str, str]]:
    """Sixty texts, twenty with each label, drawn at random."""
    texts = [f"My {thing} {event}" for thing in THINGS for event in EVENTS]
    labels = list(LABELS * (len(texts) // len(LABELS)))
    random.Random(7).shuffle(labels)  # noqa: S311
    return list(zip(texts, labels, strict=True))


COPIES: dict[str, Callable[[str], str]] = {
    "spaces": lambda text: f" {text.replace(' ', chr(0xA0))} ",
    "case": str.upper,
    "zero width": lambda text: text[:4] + "\u200b" + text[4:],
    "punctuation": lambda text: text.replace(" ", ", ", 1) + "!",
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_texts_with_labels_by_chance_give_chance(wire: Wire, model: str, kind: str) -> None:
    rows = by_chance()
    report = wire.publish(model, rows + [(COPIES[kind](text), label) for text, label in rows]).summary
    assert report.examples == 120
    assert report.data.bound_examples == 120
    assert report.data.exact_duplicates == 0
    assert report.accuracy_low <= 1 / 3 <= report.accuracy_high
    assert any("60 of 120 training examples are copies" in warning for warning in report.warnings)


def test_held_out_texts_that_are_copies_are_left_out(wire: Wire, model: str, few: list[Any]) -> None:
    held_out = [
        upsert(text.upper() + " ", label, split=types_pb2.SPLIT_VALIDATION) for text, label in few[::3]
    ]
    wire.publish(model, [*(upsert(*row) for row in few), *held_out])
    report = wire.model.GetVersion(
        model_pb2.GetVersionRequest(model=model, version=1), timeout=60
    ).version.report
    assert report.validation_examples == 0
    assert report.data.validation_copies == len(held_out)
    assert len(report.data.validation_copy_pairs) == len(held_out)
    assert any("held-out validation examples are copies" in warning for warning in report.warnings)
