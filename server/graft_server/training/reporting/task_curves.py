"""Learning curves of several labels and of numbers: what parts of the examples are measured with, and what is lost.

Of several labels it is decisions: wrong ones, of those that were carried or selected, which makes the figure micro-F1.
Of numbers it is squared errors, of the squared distances from the mean: the figure is the share of variance explained.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import LearningCurve
from graft_server.heads.maps import sigmoid
from graft_server.training.calibration.thresholds import best_cut
from graft_server.training.reporting.learning_curve import Lost, advice_of, curve_of, parts_of
from graft_server.training.solvers import binary, logistic
from graft_server.training.solvers.ridge import Ridge

STRENGTH = 3.0
"""Of the logistic regression that parts of multi-label examples are measured with, for features of norm 1. One
threshold of all labels goes with it: on two folds' rows, thresholds of their own move micro-F1 by more than twice the
examples do (0.28 to 0.40 by the fold, on 700 rows of GoEmotions)."""
LEAST_EXAMPLES = 40
"""With fewer, parts of them tell nothing."""

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


def decisions(selected: NDArray[np.bool_], targets: NDArray[np.bool_], weights: Floats) -> Lost:
    """What n examples lose by decisions about k labels, shape (n, k)."""
    lost = weights * (selected != targets).sum(axis=-1)
    at_stake = weights * (selected.sum(axis=-1) + targets.sum(axis=-1))
    return Lost(lost, at_stake)


def multi_label_curve(
    features: NDArray[np.float16],
    targets: NDArray[np.bool_],
    weights: Floats,
    fold_of: NDArray[np.int32],
    *,
    kinds: NDArray[np.int32],
    selected: NDArray[np.bool_],
    names: tuple[str, ...],
    seed: int,
) -> LearningCurve | None:
    """The curve of micro-F1 over n examples, and the labels that more examples would help most; None with too few.

    Args:
        features: shape (n, d).
        targets: shape (n, k).
        weights: shape (n,), all > 0.
        fold_of: shape (n,).
        kinds: shape (n,): parts have about each one's share.
        selected: shape (n, k): what heads like the chosen one, trained without an example's fold, select for it.
        names: Of the labels.
        seed: Of every random choice.
    """
    if len(targets) < LEAST_EXAMPLES:
        return None
    wide = features.astype(np.float32)
    scale = max(float(np.einsum("nd,nd->n", wide, wide).mean()), 1e-12)
    numbers = targets.astype(np.float32)

    def scores(held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> Array:
        axes = logistic.principal_axes(wide[rows], overwrite=True)
        own = weights[rows].astype(np.float32)[None]
        solution = binary.fit(axes, numbers[rows], own, strength=STRENGTH / scale, tolerance=logistic.ROUGH)
        found: Array = (wide[held_out] - axes.centre) @ axes.rotation @ solution.weight[0] + solution.bias[0]
        return found

    folds = int(fold_of.max()) + 1
    every = np.ones(len(targets), bool)
    sizes, by_fold = parts_of(fold_of, kinds, scores, measured=every, folds=folds, seed=seed)
    # The same order as parts_of has: the rows of one fold after another's.
    order = np.concatenate([np.flatnonzero(fold_of == fold) for fold in range(len(by_fold))])
    held, own = targets[order], weights[order]
    parts = [
        decisions(_by_one_threshold(one, held, own), held, own) for one in np.concatenate(by_fold, axis=1)
    ]
    stacked = Lost(np.stack([one.lost for one in parts]), np.stack([one.at_stake for one in parts]))
    chosen = decisions(selected, targets, weights)
    curve, law = curve_of(sizes, stacked, chosen, examples=len(targets), folds=folds, seed=seed)
    missed = (targets & ~selected).sum(axis=0)
    return replace(curve, advice=advice_of(targets.sum(axis=0), missed, names, law, seed))


def _by_one_threshold(scores: Array, targets: NDArray[np.bool_], weights: Floats) -> NDArray[np.bool_]:
    """Decisions by the threshold that is best for all labels together, shape (n, k)."""
    probabilities = sigmoid(scores)
    own = np.repeat(weights, targets.shape[1])
    chosen: NDArray[np.bool_] = probabilities >= best_cut(probabilities.reshape(-1), targets.reshape(-1), own)
    return chosen


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
) -> LearningCurve | None:
    """The curve of the share of variance that is explained; None with too few examples, or all of one value.

    Args:
        features: shape (n, d).
        values: shape (n,).
        weights: shape (n,), all > 0.
        fold_of: shape (n,).
        kinds: shape (n,): parts have about each one's share.
        predicted: shape (n,): by heads like the chosen one, trained without an example's fold.
        penalty: Of the ridge regression that parts are measured with.
        seed: Of every random choice.
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
    return curve_of(sizes, parts, chosen, examples=len(values), folds=folds, seed=seed)[0]
