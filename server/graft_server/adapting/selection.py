"""From a training set to a head and its report: choose, fit, calibrate, measure.

Everything is measured on predictions of examples by models that were not trained on them, nor on their
duplicates or their group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting import calibration, evaluation
from graft_server.adapting.candidates import Problem, Trial, logistic_trials
from graft_server.adapting.folds import bound_together, stratified_folds
from graft_server.adapting.training_set import TrainingSet
from graft_server.errors import StateError
from graft_server.heads.head import Head, softmax
from graft_server.heads.novelty import Novelty, table
from graft_server.reports import Candidate, Evaluation, EvaluationMethod, HeadChoice, Report

VIEW = "pooled"
FOLDS = 5
FEW = 5
"""A class with fewer examples is warned of."""
NAMED = 5
"""A warning names at most so many classes."""

Progress = Callable[[str, float], None]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What selection settled on."""

    head: Head
    report: Report
    """Without the identity that its caller adds: backbone, encoder, time, duration."""


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A trial, calibrated."""

    trial: Trial
    temperature: float
    candidate: Candidate


def _silent(stage: str, fraction: float) -> None:
    del stage, fraction


def select_head(train: TrainingSet, *, seed: int, progress: Progress = _silent) -> Selection:
    """Chooses and fits the head, and reports on it.

    Args:
        train: The examples. Rows of weight 0 and rows whose features are not finite are left out.
        seed: What every random choice is derived from.
        progress: Told the stage, in a word, and the fraction done, 0 to 1.

    Raises:
        StateError: Too few classes have training examples (TOO_FEW_CLASSES), or too few examples are left to
            tell training from measuring (TOO_FEW_EXAMPLES).
    """
    usable = _usable(train)
    rows = np.flatnonzero(usable & ~train.validation)
    problem = _problem(train, rows, seed)
    measured = _measured(problem)
    chosen, candidates = _choose(problem, measured, progress)
    progress("fit", 0.8)
    head = chosen.trial.fit(chosen.temperature, Novelty(*table(-chosen.trial.logits[measured].max(axis=1))))
    progress("evaluate", 0.9)
    held_out = np.flatnonzero(usable & train.validation)
    if len(held_out):
        method = EvaluationMethod.HELD_OUT
        probabilities = head.scores(train.features[head.view][held_out].astype(np.float32)).probabilities
        labels, weights = train.labels[held_out], train.weights[held_out]
    else:
        method = EvaluationMethod.CROSS_VALIDATION
        probabilities = softmax(chosen.trial.logits[measured] / np.float32(chosen.temperature))
        labels, weights = problem.labels[measured], problem.weights[measured]
    if not len(labels):
        method = EvaluationMethod.NONE
    counts = np.bincount(problem.labels, minlength=problem.classes)
    found = evaluation.figures(probabilities, labels, weights)
    predicted = probabilities.argmax(axis=1)
    report = Report(
        examples=len(rows),
        validation_examples=len(held_out),
        classes=problem.classes,
        accuracy=found.accuracy,
        macro_f1=found.macro_f1,
        log_loss=found.log_loss,
        calibration_error=found.calibration_error,
        evaluation=Evaluation(
            method, problem.folds if method is EvaluationMethod.CROSS_VALIDATION else 0, len(labels)
        ),
        head=HeadChoice(head.kind, head.view, chosen.trial.settings, chosen.temperature, candidates),
        per_class=evaluation.class_reports(train.classes, counts, labels, predicted, weights),
        confusions=evaluation.confusions(train.classes, labels, predicted),
        warnings=_warnings(train, problem, measured, counts),
        seed=seed,
    )
    return Selection(head, report)


def _usable(train: TrainingSet) -> NDArray[np.bool_]:
    finite = np.isfinite(train.features[VIEW]).all(axis=1)
    usable: NDArray[np.bool_] = finite & (train.weights > 0)
    return usable


def _problem(train: TrainingSet, rows: NDArray[np.int64], seed: int) -> Problem:
    labels = train.labels[rows]
    present = np.unique(labels)
    if len(present) < 2:
        named = f" ({train.classes[present[0]]})" if len(present) else ""
        raise StateError(
            f"{len(present)} of the classes{named} has training examples: at least 2 are needed. "
            f"There are {len(rows):,} training examples that can be used.",
            reason="TOO_FEW_CLASSES",
            metadata={"classes": str(len(present)), "needed": "2"},
        )
    bound = bound_together(train.groups[rows], [train.input_digests[row] for row in rows])
    folds = min(FOLDS, len(np.unique(bound)))
    if folds < 2:
        raise StateError(
            f"The {len(rows):,} training examples are duplicates of each other or of one group: at least 2 "
            "that are not are needed.",
            reason="TOO_FEW_EXAMPLES",
        )
    return Problem(
        view=VIEW,
        features=train.features[VIEW][rows].astype(np.float32),
        labels=labels,
        weights=train.weights[rows],
        classes=len(train.classes),
        fold_of=stratified_folds(labels, bound, folds, seed),
        folds=folds,
    )


def _measured(problem: Problem) -> NDArray[np.bool_]:
    """Shape (n,): the rows whose class has examples outside of their fold: others cannot be predicted."""
    counts = np.zeros((problem.folds, problem.classes), np.int64)
    np.add.at(counts, (problem.fold_of, problem.labels), 1)
    elsewhere = counts.sum(axis=0) - counts
    measured: NDArray[np.bool_] = elsewhere[problem.fold_of, problem.labels] > 0
    return measured


def _choose(
    problem: Problem, measured: NDArray[np.bool_], progress: Progress
) -> tuple[_Judged, tuple[Candidate, ...]]:
    tried: list[_Judged] = []
    for trial in logistic_trials(problem):
        progress("choose", min(0.7, 0.1 + 0.1 * len(tried)))
        tried.append(_judged(problem, measured, trial))
        if len(tried) > 1 and tried[-1].candidate.log_loss >= tried[-2].candidate.log_loss:
            break
    ranked = sorted(tried, key=lambda judged: judged.candidate.log_loss)
    return ranked[0], tuple(judged.candidate for judged in ranked)


def _judged(problem: Problem, measured: NDArray[np.bool_], trial: Trial) -> _Judged:
    if not measured.any():
        return _Judged(trial, 1.0, Candidate(trial.kind, trial.view, trial.settings, 0.0, 0.0))
    logits, labels, weights = trial.logits[measured], problem.labels[measured], problem.weights[measured]
    temperature = calibration.temperature(logits, labels, weights)
    probabilities = softmax(logits / np.float32(temperature))
    right = probabilities.argmax(axis=1) == labels
    candidate = Candidate(
        trial.kind,
        trial.view,
        trial.settings,
        evaluation.log_loss(probabilities, labels, weights),
        float(weights @ right / weights.sum()),
    )
    return _Judged(trial, temperature, candidate)


def _warnings(
    train: TrainingSet,
    problem: Problem,
    measured: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> tuple[str, ...]:
    """What a person should know, in sentences."""
    warnings = []
    broken = int((~np.isfinite(train.features[VIEW]).all(axis=1)).sum())
    if broken:
        warnings.append(f"{broken:,} examples were left out: their features are not finite.")
    weightless = int((train.weights == 0).sum())
    if weightless:
        warnings.append(f"{weightless:,} examples were left out: their weight is 0.")
    if not problem.features.std(axis=0).max() > 1e-4:
        warnings.append("All examples have the same features: nothing tells the classes apart.")
    for number, what in (
        (counts == 0, "no training examples: {} can never be a good answer"),
        (counts == 1, "a single training example: whether {} is recognised could not be measured"),
        ((counts > 1) & (counts < FEW), f"fewer than {FEW} training examples: figures for {{}} are rough"),
    ):
        if number.any():
            warnings.append(_about(train.classes, np.flatnonzero(number), what))
    torn = np.unique(problem.labels[~measured & (counts[problem.labels] > 1)])
    if len(torn):
        warnings.append(
            _about(
                train.classes,
                torn,
                "only examples of one group: whether {} is recognised could not be measured",
            )
        )
    return tuple(warnings)


def _about(classes: tuple[str, ...], which: NDArray[np.int64] | NDArray[np.int32], what: str) -> str:
    names = ", ".join(classes[i] for i in which[:NAMED])
    more = f" and {len(which) - NAMED:,} more" if len(which) > NAMED else ""
    one = len(which) == 1
    return f"{names}{more} {'has' if one else 'have'} {what.format('it' if one else 'they')}."
