"""How far the accuracy of the evaluated examples may be from the accuracy on fresh ones.

Korn and Graubard 1998: the exact interval of a proportion (Clopper and Pearson 1934) at an effective number of
examples. Unequal weights make it smaller (Kish 1965), and so do examples that are right or wrong together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

LEVEL = 0.95
"""The share of such intervals that should hold the true accuracy."""
SURELY_TOGETHER = 10.0
"""Rows that are bound together are taken to be right or wrong together as in so many further clusters, in which all
are: few clusters do not tell how far they are."""
SPREAD_OF_FOLDS = 1.0
"""How many times as far a cross-validated accuracy varies as that of fresh examples."""

Floats = NDArray[np.float64]


def accuracy_interval(
    right: NDArray[np.bool_], weights: Floats, bound: NDArray[np.int64] | None = None, *, folds: int = 0
) -> tuple[float, float]:
    """Returns the ends of the 95% interval of an accuracy, 0 to 1; both 0 without weight.

    Args:
        right: shape (n,): whether each example was answered right.
        weights: shape (n,), all >= 0.
        bound: shape (n,): rows with the same number are copies of each other or of one group; None: none are.
        folds: The folds of the cross-validation that answered them; 0: the examples are fresh.
    """
    total = float(weights.sum())
    if total <= 0:
        return 0.0, 0.0
    share = min(float(weights @ right) / total, 1.0)
    number = effective_number(right, weights, bound)
    if folds:
        number /= SPREAD_OF_FOLDS**2
    tail = (1 - LEVEL) / 2
    wins, losses = number * share, number * (1 - share)
    low = float(betaincinv(wins, losses + 1, tail)) if share > 0 else 0.0
    high = float(betaincinv(wins + 1, losses, 1 - tail)) if share < 1 else 1.0
    return low, high


def effective_number(
    right: NDArray[np.bool_], weights: Floats, bound: NDArray[np.int64] | None = None
) -> float:
    """Returns how many independent examples of equal weight would tell as much, at most n."""
    total = float(weights.sum())
    alone = total**2 / float(weights @ weights)
    if bound is None:
        return alone
    _, cluster = np.unique(bound, return_inverse=True)
    of_clusters = np.bincount(cluster, weights)
    clusters = total**2 / float(of_clusters @ of_clusters)
    if clusters >= alone:
        return alone
    together = _together(right, weights, cluster)
    together = (clusters * together + SURELY_TOGETHER) / (clusters + SURELY_TOGETHER)
    # The design effect: by how much the variance of the mean grows.
    return alone / (1 + together * (alone / clusters - 1))


def _together(right: NDArray[np.bool_], weights: Floats, cluster: NDArray[np.int64]) -> float:
    """Returns how far rows of a cluster are right or wrong together, 0 to 1: the intraclass correlation."""
    off = weights * (right - float(weights @ right) / float(weights.sum()))
    apart = float(off @ off)
    sums, of_clusters = np.bincount(cluster, off), np.bincount(cluster, weights)
    most = float(of_clusters @ of_clusters) / float(weights @ weights)
    if apart <= 0 or most <= 1:
        return 1.0
    return float(np.clip((float(sums @ sums) / apart - 1) / (most - 1), 0.0, 1.0))
