"""The usable training examples, and the folds in which they are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import StateError
from graft_server.domain.names import shown
from graft_server.training.examples.copies import Copies, copies_among
from graft_server.training.examples.folds import bound_together, stratified_folds
from graft_server.training.examples.training_set import ClassifiedSet, ExampleSet


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """The usable rows of a training set, and their folds."""

    train: ClassifiedSet
    parts: Parts
    rows: NDArray[np.int64]
    """shape (n,)."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    fold_of: NDArray[np.int32]
    folds: int
    measured: NDArray[np.bool_]
    """shape (n,): whether the row's class has examples outside of its fold; none is, where folds tear copies apart."""
    seed: int
    bound: NDArray[np.int64]
    """shape (n,): equal for rows that share a fold because they are copies or near copies of each other or of one
    group."""
    soft: NDArray[np.float32] | None = None
    """shape (n, k): the targets, if some are distributions."""


def usable(train: ExampleSet) -> NDArray[np.bool_]:
    """Returns whether each row has a weight above 0 and finite features in every view, shape (n,)."""
    rows = train.weights > 0
    for features in train.features.values():
        rows &= np.isfinite(features).all(axis=1)
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What each usable row of a training set is for."""

    rows: NDArray[np.int64]
    """shape (n,): the rows to train on."""
    held_out: NDArray[np.int64]
    """shape (m,): the rows of the validation split to measure on: none is a copy of a row to train on."""
    repeated: NDArray[np.int64]
    """The rows of the validation split that are copies or near copies of rows to train on."""
    copies: Copies
    bound: NDArray[np.int64]
    """A number for each row of the set: equal for those of one group, copies and near copies."""


def parts_of(train: ExampleSet, seed: int, among: NDArray[np.int64] | None = None) -> Parts:
    """Returns what each row is for.

    Args:
        train: The examples.
        seed: The seed of the sample by which near copies are sought.
        among: The rows that are used; None: all that have a weight above 0 and finite features.
    """
    rows = usable(train) if among is None else np.isin(np.arange(len(train)), among)
    copies = copies_among(train, np.flatnonzero(rows), seed)
    trained = rows & ~train.validation
    seen = np.isin(copies.bound, copies.bound[trained])
    held_out = rows & train.validation
    return Parts(
        np.flatnonzero(trained),
        np.flatnonzero(held_out & ~seen),
        np.flatnonzero(held_out & seen),
        copies,
        bound_together(train.groups, copies.bound),
    )


def examples_of(train: ClassifiedSet, rows: NDArray[np.int64], seed: int) -> Examples:
    """The examples of some rows to train on, dealt into folds; raises as `examples_in`."""
    return examples_in(train, parts_of(train, seed, rows), seed)


def examples_in(train: ClassifiedSet, parts: Parts, seed: int) -> Examples:
    """The examples to train on, dealt into folds.

    Raises:
        StateError: Too few classes have examples (TOO_FEW_CLASSES), or all are bound together (TOO_FEW_EXAMPLES).
    """
    rows = parts.rows
    labels = train.labels[rows]
    present = np.unique(labels)
    if len(present) < 2:
        named = f" ({shown(train.classes[present[0]])})" if len(present) else ""
        raise StateError(
            f"{len(present)} of the classes{named} has training examples: at least 2 are needed. "
            f"There are {len(rows):,} training examples that can be used.",
            reason="TOO_FEW_CLASSES",
            metadata={"classes": str(len(present)), "needed": "2"},
        )
    dealt = deal(train, parts, labels)
    fold_of = stratified_folds(labels, dealt.bound, dealt.folds, seed)
    measured = measurable(labels, fold_of, dealt.folds, len(train.classes))
    measured &= not dealt.torn
    soft = None if train.soft is None else train.soft[rows]
    return Examples(
        train,
        parts,
        rows,
        labels,
        train.weights[rows],
        fold_of,
        dealt.folds,
        measured,
        seed,
        dealt.bound,
        soft,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """How rows are bound for folds."""

    bound: NDArray[np.int64]
    """shape (n,): equal for rows that share a fold."""
    folds: int
    """How many folds there are, at least 2."""
    torn: bool
    """Whether all rows are copies of each other as the backbone reads them, so that folds tear copies apart."""


def deal(train: ExampleSet, parts: Parts, labels: NDArray[np.int32]) -> Dealt:
    """Returns which of the rows to train on must share a fold, and how many folds there are.

    Args:
        train: The examples.
        parts: What its rows are for.
        labels: shape (n,): of each row to train on a class that every fold should have one of; all the same where none
            is meant.

    Raises:
        StateError: All are the same input, or of one group (TOO_FEW_EXAMPLES).
    """
    rows, wanted = parts.rows, _folds(labels)
    bound = parts.bound[rows]
    if (folds := min(wanted, len(np.unique(bound)))) > 1:
        return Dealt(bound, folds, False)
    bound = bound_together(train.groups[rows], parts.copies.inputs[rows])
    if (folds := min(wanted, len(np.unique(bound)))) > 1:
        return Dealt(bound, folds, True)
    raise StateError(
        f"The {len(rows):,} training examples are duplicates of each other or of one group: at least 2 "
        "that are not are needed.",
        reason="TOO_FEW_EXAMPLES",
    )


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


def measurable(
    labels: NDArray[np.int32], fold_of: NDArray[np.int32], folds: int, classes: int
) -> NDArray[np.bool_]:
    """Returns whether each row's class has examples outside of its fold, shape (n,)."""
    counts = np.zeros((folds, classes), np.int64)
    np.add.at(counts, (fold_of, labels), 1)
    elsewhere = counts.sum(axis=0) - counts
    measured: NDArray[np.bool_] = elsewhere[fold_of, labels] > 0
    return measured
