"""The training examples on a plane, for a person to look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.training_set import ExampleSet
from graft_server.reports import MapPoint

MAX_POINTS = 1000


def feature_map(
    train: ExampleSet, rows: NDArray[np.int64], kinds: NDArray[np.int32], seed: int
) -> tuple[MapPoint, ...]:
    """A sample of some rows on the two directions along which the means of their kinds differ most.

    Principal components of the means rather than of the examples: with many classes they keep more of them
    apart, and with few they still show the spread within each.

    Args:
        train: The examples.
        rows: Those that are shown, shape (n,).
        kinds: shape (n,), from 0: what shall be told apart, the classes or something like them.
        seed: Of the sample.
    """
    features = train.features["pooled"][rows].astype(np.float32)
    counts = np.bincount(kinds)
    sums = np.zeros((len(counts), features.shape[1]), np.float32)
    np.add.at(sums, kinds, features)
    means = sums[counts > 0] / counts[counts > 0, None]
    centre = means.mean(axis=0)
    directions = np.linalg.svd(means - centre, full_matrices=False)[2][:2]
    sample = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAX_POINTS])
    places = (features[sample] - centre) @ directions.T
    return tuple(
        MapPoint(float(x), float(y), train.target(int(rows[i])), train.ids[rows[i]])
        for i, (x, y) in zip(sample, places, strict=True)
    )
