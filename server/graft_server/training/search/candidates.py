"""The heads that selection tries: each gives out-of-fold logits, and can be fitted on all rows.

What was tried and left out, on Banking77 and CLINC150 at 8 and 16 per class (accuracy): shrinkage LDA 82.3,
86.1, 89.5, 90.8, behind logistic regression (84.4, 88.3, 91.1, 92.5) on each; kernel logistic regression, which
logistic regression and kernel regression averaged match or beat on each, at several times the cost; linear ridge
regression, its leave-one-out in closed form from one factorisation for all penalties, 78.6, 82.5, 85.9, 88.3
(logistic regression in the same view 83.9, 87.9, 90.2, 91.9), which also makes the head that it is averaged with
worse (82.9, 86.9, 89.4, 91.3; kernel regression instead 84.2, 88.6, 90.2, 91.8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import LEAST_PROBABILITY, LinearMap, Member, log_softplus, softmax
from graft_server.training.calibration import temperature
from graft_server.training.solvers import logistic
from graft_server.training.solvers.kernel import SOFTNESS, KernelRidge, indicators
from graft_server.training.solvers.threads import AT_ONCE, side_by_side
from graft_server.training.solvers.ticks import Tick, untold

FOLDS_AT_ONCE = 3
"""Folds in a group: five folds make two groups, on any machine, so that the result is the same on all."""
LOGITS_AT_ONCE = 4_000_000
"""Folds are fitted side by side as long as their logits take no more than 16 MiB."""
ROWS_AT_ONCE = 1024
"""Rows of features that become float32 together if only one pass needs them."""
NEVER = -1
"""The fold of rows that are in every fold's training and never measured: the classes' names."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """Training examples in one view, and the fold in which each is held out.

    The last `names` rows are the classes' names rather than examples.
    """

    view: str
    features: NDArray[np.float16]
    """shape (n, d)."""
    labels: NDArray[np.int32]
    """shape (n,)."""
    weights: NDArray[np.float64]
    """shape (n,), all > 0."""
    classes: int
    """The number k of classes."""
    fold_of: NDArray[np.int32]
    """shape (n,): 0 to folds - 1, or NEVER."""
    folds: int
    seed: int
    soft: Array | None = None
    """shape (n, k): the targets, where some are distributions; labels are then their most probable ones."""
    tick: Tick = untold
    """Told now and then while a head is fitted to it, from any thread."""

    @property
    def named(self) -> bool:
        """Whether the classes' names are among the rows."""
        return bool((self.fold_of == NEVER).any())

    @property
    def examples(self) -> int:
        """The number of rows that are examples."""
        return int((self.fold_of != NEVER).sum())

    def let_go(self) -> None:
        """Drops the axes and the kernel regression, which are the largest parts; they are made again if needed."""
        for name in ("axes", "kernel"):
            self.__dict__.pop(name, None)

    @property
    def wide(self) -> Array:
        """Returns the features as float32: made anew each time, since they are as large as all other parts together."""
        return self.features.astype(np.float32)

    @cached_property
    def axes(self) -> logistic.Axes:
        """The features on their principal axes."""
        return logistic.principal_axes(self.wide, overwrite=True)

    @cached_property
    def scale(self) -> float:
        """The mean squared norm of the features: 1 per view if rows are unit-norm."""
        n = len(self.features)
        parts = (self.features[start : start + ROWS_AT_ONCE] for start in range(0, n, ROWS_AT_ONCE))
        squares = sum(float((part.astype(np.float32) ** 2).sum(dtype=np.float64)) for part in parts)
        return max(squares / n, 1e-12)

    @cached_property
    def kernel(self) -> KernelRidge:
        """The kernel regression."""
        targets = indicators(self.labels, self.classes, self.soft)
        return KernelRidge(self.features, targets, self.weights, self.fold_of, seed=self.seed, tick=self.tick)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One head that was tried, calibrated."""

    kind: str
    problem: Problem
    settings: Mapping[str, float]
    logits: Array
    """shape (n, k): logits of the first member's map for each example, trained without the example's fold."""
    probabilities: Array
    """shape (n, k): calibrated, by the whole head, trained without the example's fold."""
    temperature: float
    """The last temperature that was applied."""
    fit: Callable[[], tuple[Member, ...]]
    """Fits the members on all rows."""
    of_others: Callable[[Array], Array] | None = None
    """From features of other inputs, shape (m, d), to their calibrated probabilities by the head without each fold,
    shape (folds, m, k); None where nobody asks."""


def settled(trial: Trial) -> Trial:
    """Returns the trial, fitted now, so that its inputs can be freed."""
    members = trial.fit()
    return replace(trial, fit=lambda: members)


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """The examples that calibration may use."""

    measured: NDArray[np.bool_]
    """shape (n,): False where the fold's model knew no example of the row's class."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    soft: Array | None = None

    def temperature(self, logits: Array) -> float:
        """Returns the temperature of out-of-fold logits; 1 if nothing can be measured."""
        if not self.measured.any():
            return 1.0
        rows = self.measured
        soft = None if self.soft is None else self.soft[rows]
        return temperature.temperature(logits[rows], self.labels[rows], self.weights[rows], soft)


def prototypes(problem: Problem, measure: Measure) -> Trial:
    """Tries the nearest class mean by angle (Snell et al. 2017, with cosines)."""
    sums = np.zeros((problem.folds + 1, problem.classes, problem.features.shape[1]), np.float32)
    targets = indicators(problem.labels, problem.classes, problem.soft)
    weights = problem.weights.astype(np.float32)[:, None]
    for fold in range(NEVER, problem.folds):
        rows = np.flatnonzero(problem.fold_of == fold)
        sums[fold] = targets[rows].T @ (problem.features[rows].astype(np.float32) * weights[rows])
    total = sums.sum(axis=0)
    logits = np.empty((problem.examples, problem.classes), np.float32)
    for fold in range(problem.folds):
        rows = np.flatnonzero(problem.fold_of == fold)
        logits[rows] = problem.features[rows].astype(np.float32) @ _directions(total - sums[fold]).T
    temperature = measure.temperature(logits)

    def fit() -> tuple[Member, ...]:
        bias = np.zeros(problem.classes, np.float32)
        return (Member(LinearMap(np.ascontiguousarray(_directions(total).T), bias), temperature, 1.0),)

    def of_others(features: Array) -> Array:
        without = [features @ _directions(total - sums[fold]).T for fold in range(problem.folds)]
        return _calibrated(np.stack(without), temperature)

    return Trial(
        "prototypes",
        problem,
        _settings(problem),
        logits,
        softmax(logits / np.float32(temperature)),
        temperature,
        fit,
        of_others,
    )


def names_alone(problem: Problem, names: Array, measure: Measure, scale: float) -> Trial:
    """Tries the classes' names, whatever the examples: only the temperature is learned from the examples.

    Args:
        problem: A problem whose view begins with the pooled one.
        names: shape (k, d): places of the names in that view.
        measure: The examples from which the temperature is learned.
        scale: The factor from cosines to logits if nothing can be measured.
    """
    weight = np.zeros((problem.features.shape[1], problem.classes), np.float32)
    weight[: names.shape[1]] = names.T
    logits: Array = problem.wide[: problem.examples] @ weight
    temperature = measure.temperature(logits * np.float32(scale)) / scale

    def fit() -> tuple[Member, ...]:
        return (Member(LinearMap(weight, np.zeros(problem.classes, np.float32)), temperature, 1.0),)

    def of_others(features: Array) -> Array:
        found = softmax(features @ weight / np.float32(temperature))
        return np.broadcast_to(found, (problem.folds, *found.shape))

    probabilities = softmax(logits / np.float32(temperature))
    return Trial(
        "zero-shot", problem, {"label_names": 1.0}, logits, probabilities, temperature, fit, of_others
    )


def _calibrated(logits: Array, temperature: float) -> Array:
    """Probabilities of shape (folds, m, k)."""
    for one in logits:
        one[:] = softmax(one / np.float32(temperature))
    return logits


def _settings(problem: Problem, **settings: float) -> dict[str, float]:
    return {**settings, "label_names": float(problem.named)}


def _directions(sums: Array) -> Array:
    directions: Array = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return directions


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A problem's logistic regressions, each without one fold, and the axes that they are on."""

    rotation: Array
    centre: Array
    by_fold: dict[int, logistic.Solution]


class LogisticTrials:
    """Logistic regression at one strength after another, each fold starting from its own last solution.

    Another fold's solution would know the held-out rows: iterations stop before that knowledge is lost.
    """

    def __init__(self, problem: Problem, measure: Measure) -> None:
        self.problem = problem
        self.measure = measure
        self._last: dict[int, logistic.Solution] = {}

    def solved(self) -> Solved:
        """Returns the last solutions, without the intermediate data."""
        axes = self.problem.axes
        return Solved(axes.rotation, axes.centre, dict(self._last))

    def start_at(self, part: Solved) -> None:
        """Starts each fold from a part's solution without that fold."""
        now = self.problem.axes
        self._last = {
            fold: logistic.moved(last, part.rotation, part.centre, now) for fold, last in part.by_fold.items()
        }

    def trial(self, strength: float, tolerance: float = logistic.FINE) -> Trial:
        """Tries a strength, given for features of norm 1."""
        problem = self.problem
        scaled = strength / problem.scale
        weights = problem.weights.astype(np.float32)
        logits = np.zeros((problem.examples, problem.classes), np.float32)
        at_once = max(
            1, min(FOLDS_AT_ONCE, LOGITS_AT_ONCE // (AT_ONCE * len(problem.labels) * problem.classes))
        )

        def solve(first: int) -> None:
            folds = range(first, min(first + at_once, problem.folds))
            last = [self._last[fold] for fold in folds if fold in self._last]
            kept = np.where(np.array(folds)[:, None] == problem.fold_of, np.float32(0), weights)
            solution = logistic.fit(
                problem.axes,
                problem.labels,
                kept,
                problem.classes,
                strength=scaled,
                start=logistic.stacked(last) if last else None,
                tolerance=tolerance,
                soft=problem.soft,
                tick=problem.tick,
            )
            for i, fold in enumerate(folds):
                self._last[fold] = logistic.Solution(solution.weight[i : i + 1], solution.bias[i : i + 1])
                rows = np.flatnonzero(problem.fold_of == fold)
                logits[rows] = problem.axes.coordinates[rows] @ solution.weight[i] + solution.bias[i]

        _ = problem.axes  # made once, before the threads ask for it
        side_by_side(solve, range(0, problem.folds, at_once))
        without = logistic.stacked([self._last[fold] for fold in range(problem.folds)])
        near = logistic.mean_of(without)
        temperature = self.measure.temperature(logits)
        rotation, centre = problem.axes.rotation, problem.axes.centre

        def fit() -> tuple[Member, ...]:
            solution = logistic.fit(
                problem.axes,
                problem.labels,
                weights[None],
                problem.classes,
                strength=scaled,
                start=near,
                soft=problem.soft,
                tick=problem.tick,
            )
            weight = problem.axes.rotation @ solution.weight[0]
            bias = solution.bias[0] - problem.axes.centre @ weight
            return (Member(LinearMap(weight, bias), temperature, 1.0),)

        def of_others(features: Array) -> Array:
            coordinates = (features - centre) @ rotation
            return _calibrated(np.matmul(coordinates, without.weight) + without.bias[:, None], temperature)

        probabilities = softmax(logits / np.float32(temperature))
        return Trial(
            "logistic",
            problem,
            _settings(problem, C=strength),
            logits,
            probabilities,
            temperature,
            fit,
            of_others,
        )


def kernel(problem: Problem, measure: Measure, ridge: float) -> Trial:
    """Tries kernel regression with one penalty."""
    kernel_ridge = problem.kernel
    logits = log_softplus(kernel_ridge.out_of_fold(ridge)[: problem.examples], SOFTNESS)
    temperature = measure.temperature(logits)

    def fit() -> tuple[Member, ...]:
        return (Member(kernel_ridge.fit(ridge), temperature, 1.0),)

    def of_others(features: Array) -> Array:
        scores = problem.kernel.of_others(features, ridge)
        return _calibrated(log_softplus(scores, SOFTNESS), temperature)

    return Trial(
        "kernel",
        problem,
        _settings(problem, ridge=ridge),
        logits,
        softmax(logits / np.float32(temperature)),
        temperature,
        fit,
        of_others,
    )


def blend(one: Trial, other: Trial, measure: Measure) -> Trial:
    """Tries the average of two heads' probabilities, calibrated again: they err on different examples."""
    mean: Array = (one.probabilities + other.probabilities) / np.float32(2)
    np.log(np.maximum(mean, np.float32(LEAST_PROBABILITY)), out=mean)
    temperature = measure.temperature(mean)

    def fit() -> tuple[Member, ...]:
        return tuple(replace(member, share=0.5) for trial in (one, other) for member in trial.fit())

    def of_others(features: Array) -> Array:
        assert one.of_others is not None and other.of_others is not None  # noqa: S101, PT018 - all kinds above have one
        both: Array = (one.of_others(features) + other.of_others(features)) / np.float32(2)
        np.log(np.maximum(both, np.float32(LEAST_PROBABILITY)), out=both)
        return _calibrated(both, temperature)

    return Trial(
        f"{one.kind}+{other.kind}",
        one.problem,
        {**one.settings, **other.settings},
        one.logits,
        softmax(mean / np.float32(temperature)),
        temperature,
        fit,
        of_others,
    )
