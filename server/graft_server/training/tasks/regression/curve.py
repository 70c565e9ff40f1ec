"""The learning curve of numbers: the head that parts of the examples are measured with, and its losses.

The losses are squared errors, out of squared distances from the mean: the figure is the share of variance explained.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import LearningCurve
from graft_server.training.reporting.learning_curve import LEAST_EXAMPLES, Law, Lost, curve_of, parts_of
from graft_server.training.solvers import logistic
from graft_server.training.solvers.ridge import Ridge

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


def regression_curve(
    features: Array,
    values: Floats,
    weights: Floats,
    fold_of: NDArray[np.int32],
    *,
    kinds: NDArray[np.int32],
    predicted: Floats,
    penalty: float,
    seed: int,
) -> tuple[LearningCurve, Law] | None:
    """Returns the curve of the share of variance explained, and its law.

    None with too few examples, or all of one value.

    Args:
        features: shape (n, d).
        values: shape (n,).
        weights: shape (n,), all > 0.
        fold_of: shape (n,).
        kinds: shape (n,): parts have about each one's share.
        predicted: shape (n,): predictions of heads like the chosen one, trained without an example's fold.
        penalty: The penalty of the ridge regression that measures parts.
        seed: The seed of every random choice.
    """
    around = (values - weights @ values / weights.sum()) ** 2
    if len(values) < LEAST_EXAMPLES or not around.max() > 0:
        return None

    def errors(held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        axes, none = logistic.principal_axes(features[rows], overwrite=True), np.zeros(len(rows), np.int32)
        fitted = Ridge(axes, values[rows], weights[rows], none).fit(penalty)
        found: Floats = (fitted.scores(features[held_out])[:, 0] - values[held_out]) ** 2
        return found

    folds = int(fold_of.max()) + 1
    every = np.ones(len(values), bool)
    sizes, by_fold = parts_of(fold_of, kinds, errors, measured=every, folds=folds, seed=seed)
    order = np.concatenate([np.flatnonzero(fold_of == fold) for fold in range(len(by_fold))])
    lost = np.concatenate(by_fold, axis=1) * weights[order]
    parts = Lost(lost, np.broadcast_to((around * weights)[order], lost.shape), smoothing=0.0)
    chosen = Lost(weights * (predicted - values) ** 2, weights * around, smoothing=0.0)
    return curve_of(sizes, parts, chosen, examples=len(values), folds=folds, seed=seed)
