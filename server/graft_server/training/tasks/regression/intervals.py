"""Intervals from out-of-fold errors that hold the true value as often as they promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import CONFIDENCE
from graft_server.heads.regression import Spread
from graft_server.training.solvers import logistic
from graft_server.training.solvers.ridge import Ridge

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""The penalty of the ridge on the size of the errors, for features of norm 1."""
NARROWER = 0.98
"""The spread depends on the input only if that makes intervals narrower by 2% on average."""
LEAST_EXAMPLES = 100
"""With fewer examples, the causes of large errors cannot be distinguished from chance."""
BOUNDS = (0.05, 0.95)
"""The spread stays between these quantiles of the examples' spreads: a line falls below 0 somewhere."""

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """From `below` spreads below the value to `above` spreads above it, in the errors' unit."""

    below: float
    above: float
    spread: Spread | None
    """None: 1 everywhere."""


def fit_interval(features: Array, errors: Floats, weights: Floats, fold_of: NDArray[np.int32]) -> Interval:
    """Returns the interval that fits the errors.

    Args:
        features: shape (n, d), features of the examples.
        errors: shape (n,): true value less prediction, each by a head trained without the example's fold.
        weights: shape (n,), all > 0.
        fold_of: shape (n,).
    """
    below, above = _ends(errors, weights)
    plain = Interval(below, above, None)
    if len(errors) < LEAST_EXAMPLES or not np.abs(errors).max() > 0:
        return plain
    sizes = np.abs(errors)
    ridge = Ridge(logistic.principal_axes(features), sizes, weights, fold_of)
    found = {penalty: ridge.out_of_fold(penalty) for penalty in PENALTIES}
    penalty = min(found, key=lambda one: float(weights @ (found[one] - sizes) ** 2))
    least, most = _bounds(found[penalty])
    spread = np.clip(found[penalty], least, most)
    ends = _ends(errors / spread, weights)
    if sum(ends) * float(weights @ spread / weights.sum()) > NARROWER * (below + above):
        return plain
    return Interval(*ends, Spread(ridge.fit(penalty), least, most))


def intervals_without(
    features: Array, errors: Floats, weights: Floats, fold_of: NDArray[np.int32], interval: Interval
) -> tuple[Floats, Floats]:
    """Returns how far each row's interval reaches below and above the prediction, its ends set without the row's fold.

    A report needs these: on the errors that set it, an interval keeps its promise by construction.
    """
    spread = np.ones(len(errors))
    if interval.spread is not None:
        spread = interval.spread.of(features).astype(np.float64)
    below, above = np.empty(len(errors)), np.empty(len(errors))
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        ends = _ends(errors[~inside] / spread[~inside], weights[~inside])
        below[inside], above[inside] = ends[0] * spread[inside], ends[1] * spread[inside]
    return below, above


def _ends(errors: Floats, weights: Floats) -> tuple[float, float]:
    """Returns how far the interval reaches below and above: each end leaves out half of the allowed misses."""
    tail = (1 - CONFIDENCE) / 2
    return -_quantile(errors, weights, tail, upper=False), _quantile(errors, weights, 1 - tail, upper=True)


def _quantile(errors: Floats, weights: Floats, share: float, *, upper: bool) -> float:
    """Returns the weighted quantile, on the safe side: one extra example, of mean weight, lies beyond the outermost."""
    signed = errors if upper else -errors
    order = np.argsort(signed, kind="stable")
    below = np.cumsum(weights[order]) / (weights.sum() + weights.mean())
    wanted = share if upper else 1 - share
    place = min(int(np.searchsorted(below, wanted - 1e-12)), len(order) - 1)
    found = float(signed[order[place]])
    return found if upper else -found


def _bounds(sizes: Floats) -> tuple[float, float]:
    least, most = (float(it) for it in np.quantile(sizes, BOUNDS))
    most = max(most, 1e-6)
    return max(least, 0.1 * most), most
