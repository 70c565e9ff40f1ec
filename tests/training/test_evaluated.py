"""Which versions' figures compare: a digest of what they were measured on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from graft_server.domain.report import Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.evaluated import evaluation_digest, tuned_digest

FOLDS = Evaluation(EvaluationMethod.CROSS_VALIDATION, 5, 4)
HELD_OUT = Evaluation(EvaluationMethod.HELD_OUT, 0, 2)


def examples(**changed: Any) -> ClassifiedSet:
    """Six examples of two classes, of which the last two are held out."""
    known: dict[str, Any] = {
        "weights": np.ones(6),
        "validation": np.array([False] * 4 + [True] * 2),
        "groups": np.arange(6),
        "ids": tuple("abcdef"),
        "origins": tuple(("w", it) for it in range(6)),
        "input_digests": tuple(bytes([it]) * 16 for it in range(6)),
        "features": {},
        "classes": ("bill", "lock"),
        "descriptions": ("", ""),
        "labels": np.array([0, 1, 0, 1, 0, 1], np.int32),
        **changed,
    }
    return ClassifiedSet(**known)


def shuffled(it: ClassifiedSet, order: list[int]) -> ClassifiedSet:
    return dataclasses.replace(
        it,
        weights=it.weights[order],
        validation=it.validation[order],
        labels=it.labels[order],
        input_digests=tuple(it.input_digests[place] for place in order),
        soft=None if it.soft is None else it.soft[order],
    )


@pytest.mark.parametrize("how", [FOLDS, HELD_OUT])
def test_the_same_examples_have_one_digest_in_any_order_under_any_ids(how):
    digest = evaluation_digest(examples(), how)
    assert len(digest) == 16
    assert evaluation_digest(shuffled(examples(ids=tuple("uvwxyz")), [5, 2, 0, 1, 4, 3]), how) == digest


def test_what_was_not_measured_has_none():
    assert evaluation_digest(examples(), Evaluation(EvaluationMethod.NONE)) == ""


def test_held_out_examples_alone_count_where_they_were_measured():
    more = examples(labels=np.array([1, 1, 1, 1, 0, 1], np.int32))
    assert evaluation_digest(more, HELD_OUT) == evaluation_digest(examples(), HELD_OUT)
    assert evaluation_digest(more, FOLDS) != evaluation_digest(examples(), FOLDS)


CHANGES = {
    "an input": examples(input_digests=(*(bytes([it]) * 16 for it in range(5)), b"9" * 16)),
    "a label": examples(labels=np.array([0, 1, 0, 1, 1, 1], np.int32)),
    "a weight": examples(weights=np.array([1, 1, 1, 1, 1, 2.0])),
    "a class's name": examples(classes=("bill", "key")),
    "a held-out example more": examples(validation=np.array([False] * 3 + [True] * 3)),
    "distributions": examples(soft=np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_any_other_data_has_another_digest(changed):
    assert evaluation_digest(CHANGES[changed], HELD_OUT) != evaluation_digest(examples(), HELD_OUT)


def test_the_way_of_measuring_tells_too():
    everything = examples(validation=np.zeros(6, bool))
    assert evaluation_digest(everything, FOLDS) != evaluation_digest(
        examples(validation=np.ones(6, bool)), HELD_OUT
    )


def test_a_tuned_version_compares_with_those_that_were_measured_on_the_part_set_aside_alone(report):
    frozen = dataclasses.replace(report, evaluation=FOLDS, evaluation_digest="0" * 16)
    tuned = dataclasses.replace(report, evaluation=HELD_OUT)
    aside = tuned_digest(frozen, tuned, 1)
    assert aside != frozen.evaluation_digest
    assert tuned_digest(frozen, tuned, 1) == aside
    assert tuned_digest(frozen, tuned, 2) != aside
    same = dataclasses.replace(frozen, evaluation=HELD_OUT)
    assert tuned_digest(same, tuned, 1) == same.evaluation_digest


@pytest.fixture
def report() -> Any:
    return Report(6, 2, 2, 0.5, 0.5, 0.5, 0.5, FOLDS, HeadChoice("logistic", "pooled", {}, 1.0), ())
