"""The usable training examples, and the folds in which they are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import StateError
from graft_server.training.examples.folds import bound_together, stratified_folds
from graft_server.training.examples.training_set import ClassifiedSet, ExampleSet


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """The usable rows of a training set, and their folds."""

    train: ClassifiedSet
    rows: NDArray[np.int64]
    """shape (n,)."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    fold_of: NDArray[np.int32]
    folds: int
    measured: NDArray[np.bool_]
    """shape (n,): whether the row's class has examples outside of its fold."""
    seed: int
    bound: NDArray[np.int64]
    """shape (n,): equal for rows that share a fold because they are copies of each other or of one group."""
    soft: NDArray[np.float32] | None = None
    """shape (n, k): the targets, if some are distributions."""


def usable(train: ExampleSet) -> NDArray[np.bool_]:
    """Returns whether each row has a weight above 0 and finite features in every view, shape (n,)."""
    rows = train.weights > 0
    for features in train.features.values():
        rows &= np.isfinite(features).all(axis=1)
    return rows


def examples_of(train: ClassifiedSet, rows: NDArray[np.int64], seed: int) -> Examples:
    """The examples of some rows, dealt into folds.

    Raises:
        StateError: Too few classes have examples (TOO_FEW_CLASSES), or all are bound together (TOO_FEW_EXAMPLES).
    """
    labels = train.labels[rows]
    present = np.unique(labels)
    if len(present) < 2:
        named = f" ({train.classes[present[0]]})" if len(present) else ""
        raise StateError(
            f"{len(present)} of the classes{named} has training examples: at least 2 are needed. "
            f"There are {len(rows):,} training examples that can be used.",
            reason="TOO_FEW_CLASSES",
            metadata={"classes": str(len(present)), "needed": "2"},
        )
    bound, folds = deal(train, rows, labels)
    fold_of = stratified_folds(labels, bound, folds, seed)
    measured = _measured(labels, fold_of, folds, len(train.classes))
    soft = None if train.soft is None else train.soft[rows]
    return Examples(train, rows, labels, train.weights[rows], fold_of, folds, measured, seed, bound, soft)


def bound_rows(train: ExampleSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers, shape (n,), equal for those of some rows that are copies of each other or of one group."""
    return bound_together(train.groups[rows], [train.input_digests[row] for row in rows])


def deal(
    train: ExampleSet, rows: NDArray[np.int64], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], int]:
    """Which of some rows must share a fold, shape (n,), and how many folds there are.

    Args:
        train: The examples.
        rows: Those that are dealt out, shape (n,).
        labels: shape (n,): of each a class that every fold should have one of; all the same where none is meant.

    Raises:
        StateError: All are bound together (TOO_FEW_EXAMPLES).
    """
    bound = bound_rows(train, rows)
    folds = min(_folds(labels), len(np.unique(bound)))
    if folds < 2:
        raise StateError(
            f"The {len(rows):,} training examples are duplicates of each other or of one group: at least 2 "
            "that are not are needed.",
            reason="TOO_FEW_EXAMPLES",
        )
    return bound, folds


def _folds(labels: NDArray[np.int32]) -> int:
    """More folds for fewer examples: what is trained on stays close to what there is.

    But no more than a typical class has examples, so that each fold holds one of each class. With more, and with
    leave-one-out most of all, the held-out example's class alone is short of one: wrong settings look best. On
    Banking77 with 2, 3, 4, 5 examples a class (accuracy of the choice): leave-one-out 73.0, 75.9, 78.1, 80.4; 10
    folds 73.2, 75.4, 78.6, 80.6; as many as examples 74.9, 77.5, 79.8, 80.9, calibrated as well or better.
    Repeating folds dealt anew changes none of it by more than 0.1.
    """
    typical = int(np.median(np.unique(labels, return_counts=True)[1]))
    by_size = 20 if len(labels) <= 100 else 10 if len(labels) <= 500 else 5
    return min(by_size, max(typical, 2))


def _measured(
    labels: NDArray[np.int32], fold_of: NDArray[np.int32], folds: int, classes: int
) -> NDArray[np.bool_]:
    counts = np.zeros((folds, classes), np.int64)
    np.add.at(counts, (fold_of, labels), 1)
    elsewhere = counts.sum(axis=0) - counts
    measured: NDArray[np.bool_] = elsewhere[fold_of, labels] > 0
    return measured
