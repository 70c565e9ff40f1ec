"""Tuning the backbone on a few examples a class, over the wire: by contrast, and measured by cross-fitting."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graft

ONE_LAYER = graft.FineTuning(unfrozen_layers=1, epochs=1)
KINDS = ("refund_status", "lost_item", "unlock_problem")


@pytest.fixture(scope="module")
def client(server) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture(scope="module")
def eight(intents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Eight examples of each of three labels."""
    return [row for kind in KINDS for row in [it for it in intents if it[1] == kind][:8]]


@pytest.fixture(scope="module")
def tuned(client: graft.Client, eight: list[tuple[str, str]]) -> graft.AdaptResult:
    """A version with a tuned layer; before it there is a frozen one."""
    return client.adapt("tests/eight", eight, method="partial", fine_tuning=ONE_LAYER)


def test_eight_examples_a_class_are_tuned_by_contrast_and_answer_from_tuned_layers(client, tuned, eight):
    texts = [text for text, _ in eight]
    report = client.version(tuned.model, version=1).report
    assert (tuned.version, report.method, tuned.report.method) == (2, "frozen", "partial")
    answers = client.predict(tuned.model, texts, include_features=True)
    assert np.mean([it.label == label for it, (_, label) in zip(answers, eight, strict=True)]) > 0.9
    frozen = client.adapt("tests/eight-frozen", eight, method="frozen")
    before = client.predict(frozen.model, texts[:4], include_features=True)
    moved = np.array([it.features for it in answers[:4]]) - np.array([it.features for it in before])
    assert np.abs(moved).max() > 1e-4


def test_each_example_is_measured_by_a_tuning_that_has_not_seen_it(tuned, eight):
    report, tuning = tuned.report, tuned.report.tuning
    assert (tuning.method, tuning.objective, tuning.kept, tuning.ended) == (
        "partial", "contrastive", True, "done"
    )  # fmt: skip
    assert (report.evaluation, report.evaluated_examples) == ("cross_validation", len(eight))
    assert (tuning.folds, tuning.measured) == (4, len(eight))
    assert (tuning.unfrozen_layers, tuning.bytes > 0, tuning.learning_rate > 0) == (1, True, True)
