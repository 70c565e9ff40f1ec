"""Fits a head's novelty: the anchors, the scales, and the table from strangeness to share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.novelty import Novelty, combined, table

PER_ANCHOR = 4
"""Examples for each anchor of a class, at least: fewer make anchors of accidents."""
MAX_PER_CLASS = 10
"""Anchors of a class. On all of CLINC150, 5: AUROC 0.979, 10: 0.980, 20: 0.980."""
MAX_ANCHORS = 4096
"""Of all classes, but always one each."""
ROUNDS = 4
"""Of Lloyd's algorithm; more change nothing that can be measured."""
ROWS_AT_ONCE = 2048

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    directions: Array
    """shape (a, d), unit-norm."""
    sums: Array
    """shape (a, d): of the features of their members."""
    members: NDArray[np.int64]
    """shape (a,): how many."""
    own: NDArray[np.int64]
    """shape (n,): the anchor that each example is a member of."""


def fit_novelty(
    features: Array, labels: NDArray[np.int32], largest_logits: Array, measured: NDArray[np.bool_], seed: int
) -> Novelty:
    """The novelty of a head.

    Args:
        features: shape (n, d), of the training examples.
        labels: shape (n,).
        largest_logits: shape (n,): of each example, by a model that was not trained on it.
        measured: shape (n,): whether that model knew the example's class.
        seed: Of the anchors' first places.
    """
    anchors = _anchors(features, labels, seed)
    similarities = _held_out_similarities(features, anchors)
    # A class's only example is near no other: it says nothing about how near examples of known classes are.
    told = measured & np.isfinite(similarities)
    if not told.any():
        told = np.ones(len(labels), bool)
        similarities = np.maximum(similarities, -1)
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
    sums = np.zeros((before, features.shape[1]), np.float32)
    np.add.at(sums, own, features)
    return _Anchors(np.concatenate(parts), sums, np.bincount(own, minlength=before), own)


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


def _held_out_similarities(features: Array, anchors: _Anchors) -> Array:
    """The largest product with an anchor, shape (n,), each example taken out of its own anchor.

    -inf for an example whose anchor is the only one and has no other member.
    """
    best = np.empty(len(features), np.float32)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part, own = features[rows], anchors.own[rows]
        similarities = part @ anchors.directions.T
        without = _unit(anchors.sums[own] - part)
        left = np.where(anchors.members[own] > 1, np.einsum("nd,nd->n", part, without), -np.inf)
        similarities[np.arange(len(part)), own] = left
        best[rows] = similarities.max(axis=1)
    return best


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit
