"""Fits a head's novelty: the anchors, the scales, and the table from strangeness to share.

The table says how strange held-out examples are, and so how strange new inputs of the known classes will be. Two
things would make it promise too much, and the head abstain on more than it states: anchors placed with the example's
help, so each fold is compared with anchors of the other folds; and examples with a twin among the others, such as
sentences from one template, so these are not counted. With all of CLINC150, a head abstained on 7.5% of
the in-scope test with neither measure, on 6.9% with the first, on 6.0% with both; of Banking77 on 4.0%.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.novelty import Novelty, combined, table
from graft_server.training.solvers.threads import side_by_side

PER_ANCHOR = 4
"""The fewest examples for each anchor of a class: fewer make anchors of accidents."""
MAX_PER_CLASS = 10
"""The most anchors of a class. On all of CLINC150, 5: AUROC 0.979, 10: 0.980, 20: 0.980."""
MAX_ANCHORS = 4096
"""The most anchors of all classes together, but always one each."""
ROUNDS = 4
"""Iterations of Lloyd's algorithm; more make no measurable difference."""
TWIN = 0.25
"""An example has a twin at less than this fraction of the median distance, 1 - cosine, between neighbours: a
fraction because the distances of features differ between backbones."""
ROWS_AT_ONCE = 2048

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    directions: Array
    """shape (a, d), unit-norm."""
    own: NDArray[np.int64]
    """shape (n,): the anchor that each example is a member of."""


def fit_novelty(
    features: Array,
    labels: NDArray[np.int32],
    largest_logits: Array,
    measured: NDArray[np.bool_],
    fold_of: NDArray[np.int32],
    *,
    seed: int,
    by_fold: NDArray[np.float16] | None = None,
) -> Novelty:
    """Fits the novelty of a head.

    Args:
        features: shape (n, d), features of the training examples.
        labels: shape (n,).
        largest_logits: shape (n,): each example's, from a model that was not trained on its fold.
        measured: shape (n,): whether that model knew the example's class.
        fold_of: shape (n,): the fold of each example, at least two different ones.
        seed: The seed of the anchors' first places.
        by_fold: shape (f, n, d): features of the examples by a backbone that was not trained on fold 0, 1 to f - 1, if
            backbones were; examples of further folds are not measured.
    """
    anchors = _anchors(features, labels, seed)
    similarities = _held_out_similarities(features, labels, fold_of, seed, by_fold)
    told = measured & ~_twins(features, anchors.own)
    if not told.any():
        # Classes of one example each: the distance of examples to others of their class is unknown.
        told = np.ones(len(labels), bool)
    largest_logits, similarities = largest_logits[told], similarities[told]
    logit_scale, similarity_scale = _scale(largest_logits), _scale(similarities)
    knots, shares = table(combined(largest_logits, similarities, logit_scale, similarity_scale))
    return Novelty(anchors.directions.astype(np.float16), logit_scale, similarity_scale, knots, shares)


def _scale(values: Array) -> float:
    spread = float(values.std())
    return spread if spread > 1e-6 else 1.0


def _anchors(features: Array, labels: NDArray[np.int32], seed: int) -> _Anchors:
    """A few centroids of each class, by Lloyd's algorithm on directions."""
    rng = np.random.default_rng(seed)
    present, counts = np.unique(labels, return_counts=True)
    most = max(1, min(MAX_PER_CLASS, MAX_ANCHORS // len(present)))
    own = np.empty(len(labels), np.int64)
    parts: list[Array] = []
    before = 0
    for rows in np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1]):
        wanted = min(most, -(-len(rows) // PER_ANCHOR))
        directions, nearest = _lloyd(features[rows], wanted, rng)
        own[rows] = before + nearest
        before += len(directions)
        parts.append(directions)
    return _Anchors(np.concatenate(parts), own)


def _lloyd(features: Array, wanted: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    """Unit-norm centroids, shape (wanted, d), and the nearest one of each row, shape (n,)."""
    directions = _unit(features[rng.choice(len(features), wanted, replace=False)])
    nearest = np.zeros(len(features), np.int64)
    for _ in range(ROUNDS):
        nearest = (features @ directions.T).argmax(axis=1)
        members = nearest[None] == np.arange(wanted)[:, None]
        filled = members.any(axis=1)
        directions[filled] = _unit(members[filled].astype(np.float32) @ features)
    return directions, nearest


def _held_out_similarities(
    features: Array,
    labels: NDArray[np.int32],
    fold_of: NDArray[np.int32],
    seed: int,
    by_fold: NDArray[np.float16] | None,
) -> Array:
    """The largest product with an anchor of the other folds, shape (n,); 0 for those of folds without features."""
    best = np.zeros(len(features), np.float32)

    def hold_out(fold: int) -> None:
        others = fold_of != fold
        of = features if by_fold is None else by_fold[fold].astype(np.float32)
        directions = _anchors(of[others], labels[others], seed).directions
        held_out = np.flatnonzero(~others)
        for rows in np.array_split(held_out, -(-len(held_out) // ROWS_AT_ONCE)):
            best[rows] = (of[rows] @ directions.T).max(axis=1)

    folds = [it for it in np.unique(fold_of).tolist() if by_fold is None or it < len(by_fold)]
    side_by_side(hold_out, folds)
    return best


def _twins(features: Array, own: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Shape (n,): whether each example has a twin among the members of its own anchor."""
    distances = np.full(len(features), np.inf, np.float32)
    counts = np.bincount(own)
    for members in np.split(np.argsort(own, kind="stable"), np.cumsum(counts)[:-1]):
        part = _unit(features[members])
        for start in range(0, len(members) if len(members) > 1 else 0, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            similarities = part[rows] @ part.T
            np.einsum("ii->i", similarities[:, rows])[:] = -1  # not with itself
            distances[members[rows]] = 1 - similarities.max(axis=1)
    known = np.isfinite(distances)
    return distances < TWIN * float(np.median(distances[known])) if known.any() else known


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit
