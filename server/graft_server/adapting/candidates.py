"""The heads that selection tries: each gives out-of-fold logits, and can be fitted on everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting import logistic
from graft_server.heads.head import Head, LinearHead
from graft_server.heads.novelty import Novelty

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""What logistic regression's C is chosen from. On unit-norm features Banking77 is best at 10 to 30."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """n training examples of one view, and the fold that each is held out in."""

    view: str
    features: Array
    """shape (n, d)."""
    labels: NDArray[np.int32]
    """shape (n,)."""
    weights: NDArray[np.float64]
    """shape (n,), all > 0."""
    classes: int
    """k."""
    fold_of: NDArray[np.int32]
    """shape (n,): 0 to folds - 1."""
    folds: int

    @cached_property
    def axes(self) -> logistic.Axes:
        """The features on their principal axes."""
        return logistic.principal_axes(self.features)

    @cached_property
    def fold_weights(self) -> Array:
        """Shape (folds, n): the weights, 0 for the rows that the fold holds out."""
        held_out = np.arange(self.folds)[:, None] == self.fold_of
        return np.where(held_out, 0, self.weights).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One head that was tried."""

    kind: str
    view: str
    settings: Mapping[str, float]
    logits: Array
    """shape (n, k): of each example, by a head trained without its fold."""
    fit: Callable[[float, Novelty], Head]
    """Fits the head on all examples, given its temperature and novelty."""


def logistic_trials(problem: Problem) -> Iterator[Trial]:
    """Logistic regression at one strength after the other, each starting from the last."""
    start: logistic.Solution | None = None
    for strength in STRENGTHS:
        start = logistic.fit(
            problem.axes,
            problem.labels,
            problem.fold_weights,
            problem.classes,
            strength=strength,
            start=start,
        )
        yield _logistic_trial(problem, strength, start)


def _logistic_trial(problem: Problem, strength: float, of_folds: logistic.Solution) -> Trial:
    axes = problem.axes
    logits = np.empty((len(problem.labels), problem.classes), np.float32)
    for fold in range(problem.folds):
        rows = problem.fold_of == fold
        logits[rows] = axes.coordinates[rows] @ of_folds.weight[fold] + of_folds.bias[fold]

    def fit(temperature: float, novelty: Novelty) -> Head:
        start = logistic.Solution(of_folds.weight.mean(axis=0)[None], of_folds.bias.mean(axis=0)[None])
        weights = problem.weights.astype(np.float32)[None]
        solution = logistic.fit(
            axes, problem.labels, weights, problem.classes, strength=strength, start=start
        )
        weight = axes.rotation @ solution.weight[0]
        bias = solution.bias[0] - axes.centre @ weight
        return LinearHead("logistic", problem.view, weight, bias, temperature, novelty)

    return Trial("logistic", problem.view, {"C": strength}, logits, fit)
