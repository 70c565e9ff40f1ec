"""L2-regularised logistic regression for many labels, each applying or not, all at once.

Each label of a fold is a problem of its own in `logistic`'s L-BFGS: the problems share the features, their principal
axes and every matrix product, but neither steps nor stopping points. With all labels in one problem, the rare ones
would wait for the frequent ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import sigmoid
from graft_server.training.solvers import logistic
from graft_server.training.solvers.logistic import Axes, Solution
from graft_server.training.solvers.ticks import Tick, untold

Array = NDArray[np.float32]


def fit(
    axes: Axes,
    targets: Array,
    weights: Array,
    *,
    strength: float,
    start: Solution | None = None,
    tolerance: float = logistic.FINE,
    tick: Tick = untold,
) -> Solution:
    """Minimises strength * (weighted cross-entropy) + |weight|^2 / 2, the bias free, for each problem and label.

    Args:
        axes: The features, shared.
        targets: shape (n, k): 1 where the label applies, 0 where not, or its probability.
        weights: shape (f, n): each example's weight in each problem; 0 leaves it out.
        strength: C, as in scikit-learn.
        start: Where to begin, for example the solution of a neighbouring strength.
        tolerance: The gradient at which to stop, as a share of the gradient where only the frequencies of the
            labels are known.
        tick: Told of each iteration.
    """
    problem = _Labels(axes, targets, weights, strength)
    nowhere = problem.frequencies()
    loss, gradient = problem.loss(nowhere)
    goal = tolerance * np.maximum(logistic.norm(gradient), 1e-12)
    if start is None:
        return problem.solution(logistic.minimise(problem, nowhere, loss, gradient, goal, tick=tick))
    point = problem.point(start)
    return problem.solution(logistic.minimise(problem, point, *problem.loss(point), goal, tick=tick))


class _Labels:
    """The loss of f * k problems in scaled coordinates, as `logistic` has it; a point is (f * k, r + 1, 1)."""

    def __init__(self, axes: Axes, targets: Array, weights: Array, strength: float) -> None:
        self._coordinates = axes.coordinates
        self._targets = targets
        self._weights = weights * np.float32(strength)
        n, r = axes.coordinates.shape
        f, k = len(weights), targets.shape[1]
        self._shape = (f, k, r + 1)
        total = weights.sum(axis=1, dtype=np.float64)[:, None]
        # Half an example of each kind gives even a label without an example in the fold a logit.
        self._shares = ((weights @ targets).astype(np.float64) + 0.5) / (total + 1)
        # The Hessian's block of a label is the spread weighted by p (1 - p), its share's at the start.
        curvature = self._shares * (1 - self._shares) * strength * (total / n)
        steepness = curvature[:, :, None] * np.append(axes.spread, n) + 1
        self._scale: Array = (1 / np.sqrt(steepness)).astype(np.float32)

    def frequencies(self) -> Array:
        """Returns the point that knows only how frequent each label is."""
        stacked = np.zeros(self._shape, np.float32)
        stacked[:, :, -1] = np.log(self._shares / (1 - self._shares))
        return self._flat(stacked / self._scale)

    def point(self, solution: Solution) -> Array:
        stacked = np.concatenate([solution.weight.transpose(0, 2, 1), solution.bias[:, :, None]], axis=2)
        return self._flat(stacked / self._scale)

    def solution(self, point: Array) -> Solution:
        stacked = point.reshape(self._shape) * self._scale
        return Solution(np.ascontiguousarray(stacked[:, :, :-1].transpose(0, 2, 1)), stacked[:, :, -1])

    def loss(self, point: Array) -> tuple[NDArray[np.float64], Array]:
        """The loss of each problem, shape (f * k,), and its gradient, shaped as the point."""
        stacked = point.reshape(self._shape) * self._scale
        logits = np.matmul(self._coordinates, stacked[:, :, :-1].transpose(0, 2, 1))
        logits += stacked[:, None, :, -1]
        entropy = np.maximum(logits, 0) - logits * self._targets + np.log1p(np.exp(-np.abs(logits)))
        losses = np.einsum("fn,fnk->fk", self._weights, entropy, dtype=np.float64)
        residual = (sigmoid(logits) - self._targets) * self._weights[:, :, None]
        gradient = np.empty_like(stacked)
        np.matmul(residual.transpose(0, 2, 1), self._coordinates, out=gradient[:, :, :-1])
        gradient[:, :, :-1] += stacked[:, :, :-1]
        gradient[:, :, -1] = residual.sum(axis=1)
        gradient *= self._scale
        losses += np.einsum("fkr,fkr->fk", stacked[:, :, :-1], stacked[:, :, :-1], dtype=np.float64) / 2
        return losses.reshape(-1), self._flat(gradient)

    def _flat(self, stacked: NDArray[np.floating]) -> Array:
        flat: Array = np.ascontiguousarray(stacked, np.float32).reshape(-1, self._shape[2], 1)
        return flat
