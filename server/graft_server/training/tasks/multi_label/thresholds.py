"""From a label's scores to a probability, and from the probability to a decision on the label.

Both are fitted on out-of-fold scores, label by label, and for a label with few examples both are drawn towards the
common fit: ten examples cannot distinguish a threshold of 0.2 from one of 0.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import sigmoid
from graft_server.heads.multi_label import choice

DRAWN = 10.0
"""The examples with which a label's own threshold and the common one weigh equally."""
STIFFNESS = 4.0
"""How firmly a label's slope is held to the common slope, in examples of either kind whose errors it outweighs."""
CELLS_AT_ONCE = 4_000_000
"""Examples times labels whose thresholds are sought together."""
ROUNDS = 30
"""Iterations of Newton's method; it converges after about eight."""

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Logits are score * slope + shift (Platt 1999), of k labels."""

    slope: Array
    """shape (k,)."""
    shift: Array
    """shape (k,)."""

    def probabilities(self, scores: Array) -> Array:
        """Shape (n, k)."""
        return sigmoid(self.logits(scores))

    def logits(self, scores: Array) -> Array:
        """Shape (n, k)."""
        logits: Array = scores * self.slope + self.shift
        return logits


def platt(scores: Array, targets: NDArray[np.bool_], weights: Floats) -> Scale:
    """Returns the scale that minimises the weighted log-loss of each label, its slope held to the common one.

    Args:
        scores: shape (n, k), for examples that the model was not trained on.
        targets: shape (n, k).
        weights: shape (n,).
    """
    middle = scores.mean(axis=0, dtype=np.float64)
    spread = np.maximum(scores.std(axis=0, dtype=np.float64), 1e-6)
    standard = (scores - middle) / spread
    total = weights.sum()
    carried = weights @ targets
    # Targets a little off 0 and 1, as in Platt: a label that is separated without error needs no infinite slope.
    high, low = (carried + 1) / (carried + 2), 1 / (total - carried + 2)
    soft = np.where(targets, high, low)
    common, _ = _newton(standard, soft, weights, np.ones(scores.shape[1]), stiffness=0.0, shared=True)
    slope, shift = _newton(standard, soft, weights, common, stiffness=STIFFNESS, shared=False)
    return Scale((slope / spread).astype(np.float32), (shift - slope * middle / spread).astype(np.float32))


def _newton(
    scores: Floats, soft: Floats, weights: Floats, slope: Floats, *, stiffness: float, shared: bool
) -> tuple[Floats, Floats]:
    """Returns slopes and shifts, each of shape (k,); one slope for all, or each drawn to its start."""
    held = slope
    share = weights @ soft / weights.sum()
    shift = np.log(share / (1 - share))
    slope = slope.copy()
    for _ in range(ROUNDS):
        chances = sigmoid((scores * slope + shift).astype(np.float32)).astype(np.float64)
        off = weights[:, None] * (chances - soft)
        bend = weights[:, None] * np.maximum(chances * (1 - chances), 1e-9)
        by_slope = np.einsum("nk,nk->k", off, scores) + stiffness * (slope - held)
        by_shift = off.sum(axis=0)
        aa = np.einsum("nk,nk,nk->k", bend, scores, scores) + stiffness
        ab = np.einsum("nk,nk->k", bend, scores)
        bb = bend.sum(axis=0) + 1e-6
        if shared:
            # One slope for all: eliminate each label's shift, then sum the rest.
            step_slope = (by_slope - ab * by_shift / bb).sum() / max((aa - ab**2 / bb).sum(), 1e-9)
            steps = np.full_like(slope, step_slope)
        else:
            steps = (by_slope - ab * by_shift / bb) / np.maximum(aa - ab**2 / bb, 1e-9)
        shifts = (by_shift - ab * steps) / bb
        slope, shift = slope - np.clip(steps, -1, 1), shift - np.clip(shifts, -2, 2)
        if max(np.abs(steps).max(), np.abs(shifts).max()) < 1e-4:
            break
    # A slope of 0 or below would reverse a label's order.
    return np.maximum(slope, 1e-3), shift


def thresholds(probabilities: Array, targets: NDArray[np.bool_], weights: Floats) -> Array:
    """Returns each label's threshold, shape (k,): the one with the largest F1, drawn to the common one.

    Args:
        probabilities: shape (n, k), for examples that the model was not trained on.
        targets: shape (n, k).
        weights: shape (n,).
    """
    k = probabilities.shape[1]
    common = best_cut(probabilities.reshape(-1), targets.reshape(-1), np.repeat(weights, k))
    at_once = max(1, CELLS_AT_ONCE // len(weights))
    blocks = (slice(first, first + at_once) for first in range(0, k, at_once))
    own = np.concatenate([best_cuts(probabilities[:, some], targets[:, some], weights) for some in blocks])
    carried = targets.sum(axis=0)
    drawn = (carried * own + DRAWN * common) / (carried + DRAWN)
    return np.asarray(drawn, np.float32)


def best_cut(probabilities: Array, carried: NDArray[np.bool_], weights: Floats) -> float:
    """Returns one label's threshold with the largest F1, in the middle of its gap; arguments of shape (n,)."""
    return float(best_cuts(probabilities[:, None], carried[:, None], weights)[0])


def best_cuts(probabilities: Array, carried: NDArray[np.bool_], weights: Floats) -> Floats:
    """Returns the thresholds of several labels, shape (k,), each the best for its label alone.

    Args:
        probabilities: shape (n, k).
        carried: shape (n, k).
        weights: shape (n,), all > 0.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    falling = np.take_along_axis(probabilities, order, 0).astype(np.float64)
    weighted = weights[order]
    found = np.cumsum(weighted * np.take_along_axis(carried, order, 0), axis=0)
    f1 = 2 * found / (np.cumsum(weighted, axis=0) + found[-1])
    # Equal probabilities are selected together.
    f1[:-1][falling[1:] == falling[:-1]] = -1
    best = f1.argmax(axis=0)
    following = np.concatenate([falling[1:], falling[-1:] / 2])
    labels = np.arange(len(best))
    cuts = (falling[best, labels] + following[best, labels]) / 2
    return np.where(found[-1] > 0, cuts, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The step from scores to probabilities and labels."""

    scale: Scale
    thresholds: Array
    """shape (k,)."""
    at_least_one: bool

    def apply(self, scores: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Returns probabilities and selected labels, each of shape (n, k)."""
        probabilities = self.scale.probabilities(scores)
        return probabilities, choice(probabilities, self.thresholds, at_least_one=self.at_least_one)


def decide(scores: Array, targets: NDArray[np.bool_], weights: Floats) -> Decision:
    """Fits the decision on out-of-fold scores, shape (n, k).

    If every example carries a label, at least one is selected: the best, if none reaches its threshold.
    """
    scale = platt(scores, targets, weights)
    cuts = thresholds(scale.probabilities(scores), targets, weights)
    return Decision(scale, cuts, bool(targets.any(axis=1).all()))


def decided_without(
    scores: Array, targets: NDArray[np.bool_], weights: Floats, fold_of: NDArray[np.int32]
) -> tuple[Array, NDArray[np.bool_]]:
    """Returns probabilities and selected labels by decisions fitted without each row's fold, for the report."""
    probabilities, selected = np.empty_like(scores), np.empty(scores.shape, bool)
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        decision = decide(scores[~inside], targets[~inside], weights[~inside])
        probabilities[inside], selected[inside] = decision.apply(scores[inside])
    return probabilities, selected
