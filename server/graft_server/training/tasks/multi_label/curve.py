"""The learning curve of several labels: what parts of the examples are measured with, and what is lost.

It is decisions: wrong ones, of those that were carried or selected, which makes the figure micro-F1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import LearningCurve
from graft_server.heads.maps import sigmoid
from graft_server.training.reporting.learning_curve import LEAST_EXAMPLES, Lost, advice_of, curve_of, parts_of
from graft_server.training.solvers import binary, logistic
from graft_server.training.tasks.multi_label.thresholds import best_cut

STRENGTH = 3.0
"""Of the logistic regression that parts of multi-label examples are measured with, for features of norm 1. One
threshold of all labels goes with it: on two folds' rows, thresholds of their own move micro-F1 by more than twice the
examples do (0.28 to 0.40 by the fold, on 700 rows of GoEmotions)."""

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
