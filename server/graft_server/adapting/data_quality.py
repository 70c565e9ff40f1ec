"""What the examples themselves say about their labels: duplicates, contradictions, probable label errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.examples import Examples
from graft_server.reports import DataReport, DuplicateGroup, ExampleRef, LabelError

NEAR = 0.98
"""Cosine of the pooled features from which inputs count as near duplicates: on Banking77 such pairs differ in
a word's form, a comma or an article."""
MAX_COMPARED = 20_000
"""Near duplicates are looked for among so many examples at most: comparing takes time with their square."""
MAX_LISTED = 50
"""A list of a report has at most so many entries."""
MAX_MEMBERS = 10
"""A group of duplicates names at most so many of its members."""
DOUBTFUL = 0.5
"""A label is listed as a probable error where another one is better and its own probability is below this
fraction of 1 / (1 + classes that are better)."""
ROWS_AT_ONCE = 256

Array = NDArray[np.float32]


def data_report(examples: Examples, out_of_fold: Array) -> DataReport:
    """Looks at the examples; `out_of_fold` has their probabilities, shape (n, k)."""
    exact = _exact(examples)
    near = _near(examples)
    conflicting = [rows for rows in exact if len(np.unique(examples.labels[rows])) > 1]
    return DataReport(
        exact_duplicates=sum(len(rows) - 1 for rows in exact),
        near_duplicates=len(near),
        conflicting_inputs=len(conflicting),
        duplicate_groups=tuple(_group(examples, rows, 1.0) for rows in exact[:MAX_LISTED]),
        near_duplicate_pairs=tuple(
            _group(examples, np.array([one, other]), similarity)
            for one, other, similarity in near[:MAX_LISTED]
        ),
        conflicts=tuple(_group(examples, rows, 1.0) for rows in conflicting[:MAX_LISTED]),
        label_errors=_label_errors(examples, out_of_fold),
    )


def doubts(examples: Examples, out_of_fold: Array) -> NDArray[np.float64]:
    """How doubtful each label is, shape (n,): 1 - its out-of-fold probability (Northcutt et al. 2021).

    With 5% of Banking77's labels flipped, 94% of the 500 most doubtful are flipped ones; by the margin to the
    best other class, 83%. Rows whose class has no other example get 0: nothing could have known it.
    """
    own = out_of_fold[np.arange(len(examples.labels)), examples.labels]
    return np.where(examples.measured, 1 - own.astype(np.float64), 0.0)


def _label_errors(examples: Examples, out_of_fold: Array) -> tuple[LabelError, ...]:
    doubt = doubts(examples, out_of_fold)
    better = out_of_fold.argmax(axis=1)
    # Even a wrong label gets about 1 / k: below that the head finds the label less likely than by chance.
    suspected = (better != examples.labels) & (doubt > 1 - DOUBTFUL / out_of_fold.shape[1])
    order = np.argsort(-doubt, kind="stable")
    return tuple(
        LabelError(
            example=_ref(examples, row),
            suggested=examples.train.classes[better[row]],
            probability=float(1 - doubt[row]),
            suggested_probability=float(out_of_fold[row, better[row]]),
        )
        for row in order[suspected[order]][:MAX_LISTED]
    )


def _exact(examples: Examples) -> list[NDArray[np.int64]]:
    """Rows of equal inputs, largest groups first."""
    members: dict[bytes, list[int]] = {}
    for i, row in enumerate(examples.rows):
        members.setdefault(examples.train.input_digests[row], []).append(i)
    groups = [np.array(rows) for rows in members.values() if len(rows) > 1]
    return sorted(groups, key=len, reverse=True)


def _near(examples: Examples) -> list[tuple[int, int, float]]:
    """Pairs of different inputs whose pooled features are close, closest first."""
    rows = examples.rows
    if len(rows) > MAX_COMPARED:
        rows = np.sort(np.random.default_rng(examples.seed).choice(rows, MAX_COMPARED, replace=False))
    place = {int(row): i for i, row in enumerate(examples.rows)}
    features = examples.train.features["pooled"][rows].astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    digests = examples.train.input_digests
    pairs = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        close = features[start : start + ROWS_AT_ONCE] @ features[start:].T
        ones, others = np.nonzero(np.triu(close >= NEAR, 1))
        for i, j in zip(ones, others, strict=True):
            one, other = int(rows[start + i]), int(rows[start + j])
            if digests[one] != digests[other]:
                pairs.append((place[one], place[other], float(min(close[i, j], 1.0))))
    return sorted(pairs, key=lambda pair: -pair[2])


def _group(examples: Examples, rows: NDArray[np.int64], similarity: float) -> DuplicateGroup:
    return DuplicateGroup(tuple(_ref(examples, row) for row in rows[:MAX_MEMBERS]), len(rows), similarity)


def _ref(examples: Examples, row: int | np.int64) -> ExampleRef:
    train, at = examples.train, int(examples.rows[row])
    writer, sequence = train.origins[at]
    return ExampleRef(train.ids[at], writer, sequence, train.classes[train.labels[at]])
