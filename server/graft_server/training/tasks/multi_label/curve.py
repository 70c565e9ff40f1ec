"""The learning curve of several labels: the head that parts of the examples are measured with, and its losses.

The losses are wrong decisions among the labels that were carried or selected, which makes the figure micro-F1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import LearningCurve
from graft_server.heads.maps import sigmoid
from graft_server.training.reporting.learning_curve import (
    LEAST_EXAMPLES,
    Law,
    Lost,
    advice_of,
    curve_of,
    parts_of,
)
from graft_server.training.solvers import binary, logistic
from graft_server.training.solvers.ticks import Tick, untold
from graft_server.training.tasks.multi_label.thresholds import best_cut

STRENGTH = 3.0
"""The strength of the logistic regression that measures parts of multi-label examples, for features of norm 1. All
labels share one threshold: on two folds' rows, separate thresholds move micro-F1 by more than twice the
examples do (0.28 to 0.40 by the fold, on 700 rows of GoEmotions)."""

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


def decisions(selected: NDArray[np.bool_], targets: NDArray[np.bool_], weights: Floats) -> Lost:
    """Returns the losses of n examples from decisions about k labels, shape (n, k)."""
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
    tick: Tick = untold,
) -> tuple[LearningCurve, Law] | None:
    """Returns the curve of micro-F1 over n examples with the labels that more would help most, and its law.

    None with too few examples.

    Args:
        features: shape (n, d).
        targets: shape (n, k).
        weights: shape (n,), all > 0.
        fold_of: shape (n,).
        kinds: shape (n,): parts have about each one's share.
        selected: shape (n, k): the labels that heads like the chosen one, trained without its fold, select for it.
        names: Of the labels.
        seed: Of every random choice.
        tick: Told now and then, from any thread.
    """
    if len(targets) < LEAST_EXAMPLES:
        return None
    wide = features.astype(np.float32)
    scale = max(float(np.einsum("nd,nd->n", wide, wide).mean()), 1e-12)
    numbers = targets.astype(np.float32)

    def scores(held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> Array:
        axes = logistic.principal_axes(wide[rows], overwrite=True)
        own = weights[rows].astype(np.float32)[None]
        solution = binary.fit(
            axes, numbers[rows], own, strength=STRENGTH / scale, tolerance=logistic.ROUGH, tick=tick
        )
        found: Array = (wide[held_out] - axes.centre) @ axes.rotation @ solution.weight[0] + solution.bias[0]
        return found

    folds = int(fold_of.max()) + 1
    every = np.ones(len(targets), bool)
    sizes, by_fold = parts_of(fold_of, kinds, scores, measured=every, folds=folds, seed=seed)
    # In the order of parts_of: the rows of one fold after those of another.
    order = np.concatenate([np.flatnonzero(fold_of == fold) for fold in range(len(by_fold))])
    held, own = targets[order], weights[order]
    parts = [
        decisions(_by_one_threshold(one, held, own), held, own) for one in np.concatenate(by_fold, axis=1)
    ]
    stacked = Lost(np.stack([one.lost for one in parts]), np.stack([one.at_stake for one in parts]))
    chosen = decisions(selected, targets, weights)
    curve, law = curve_of(sizes, stacked, chosen, examples=len(targets), folds=folds, seed=seed)
    missed = (targets & ~selected).sum(axis=0)
    return replace(curve, advice=advice_of(targets.sum(axis=0), missed, names, law, seed)), law


def _by_one_threshold(scores: Array, targets: NDArray[np.bool_], weights: Floats) -> NDArray[np.bool_]:
    """Returns decisions by the threshold that is best for all labels together, shape (n, k)."""
    probabilities = sigmoid(scores)
    own = np.repeat(weights, targets.shape[1])
    chosen: NDArray[np.bool_] = probabilities >= best_cut(probabilities.reshape(-1), targets.reshape(-1), own)
    return chosen
