"""Self-training: a linear head that also learns from examples without a target, by what another head says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import LEAST_PROBABILITY, LinearMap, Member, blended, softmax
from graft_server.training.search.candidates import Measure, Problem, Trial
from graft_server.training.solvers import logistic
from graft_server.training.solvers.threads import side_by_side

KIND = "self-trained"
SHARPNESS = 2.0
WEIGHT = 0.3
ROUNDS = 10

Array = NDArray[np.float32]


def pseudo_labels(probabilities: Array, prior: Array, *, sharpness: float = SHARPNESS, power: float = 0.5, rounds: int = ROUNDS) -> Array:
    m = len(probabilities)
    balanced = np.maximum(probabilities, np.float32(LEAST_PROBABILITY)).astype(np.float64)
    for _ in range(rounds):
        balanced *= (prior * m / np.maximum(balanced.sum(axis=0), 1e-9)) ** power
        balanced /= balanced.sum(axis=1, keepdims=True)
    balanced **= sharpness
    balanced /= balanced.sum(axis=1, keepdims=True)
    return balanced.astype(np.float32)


def self_trained(
    teacher: Trial, members: tuple[Member, ...], measure: Measure, unlabelled: NDArray[np.float16], *, strength: float, weight: float = WEIGHT,
    label: Callable = pseudo_labels,
) -> Trial:
    problem = teacher.problem
    n, m, k = len(problem.labels), len(unlabelled), problem.classes
    features = np.concatenate([problem.wide, unlabelled.astype(np.float32)])
    others = features[n:].copy()
    counts = np.bincount(problem.labels, problem.weights, minlength=k)
    prior = np.full(k, 1.0 / k)
    by_fold = teacher.of_others(others)
    of_all = blended([it.map.logits(others) for it in members], [it.temperature for it in members], [it.share for it in members], teacher.temperature)
    axes = logistic.principal_axes(features, overwrite=True)
    labels = np.concatenate([problem.labels, np.zeros(m, np.int32)])
    scaled = strength / problem.scale
    hard = np.eye(k, dtype=np.float32)[problem.labels] if problem.soft is None else problem.soft
    usual = float(np.median(problem.weights))
    logits = np.zeros((problem.examples, k), np.float32)

    def solve(kept: NDArray, found: Array, start=None) -> logistic.Solution:
        soft = np.concatenate([hard, label(found, prior)])
        weights = np.concatenate([np.where(kept, problem.weights, 0.0), np.full(m, weight * usual)])
        return logistic.fit(axes, labels, weights.astype(np.float32)[None], k, strength=scaled, start=start, soft=soft, tick=problem.tick)

    def hold_out(fold: int) -> logistic.Solution:
        solution = solve(problem.fold_of != fold, by_fold[fold])
        rows = np.flatnonzero(problem.fold_of == fold)
        logits[rows] = axes.coordinates[rows] @ solution.weight[0] + solution.bias[0]
        return solution

    solutions = side_by_side(hold_out, range(problem.folds))
    temperature = measure.temperature(logits)

    def fit() -> tuple[Member, ...]:
        solution = solve(np.ones(n, bool), of_all, logistic.mean_of(logistic.stacked(solutions)))
        w = axes.rotation @ solution.weight[0]
        return (Member(LinearMap(w, solution.bias[0] - axes.centre @ w), temperature, 1.0),)

    return Trial(KIND, problem, {**teacher.settings, "unlabelled_weight": weight}, logits, softmax(logits / np.float32(temperature)), temperature, fit)
