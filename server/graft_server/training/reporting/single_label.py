"""The report of a fitted head: its figures, and what a person should know before trusting it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import (
    Evaluation,
    EvaluationMethod,
    HeadChoice,
    LearningCurve,
    NoveltyReport,
    Report,
)
from graft_server.domain.views import POOLED, stacked
from graft_server.evaluation import figures
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.heads.single_label import SingleLabelHead
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.reporting.data_quality import data_report
from graft_server.training.reporting.feature_map import feature_map
from graft_server.training.reporting.learning_curve import CURVE_FOLDS, learning_curve
from graft_server.training.search.candidates import Problem
from graft_server.training.search.search import MANY_CELLS

FEW = 5
"""A class with fewer examples is warned of."""
LEAST_FOR_CURVE = 40
"""With fewer examples, parts of them tell nothing."""
MOSTLY = 0.5
"""Of a class's examples; fewer that other classes have too are listed as conflicts and not warned of."""
NAMED = 5
"""A warning names at most so many classes."""

Array = NDArray[np.float32]


def report_of(
    examples: Examples,
    problem: Problem,
    head: SingleLabelHead,
    choice: HeadChoice,
    *,
    out_of_fold: Array,
    held_out: NDArray[np.int64],
) -> Report:
    """The report of a head, measured on held-out rows of the training set, or out of fold where there are none.

    Args:
        examples: What it was trained on.
        problem: The same in the head's view.
        head: The fitted head.
        choice: How it came about.
        out_of_fold: shape (n, k): probabilities of the examples by models not trained on them.
        held_out: Rows of the training set that nothing was trained on.
    """
    train = examples.train
    if len(held_out):
        features = stacked(train.features, head.view)[held_out].astype(np.float32)
        probabilities = head.scores(features).probabilities
        labels, weights = train.labels[held_out], train.weights[held_out]
        soft = None if train.soft is None else train.soft[held_out]
        how = Evaluation(EvaluationMethod.HELD_OUT, 0, len(labels))
    elif examples.measured.any():
        rows = examples.measured
        probabilities, labels, weights = out_of_fold[rows], examples.labels[rows], examples.weights[rows]
        soft = None if examples.soft is None else examples.soft[rows]
        how = Evaluation(EvaluationMethod.CROSS_VALIDATION, examples.folds, len(labels))
    else:
        probabilities, labels, weights = out_of_fold[:0], examples.labels[:0], examples.weights[:0]
        soft = None
        how = Evaluation(EvaluationMethod.NONE)
    counts = np.bincount(examples.labels, minlength=len(train.classes))
    predicted = probabilities.argmax(axis=1)
    found = figures.figures(probabilities, labels, weights, soft)
    return Report(
        examples=len(examples.rows),
        validation_examples=len(held_out),
        classes=len(train.classes),
        accuracy=found.accuracy,
        macro_f1=found.macro_f1,
        log_loss=found.log_loss,
        calibration_error=found.calibration_error,
        evaluation=how,
        head=choice,
        per_class=figures.class_reports(train.classes, counts, labels, predicted, weights),
        confusions=figures.confusions(train.classes, labels, predicted),
        warnings=_warnings(examples, counts),
        seed=examples.seed,
        reliability=figures.reliability(probabilities, labels, weights, soft),
        novelty=NoveltyReport(ABSTAIN_ABOVE, 1 - ABSTAIN_ABOVE),
        data=data_report(examples, out_of_fold),
        learning_curve=_curve(examples, problem, out_of_fold),
        feature_map=feature_map(train, examples.rows, examples.labels, examples.seed),
    )


def _curve(examples: Examples, problem: Problem, out_of_fold: Array) -> LearningCurve | None:
    cells = len(examples.rows) * problem.classes
    # Parts are measured on two folds, which must have examples of classes that others have too.
    told = examples.measured & (examples.fold_of < CURVE_FOLDS)
    if examples.measured.sum() < LEAST_FOR_CURVE or cells > MANY_CELLS or not told.any():
        return None
    right = out_of_fold.argmax(axis=1) == examples.labels
    return learning_curve(problem, right, examples.train.classes, examples.measured)


def _warnings(examples: Examples, counts: NDArray[np.int64]) -> tuple[str, ...]:
    train = examples.train
    warnings = warnings_of_all(train, examples.rows)
    torn = np.zeros(len(train.classes), bool)
    torn[examples.labels[~examples.measured]] = True
    for which, what in (
        (counts == 0, "no training examples: {} not a likely answer"),
        (counts == 1, "a single training example: whether {} recognised could not be measured"),
        (torn & (counts > 1), "examples of one group only: whether {} recognised could not be measured"),
        (
            (counts > 1) & (counts < FEW) & ~torn,
            f"fewer than {FEW} training examples: how well {{}} recognised is a rough estimate",
        ),
    ):
        if which.any():
            warnings.append(about(train.classes, np.flatnonzero(which), what))
    shared = _shared(examples)
    if shared.any():
        what = "examples that are the same as another class's: nothing tells those apart"
        warnings.append(about(train.classes, np.flatnonzero(shared), what))
    return tuple(warnings)


def _shared(examples: Examples) -> NDArray[np.bool_]:
    """Shape (k,): whether most of a class's examples have the very features of another class's example."""
    classes = len(examples.train.classes)
    of_class = np.bincount(examples.labels, minlength=classes)
    contradicted = _contradicted(examples.train, examples.rows, examples.labels)
    share = np.bincount(examples.labels, contradicted, classes)
    shared: NDArray[np.bool_] = share > MOSTLY * of_class
    return shared


def _contradicted(
    train: ExampleSet, rows: NDArray[np.int64], targets: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Shape (n,): whether another of the rows has the very features of each, and another target."""
    features = np.ascontiguousarray(train.features[POOLED][rows])
    whole = features.view(np.dtype((np.void, features.itemsize * features.shape[1])))[:, 0]
    _, same = np.unique(whole, return_inverse=True)
    pairs = np.unique(np.stack([same, targets]), axis=1)
    several: NDArray[np.bool_] = np.bincount(pairs[0]) > 1
    return several[same]


def contradictions(train: ExampleSet, rows: NDArray[np.int64], targets: NDArray[np.integer]) -> list[str]:
    """What is to be said where most of the rows have the features of others with another target.

    Args:
        train: The examples.
        rows: Those that were trained on, shape (n,).
        targets: shape (n,): equal for equal targets.
    """
    contradicted = int(_contradicted(train, rows, targets).sum())
    if contradicted <= MOSTLY * len(rows):
        return []
    what = "have the same features as one with another target: nothing tells those apart"
    return [f"{contradicted:,} of {len(rows):,} examples {what}."]


def warnings_of_all(train: ExampleSet, rows: NDArray[np.int64]) -> list[str]:
    """What is to be said of the examples, and of those that were trained on, whatever the task."""
    finite = np.ones(len(train), bool)
    for features in train.features.values():
        finite &= np.isfinite(features).all(axis=1)
    warnings = []
    if not finite.all():
        warnings.append(f"{(~finite).sum():,} examples were left out: their features are not finite.")
    if (train.weights == 0).any():
        warnings.append(f"{(train.weights == 0).sum():,} examples were left out: their weight is 0.")
    if not np.ptp(train.features[POOLED][rows].astype(np.float32), axis=0).max() > 0:
        warnings.append("All examples have the same features: nothing tells them apart.")
    return warnings


def about(classes: tuple[str, ...], which: NDArray[np.int64], what: str) -> str:
    """A sentence about some classes, whose first few are named; "{}" in it becomes "it is" or "they are"."""
    names = ", ".join(classes[i] for i in which[:NAMED])
    more = f" and {len(which) - NAMED:,} more" if len(which) > NAMED else ""
    verb, subject = ("has", "it is") if len(which) == 1 else ("have", "they are")
    return f"{names}{more} {verb} {what.format(subject)}."
