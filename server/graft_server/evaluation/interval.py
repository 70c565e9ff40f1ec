"""How far the accuracy of the evaluated examples may be from the accuracy on fresh ones.

Korn and Graubard 1998: the exact interval of a proportion (Clopper and Pearson 1934) at an effective number of
examples. Unequal weights make it smaller (Kish 1965), and so do examples that are right or wrong together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""The share of such intervals that should hold the true accuracy."""
LEAST_EVALUATED = 8
"""With fewer different examples no figure is stated: even if all are right, the interval is wider than 40 points."""
SURELY_TOGETHER = 10.0
"""Rows that are bound together are taken to be right or wrong together as in so many further clusters, in which all
are: few clusters do not tell how far they are."""
SPREAD_OF_FOLDS = 1.3
"""How many times as far a cross-validated accuracy varies as that of fresh examples: folds share training examples, and
the head was chosen on them. With 1, 95% of intervals held the accuracy on fresh examples of the draw's own source, but
86% that on test splits, which are often of other writers; with this, 99% and 92% (`benchmarks/heads/stated.py`)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Published:
    """From the accuracy of the folds' heads to that of the published head, which was trained on all examples."""

    unseen: float = 0.0
    """The share of fresh examples whose class no training example has: these are answered wrong."""
    left: float = 1.0
    """The share of the errors that is left with all examples."""
    deviation: float = 0.0
    """The standard error of `left`."""

    def accuracy(self, answered: float) -> float:
        """The accuracy of the published head, given that of the folds' heads on examples of classes that they saw."""
        return 1 - (1 - answered * (1 - self.unseen)) * self.left


def accuracy_interval(
    right: NDArray[np.bool_],
    weights: Floats,
    bound: NDArray[np.int64] | None = None,
    *,
    folds: int = 0,
    published: Published | None = None,
) -> tuple[float, float]:
    """Returns the ends of the 95% interval of an accuracy, 0 to 1; both 0 without weight.

    Args:
        right: shape (n,): whether each example was answered right.
        weights: shape (n,), all >= 0.
        bound: shape (n,): rows with the same number are copies of each other or of one group; None: none are.
        folds: The folds of the cross-validation that answered them; 0: the examples are fresh.
        published: From these answers to the published head's; None: they are its own.
    """
    most = float(weights.max(initial=0))
    if most <= 0:
        return 0.0, 0.0
    weights = weights / most  # whose squares a float holds
    total = float(weights.sum())
    answered = min(float(weights @ right) / total, 1.0)
    share = answered if published is None else published.accuracy(answered)
    number = effective_number(right, weights, bound)
    if folds:
        number /= SPREAD_OF_FOLDS**2
    if published is not None and 0 < share < 1:
        number = 1 / (1 / number + ((1 - answered) * published.deviation) ** 2 / (share * (1 - share)))
    # Heads are served without SciPy, whose import costs more than what else is needed for them.
    from scipy.special import betaincinv  # noqa: PLC0415

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
