"""Examples that are hard to learn from: training works and warns, or refuses and says what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from graft_server.domain.errors import StateError
from graft_server.training.examples.training_set import ClassifiedSet, ExampleSet
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.task import Selection

N = 60
Spoil = Callable[[Any], ExampleSet]


@dataclass(frozen=True)
class Case:
    """Something wrong with a training set."""

    spoil: Spoil
    warning: str = ""
    """What the report says, for example."""
    refusal: str = ""
    """What the error says instead."""
    reason: str = ""
    """The error's."""


def with_features(change: Callable[[np.ndarray], None]) -> Spoil:
    """Changes the pooled features of a set, in place in a copy of them."""

    def spoil(train: ExampleSet) -> ExampleSet:
        features = train.features["pooled"].copy()
        change(features)
        return replace(train, features={"pooled": features})

    return spoil


def filled(rows: Any, value: float) -> Spoil:
    def change(features: np.ndarray) -> None:
        features[rows, 3] = value

    return with_features(change)


def constant(features: np.ndarray) -> None:
    features[:] = features[0]


def weighted(weights: Any) -> Spoil:
    return lambda train: replace(train, weights=np.broadcast_to(weights, N).astype(np.float64))


def in_one_group(train: ExampleSet) -> ExampleSet:
    return replace(train, groups=np.zeros(N, np.int64))


def twins(target: str, other: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """The second half of the examples are those of the first half over again, with other targets."""

    def spoil(train: ExampleSet) -> ExampleSet:
        half = N // 2
        order = np.random.default_rng(0).permutation(N)[:half]
        twice = np.concatenate([order, order])
        targets = getattr(train, target)[twice]
        targets[half:] = other(targets[:half])
        changes: dict[str, Any] = {
            target: targets,
            "features": {"pooled": train.features["pooled"][twice]},
            "input_digests": tuple(train.input_digests[row] for row in twice),
        }
        return replace(train, **changes)

    return spoil


def labelled(labels: np.ndarray) -> Spoil:
    return lambda train: replace(train, labels=labels.astype(np.int32))


def carrying(label: int, rows: Any) -> Spoil:
    """Only these rows carry the label."""

    def spoil(train: MultiLabelSet) -> MultiLabelSet:
        targets = train.targets.copy()
        targets[:, label] = False
        targets[rows, label] = True
        return replace(train, targets=targets)

    return spoil


def the_class_in_one_group(train: ClassifiedSet) -> ClassifiedSet:
    return replace(train, groups=np.where(train.labels == 2, N, train.groups))


def the_label_in_one_group(train: MultiLabelSet) -> MultiLabelSet:
    return replace(train, groups=np.where(train.targets[:, 2], N, train.groups))


TWO_CLASSES = "at least 2 are needed"
TWO_EXAMPLES = "at least 2"
LABEL = "at least one must be"

EVERY = {
    "constant features": Case(with_features(constant), "All examples have the same features"),
    "NaN features": Case(filled([2, 30], np.nan), "2 examples were left out: their features are not finite"),
    "one group only": Case(in_one_group, refusal=TWO_EXAMPLES, reason="TOO_FEW_EXAMPLES"),
    "some weights of zero": Case(weighted(np.arange(N) % 3), "20 examples were left out: their weight is 0"),
}
"""Of every task."""
SINGLE = EVERY | {
    "infinite features": Case(filled([2], -np.inf), "1 examples were left out: their features are not finite"),
    "NaN features everywhere": Case(
        filled(slice(None), np.nan), refusal=TWO_CLASSES, reason="TOO_FEW_CLASSES"
    ),
    "one example in a class": Case(
        labelled(np.where(np.arange(N) == 0, 2, np.arange(N) % 2)), "class 2 has a single training example"
    ),
    "two classes with identical examples": Case(
        twins("labels", lambda labels: (labels + 1) % 3), "class 0, class 1, class 2 have examples that are the same"
    ),
    "one class only": Case(labelled(np.zeros(N)), refusal=TWO_CLASSES, reason="TOO_FEW_CLASSES"),
    "groups that leave a class in one fold": Case(
        the_class_in_one_group, "class 2 has examples of one group only"
    ),
    "weights of zero": Case(weighted(0), refusal=TWO_CLASSES, reason="TOO_FEW_CLASSES"),
}  # fmt: skip
MULTI = EVERY | {
    "infinite features": Case(filled([2], np.inf), "1 examples were left out: their features are not finite"),
    "NaN features everywhere": Case(filled(slice(None), np.nan), refusal=LABEL, reason="TOO_FEW_CLASSES"),
    "one example of a label": Case(carrying(2, [7]), "label 2 has fewer than 5 training examples"),
    "sets of labels with identical examples": Case(
        twins("targets", np.logical_not), "60 of 60 examples have the same features as one with another target"
    ),
    "one label that all carry": Case(
        lambda train: replace(train, targets=np.ones((N, 3), bool)), refusal=LABEL, reason="TOO_FEW_CLASSES"
    ),
    "no label at all": Case(
        lambda train: replace(train, targets=np.zeros((N, 3), bool)), refusal=LABEL, reason="TOO_FEW_CLASSES"
    ),
    "groups that leave a label in one fold": Case(
        the_label_in_one_group, "label 2 has examples of one group only"
    ),
    "weights of zero": Case(weighted(0), refusal=LABEL, reason="TOO_FEW_CLASSES"),
}  # fmt: skip
VALUES = EVERY | {
    "infinite features": Case(filled([2], np.inf), "1 examples were left out: their features are not finite"),
    "NaN features everywhere": Case(
        filled(slice(None), np.nan), refusal=TWO_EXAMPLES, reason="TOO_FEW_EXAMPLES"
    ),
    "one example": Case(
        weighted(np.arange(N) == 5), refusal="1 training examples have a value", reason="TOO_FEW_EXAMPLES"
    ),
    "values with identical examples": Case(
        twins("values", lambda values: values + 10),
        "60 of 60 examples have the same features as one with another target",
    ),
    "one value only": Case(
        lambda train: replace(train, values=np.full(N, 7.0)), "All training examples have the same value"
    ),
    "weights of zero": Case(weighted(0), refusal=TWO_EXAMPLES, reason="TOO_FEW_EXAMPLES"),
}  # fmt: skip


def check(case: Case, select: Callable[..., Selection], train: ExampleSet) -> None:
    """Training does as the case says, and a head that comes of it answers with numbers."""
    spoilt = case.spoil(train)
    if case.refusal:
        with pytest.raises(StateError, match=case.refusal) as raised:
            select(spoilt, seed=0)
        assert raised.value.reason == case.reason
        return
    selection = select(spoilt, seed=0)
    assert any(case.warning in warning for warning in selection.report.warnings), selection.report.warnings
    output = selection.head.scores(train.features["pooled"].astype(np.float32))
    answers = output.value if isinstance(train, RegressionSet) else output.probabilities
    assert np.isfinite(answers).all()
    assert np.isfinite(output.novelty).all()


@pytest.mark.parametrize("name", SINGLE)
def test_of_one_label(name: str, make_set: Callable[..., ClassifiedSet]) -> None:
    check(SINGLE[name], select_single_label, make_set([N // 3] * 3))


@pytest.mark.parametrize("name", MULTI)
def test_of_several_labels(name: str, make_labelled_set: Callable[..., MultiLabelSet]) -> None:
    check(MULTI[name], select_multi_label, make_labelled_set(N))


@pytest.mark.parametrize("name", VALUES)
def test_of_a_value(name: str, make_valued_set: Callable[..., RegressionSet]) -> None:
    check(VALUES[name], select_regression, make_valued_set(N))


@pytest.mark.parametrize("labels", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_rare_labels_train_with_a_warning(
    make_labelled_set: Callable[..., MultiLabelSet], labels: int
) -> None:
    train = make_labelled_set(250, (0.008,) * labels)
    selection = select_multi_label(train, seed=0)
    assert selection.head.classes == labels
    assert any("more have fewer than 5 training examples" in it for it in selection.report.warnings)
    assert len(selection.report.per_class) == labels


def test_two_thousand_values_train(make_valued_set: Callable[..., RegressionSet]) -> None:
    train = make_valued_set(2000)
    assert len(np.unique(train.values)) == 2000
    assert select_regression(train, seed=0).report.warnings == ()
