"""A map of the training examples on a plane, for people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import MapPoint
from graft_server.domain.views import POOLED
from graft_server.training.examples.training_set import ExampleSet

MAX_POINTS = 1000
LEAST_SPREAD = 1e-5
"""The length below which a direction is rounding, for features of norm 1."""


def feature_map(
    train: ExampleSet, rows: NDArray[np.int64], kinds: NDArray[np.int32], seed: int
) -> tuple[MapPoint, ...]:
    """Returns a sample of rows on the two directions along which the means of their kinds differ most.

    They are principal components of the means rather than of the examples: with many classes they keep more of them
    apart. The means of two kinds differ along one direction only, and of one kind along none: the spread of
    the examples gives the rest.

    Args:
        train: The examples.
        rows: The rows that are shown, shape (n,).
        kinds: shape (n,), from 0: the groups to keep apart, the classes or something like them.
        seed: The seed of the sample.
    """
    features = train.features[POOLED][rows].astype(np.float32)
    counts = np.bincount(kinds)
    sums = np.zeros((len(counts), features.shape[1]), np.float32)
    np.add.at(sums, kinds, features)
    means = sums[counts > 0] / counts[counts > 0, None]
    centre = means.mean(axis=0)
    sample = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAX_POINTS])
    shown = features[sample] - centre
    directions = _principal(means - centre, min(2, len(means) - 1))
    besides = shown - shown @ directions.T @ directions
    directions = np.concatenate([directions, _principal(besides, 2 - len(directions))])
    places = np.zeros((len(shown), 2), np.float32)
    places[:, : len(directions)] = shown @ directions.T  # features of one number have one direction
    return tuple(
        MapPoint(float(x), float(y), train.target(int(rows[i])), train.ids[rows[i]])
        for i, (x, y) in zip(sample, places, strict=True)
    )


def _principal(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Returns the first `count` principal directions of centred rows, shape (count, d), or as many as there are."""
    _, spread, directions = np.linalg.svd(rows, full_matrices=False)
    kept: NDArray[np.float32] = directions[:count][spread[:count] > LEAST_SPREAD]
    return kept
