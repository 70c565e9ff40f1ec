"""Findings in the examples themselves: duplicates, contradictions, doubtful labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import DataReport, DuplicateGroup, ExampleRef, LabelError
from graft_server.domain.views import POOLED
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.solvers.threads import side_by_side

NEAR = 0.98
"""Cosine of the pooled features from which inputs count as near duplicates: on Banking77 such pairs differ in
a word's form, a comma or an article."""
MAX_COMPARED = 20_000
"""The most examples among which near duplicates are sought: the time grows with their square."""
MAX_LISTED = 50
"""The most entries of a list in a report."""
MAX_MEMBERS = 10
"""The most members that a group of duplicates names."""
DOUBTFUL = 0.5
"""A label is listed as worth a second look if another one is better and its own probability is below this
fraction of 1 / (1 + classes that are better)."""
DIRECTIONS = 48
"""The number of directions along which near duplicates are sought first."""
MANY = 20_000
"""The pairs of a block from which one product of all its rows is less work than one product per pair."""
ROWS_AT_ONCE = 256

Array = NDArray[np.float32]


def data_report(examples: Examples, out_of_fold: Array) -> DataReport:
    """Reports on the examples; `out_of_fold` has their probabilities, shape (n, k)."""
    doubt = doubts(examples, out_of_fold)
    suspects = _suspects(examples, doubt, out_of_fold)
    errors = tuple(_label_error(examples, row, out_of_fold[row]) for row in suspects[:MAX_LISTED])
    found = findings(examples.train, examples.rows, examples.labels, seed=examples.seed)
    return replace(found, probable_label_errors=len(suspects), label_errors=errors)


def findings(train: ExampleSet, rows: NDArray[np.int64], targets: NDArray[Any], *, seed: int) -> DataReport:
    """Reports on some rows of any task, without label errors.

    Args:
        train: The examples.
        rows: The examined rows, shape (n,).
        targets: shape (n,): equal for equal targets.
        seed: The seed of the sample in which near duplicates are sought.
    """
    exact = _exact(train, rows)
    near, closest = _near(train, rows, seed)
    conflicting = [group for group in exact if len(np.unique(targets[group])) > 1]

    def named(group: NDArray[np.int64], similarity: float) -> DuplicateGroup:
        references = tuple(reference(train, rows[i]) for i in group[:MAX_MEMBERS])
        return DuplicateGroup(references, len(group), similarity)

    return DataReport(
        exact_duplicates=sum(len(group) - 1 for group in exact),
        near_duplicates=near,
        conflicting_inputs=len(conflicting),
        duplicate_groups=tuple(named(group, 1.0) for group in exact[:MAX_LISTED]),
        near_duplicate_pairs=tuple(
            named(np.array([one, other]), similarity) for one, other, similarity in closest
        ),
        conflicts=tuple(named(group, 1.0) for group in conflicting[:MAX_LISTED]),
    )


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


def _suspects(examples: Examples, doubt: NDArray[np.float64], out_of_fold: Array) -> NDArray[np.int64]:
    """Returns the rows whose label is worth a second look, most doubtful first."""
    # Even a wrong label gets about 1 / k: below that the head finds the label less likely than by chance.
    suspected = (out_of_fold.argmax(axis=1) != examples.labels) & (
        doubt > 1 - DOUBTFUL / out_of_fold.shape[1]
    )
    order: NDArray[np.int64] = np.argsort(-doubt, kind="stable")
    suspects: NDArray[np.int64] = order[suspected[order]]
    return suspects


def _label_error(examples: Examples, row: np.int64, probabilities: Array) -> LabelError:
    better = int(probabilities.argmax())
    return LabelError(
        example=reference(examples.train, examples.rows[row]),
        suggested=examples.train.classes[better],
        probability=float(probabilities[examples.labels[row]]),
        suggested_probability=float(probabilities[better]),
    )


def _exact(train: ExampleSet, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns the places, among the rows, of equal inputs, largest groups first."""
    members: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(train.input_digests[row], []).append(i)
    groups = [np.array(places) for places in members.values() if len(places) > 1]
    return sorted(groups, key=len, reverse=True)


def _near(train: ExampleSet, every: NDArray[np.int64], seed: int) -> tuple[int, list[tuple[int, int, float]]]:
    """Returns the number of pairs of different inputs with close pooled features, and the closest ones, in order."""
    places = np.arange(len(every))
    if len(places) > MAX_COMPARED:
        places = np.sort(np.random.default_rng(seed).choice(places, MAX_COMPARED, replace=False))
    rows = every[places]
    features = train.features[POOLED][rows].astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    numbers: dict[bytes, int] = {}
    inputs = np.array([numbers.setdefault(train.input_digests[row], len(numbers)) for row in rows])
    first, second = _projected(features)

    def of_block(start: int) -> tuple[int, list[tuple[int, int, float]]]:
        block = slice(start, start + ROWS_AT_ONCE)
        one, other = np.nonzero(first[block] @ second[start:].T >= NEAR - 1 - 1e-5)
        later = inputs[one + start] != inputs[other + start]
        later &= other > one
        one, other = one[later], other[later]
        if len(one) > MANY:
            similarities = (features[block] @ features[start:].T)[one, other]
        else:
            similarities = np.einsum("nd,nd->n", features[one + start], features[other + start])
        near = np.flatnonzero(similarities >= NEAR)
        closest = near[np.argsort(-similarities[near], kind="stable")[:MAX_LISTED]]
        pairs = zip(places[one[closest] + start], places[other[closest] + start], strict=True)
        return len(near), [
            (int(i), int(j), min(float(value), 1.0))
            for (i, j), value in zip(pairs, similarities[closest], strict=True)
        ]

    found = side_by_side(of_block, range(0, len(rows), ROWS_AT_ONCE))
    closest = sorted((pair for _, pairs in found for pair in pairs), key=lambda pair: -pair[2])
    return sum(count for count, _ in found), closest[:MAX_LISTED]


def _projected(features: Array) -> tuple[Array, Array]:
    """Returns two factors, shape (n, r + 2), whose products are minus half the squared distances of projected rows.

    Projections are no farther apart than the rows themselves. Along the few directions in which rows differ
    most, few pairs are close that are not close in all directions: checking only these takes a quarter of the time.
    """
    centred = features - features.mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, -DIRECTIONS:]
    projected = features @ directions
    halves = np.einsum("nd,nd->n", projected, projected)[:, None] / 2
    ones = np.ones_like(halves)
    return np.hstack([projected, halves, ones]), np.hstack([projected, -ones, -halves])
