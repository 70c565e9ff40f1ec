"""Findings in the examples themselves: duplicates, contradictions, doubtful labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import DataReport, DuplicateGroup, ExampleRef, LabelError
from graft_server.training.examples.copies import mixed, similarity
from graft_server.training.examples.folded import Examples, Parts
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.reporting.warnings import enough

MAX_LISTED = 50
"""The most entries of a list in a report."""
MAX_MEMBERS = 10
"""The most members that a group of duplicates names."""
DOUBTFUL = 0.5
"""A label is listed as worth a second look if another one is better and its own probability is below this
fraction of 1 / (1 + classes that are better)."""

Array = NDArray[np.float32]


def data_report(examples: Examples, out_of_fold: Array) -> DataReport:
    """Reports on the examples; `out_of_fold` has their probabilities, shape (n, k)."""
    listed = (
        suspects(examples, out_of_fold)
        if enough(examples.parts, examples.rows[examples.measured])
        else np.empty(0, np.int64)
    )
    errors = tuple(_label_error(examples, row, out_of_fold[row]) for row in listed[:MAX_LISTED])
    found = findings(examples.train, examples.parts, examples.labels)
    return replace(found, probable_label_errors=len(listed), label_errors=errors)


def findings(train: ExampleSet, parts: Parts, targets: NDArray[Any]) -> DataReport:
    """Reports on the rows of a set of any task, without label errors.

    Args:
        train: The examples.
        parts: What its rows are for: n of them are trained on.
        targets: shape (n,): equal for equal targets.
    """
    rows, copies = parts.rows, parts.copies
    alike = groups_of_several(copies.alike[rows])
    confirmed = train.confirmed_among(rows)
    conflicting = [
        group for group in alike if len(np.unique(targets[group])) > 1 and not confirmed[group].all()
    ]
    trained_on = set(rows.tolist())
    near = [pair for pair in copies.pairs if trained_on.issuperset(pair)]

    def named(members: Sequence[int] | NDArray[np.int64], closeness: float) -> DuplicateGroup:
        references = tuple(reference(train, row) for row in members[:MAX_MEMBERS])
        return DuplicateGroup(references, len(members), closeness)

    listed = sorted(((similarity(train, *pair), pair) for pair in near[:MAX_LISTED]), reverse=True)
    return DataReport(
        exact_duplicates=len(rows) - len(np.unique(copies.inputs[rows])),
        near_duplicates=len(near),
        conflicting_inputs=len(conflicting),
        duplicate_groups=tuple(named(rows[group], 1.0) for group in alike[:MAX_LISTED]),
        near_duplicate_pairs=tuple(named(pair, closeness) for closeness, pair in listed),
        conflicts=tuple(named(rows[group], 1.0) for group in conflicting[:MAX_LISTED]),
        read_alike=len(rows) - len(np.unique(copies.alike[rows])),
        bound_examples=int(mixed(copies.bound[rows], train.groups[rows]).sum()),
        confirmed_examples=int(confirmed.sum()),
        validation_copies=len(parts.repeated),
        validation_copy_pairs=tuple(
            named(pair, similarity(train, *pair)) for pair in _copied(parts, parts.repeated[:MAX_LISTED])
        ),
    )


def _copied(parts: Parts, repeated: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Returns pairs of a validation row and the row to train on that it is a copy of, of several the most alike."""
    pairs = []
    copies, rows = parts.copies, parts.rows
    for row in repeated:
        same = rows[copies.bound[rows] == copies.bound[row]]
        closest = (copies.inputs[same] == copies.inputs[row]) * 2 + (copies.alike[same] == copies.alike[row])
        pairs.append((int(row), int(same[closest.argmax()])))
    return pairs


def reference(train: ExampleSet, row: int | np.int64) -> ExampleRef:
    """Returns the reference to the example of a row of the training set."""
    writer, sequence = train.origins[row]
    return ExampleRef(train.ids[row], writer, sequence, train.target(int(row)))


def doubts(examples: Examples, out_of_fold: Array) -> NDArray[np.float64]:
    """Returns how doubtful each label is, shape (n,): 1 - its out-of-fold probability (Northcutt et al. 2021).

    With 5% of Banking77's labels flipped, 94% of the 500 most doubtful are flipped ones; by the margin to the
    best other class, 83%. Rows whose class has no other example get 0: no head could have known the class.
    """
    own = out_of_fold[np.arange(len(examples.labels)), examples.labels]
    return np.where(examples.measured, 1 - own.astype(np.float64), 0.0)


def suspects(examples: Examples, out_of_fold: Array) -> NDArray[np.int64]:
    """Returns the rows whose label is worth a second look and not confirmed, most doubtful first."""
    doubt = doubts(examples, out_of_fold)
    # Even a wrong label gets about 1 / k: below that the head finds the label less likely than by chance.
    suspected = (out_of_fold.argmax(axis=1) != examples.labels) & (
        doubt > 1 - DOUBTFUL / out_of_fold.shape[1]
    )
    suspected &= ~examples.train.confirmed_among(examples.rows)
    order: NDArray[np.int64] = np.argsort(-doubt, kind="stable")
    found: NDArray[np.int64] = order[suspected[order]]
    return found


def _label_error(examples: Examples, row: np.int64, probabilities: Array) -> LabelError:
    better = int(probabilities.argmax())
    return LabelError(
        example=reference(examples.train, examples.rows[row]),
        suggested=examples.train.classes[better],
        probability=float(probabilities[examples.labels[row]]),
        suggested_probability=float(probabilities[better]),
    )


def groups_of_several(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns the places of each number that several rows have, largest groups first."""
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    several = sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))
    return sorted(several, key=len, reverse=True)
