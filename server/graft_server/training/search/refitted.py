"""A head like the chosen one, on other folds: what it answers where other examples are held out together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.views import POOLED
from graft_server.training.examples.folded import Examples
from graft_server.training.search import self_training
from graft_server.training.search.candidates import (
    NEVER,
    LogisticTrials,
    Measure,
    Problem,
    Trial,
    blend,
    kernel,
    names_alone,
    prototypes,
)


def on_other_folds(
    trial: Trial, examples: Examples, fold_of: NDArray[np.int32], folds: int, measured: NDArray[np.bool_]
) -> Trial:
    """Returns a head of the same kind and settings, trained without other folds, and on labelled examples alone.

    Args:
        trial: A head that was tried on the examples.
        examples: The examples.
        fold_of: shape (n,): the fold of each example, 0 to folds - 1.
        folds: How many there are.
        measured: shape (n,): whether the example's class has examples outside of its fold.
    """
    names = np.full(len(trial.problem.labels) - len(fold_of), NEVER, np.int32)
    problem = replace(trial.problem, fold_of=np.concatenate([fold_of, names]), folds=folds)
    measure = Measure(measured, examples.labels, examples.weights, examples.soft)
    kinds = [kind for kind in trial.kind.split("+") if kind != self_training.KIND]
    parts = [_part(kind, problem, trial.settings, examples, measure) for kind in kinds]
    return parts[0] if len(parts) == 1 else blend(parts[0], parts[1], measure)


def _part(
    kind: str, problem: Problem, settings: Mapping[str, float], examples: Examples, measure: Measure
) -> Trial:
    if kind == "prototypes":
        return prototypes(problem, measure)
    if kind == "logistic":
        return LogisticTrials(problem, measure).trial(settings["C"])
    if kind == "kernel":
        return kernel(problem, measure, settings["ridge"])
    train = examples.train
    assert train.label_features is not None  # noqa: S101 - a head of names alone was tried on them
    return names_alone(problem, train.label_features[POOLED].astype(np.float32), measure, train.label_scale)
