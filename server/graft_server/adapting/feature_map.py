"""The training examples on a plane, for a person to look at."""

from __future__ import annotations

import numpy as np

from graft_server.adapting.examples import Examples
from graft_server.reports import MapPoint

MAX_POINTS = 1000


def feature_map(examples: Examples) -> tuple[MapPoint, ...]:
    """A sample of the examples on the two directions along which the classes' means differ most.

    Principal components of the means rather than of the examples: with many classes they keep more of them
    apart, and with few they still show the spread within each.
    """
    train = examples.train
    features = train.features["pooled"][examples.rows].astype(np.float32)
    counts = np.bincount(examples.labels, minlength=len(train.classes))
    sums = np.zeros((len(train.classes), features.shape[1]), np.float32)
    np.add.at(sums, examples.labels, features)
    means = sums[counts > 0] / counts[counts > 0, None]
    centre = means.mean(axis=0)
    directions = np.linalg.svd(means - centre, full_matrices=False)[2][:2]
    sample = np.sort(np.random.default_rng(examples.seed).permutation(len(features))[:MAX_POINTS])
    places = (features[sample] - centre) @ directions.T
    return tuple(
        MapPoint(float(x), float(y), train.classes[examples.labels[i]], train.ids[examples.rows[i]])
        for i, (x, y) in zip(sample, places, strict=True)
    )
