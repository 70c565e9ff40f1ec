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


def test_eight_examples_a_class_are_tuned_by_contrast_and_each_is_measured_unseen(client, eight):
    result = client.adapt("tests/eight", eight, method="partial", fine_tuning=ONE_LAYER)
    report, tuning = result.report, result.report.tuning
    assert client.version(result.model, version=1).report.method == "frozen"
    assert (tuning.method, tuning.objective, tuning.ended) == ("partial", "contrastive", "done")
    assert (tuning.folds, tuning.measured, tuning.unfrozen_layers) == (4, len(eight), 1)
    assert tuning.kept == (tuning.tuned_log_loss < tuning.frozen_log_loss)
    assert report.method == ("partial" if tuning.kept else "frozen")
    assert report.evaluation == "cross_validation"
    texts = [text for text, _ in eight]
    answers = [it.label for it in client.predict(result.model, texts)]
    assert np.mean([found == label for found, (_, label) in zip(answers, eight, strict=True)]) > 0.9
