"""The report of a fitted head: its figures, and facts that a person needs before trusting it."""

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
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.evaluation.interval import Published
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.heads.single_label import SingleLabelHead
from graft_server.training.examples.folded import Examples
from graft_server.training.reporting.advice import labels_advice
from graft_server.training.reporting.data_quality import data_report
from graft_server.training.reporting.feature_map import feature_map
from graft_server.training.reporting.learning_curve import (
    CURVE_FOLDS,
    LEAST_EXAMPLES,
    Law,
    learning_curve,
    unseen_share,
)
from graft_server.training.reporting.warnings import (
    FEW,
    MOSTLY,
    about,
    contradicted,
    enough,
    not_stated,
    tight,
    warnings_of_all,
    without_accuracies,
)
from graft_server.training.search import costs
from graft_server.training.search.candidates import Problem
from graft_server.training.search.search import MANY_CELLS
from graft_server.training.steps import Steps

Array = NDArray[np.float32]


def report_of(
    examples: Examples,
    problem: Problem,
    head: SingleLabelHead,
    choice: HeadChoice,
    *,
    out_of_fold: Array,
    steps: Steps,
) -> Report:
    """Returns the report of a head, measured on held-out rows of the training set, or out of fold if there are none.

    Args:
        examples: The examples that it was trained on.
        problem: The same in the head's view.
        head: The fitted head.
        choice: The choice of the head.
        out_of_fold: shape (n, k): probabilities of the examples by models not trained on them.
        steps: Told of two parts.
    """
    train, held_out = examples.train, examples.parts.held_out
    cross_validated = examples.rows[examples.measured]
    if enough(examples.parts, held_out):
        features = stacked(train.features, head.view)[held_out].astype(np.float32)
        probabilities = head.scores(features).probabilities
        labels, weights = train.labels[held_out], train.weights[held_out]
        soft = None if train.soft is None else train.soft[held_out]
        bound = examples.parts.bound[held_out]
        how = Evaluation(EvaluationMethod.HELD_OUT, 0, len(labels))
    elif enough(examples.parts, cross_validated):
        rows = examples.measured
        probabilities, labels, weights = out_of_fold[rows], examples.labels[rows], examples.weights[rows]
        soft = None if examples.soft is None else examples.soft[rows]
        bound = examples.bound[rows]
        how = Evaluation(EvaluationMethod.CROSS_VALIDATION, examples.folds, len(labels))
    else:
        probabilities, labels, weights = out_of_fold[:0], examples.labels[:0], examples.weights[:0]
        soft, bound = None, examples.bound[:0]
        how = Evaluation(EvaluationMethod.NONE)
        choice = without_accuracies(choice)
    counts = np.bincount(examples.labels, minlength=len(train.classes))
    predicted = probabilities.argmax(axis=1)
    n, width = problem.features.shape
    with steps.step(costs.curve(n, width, problem.classes)):
        curve, law = _curve(examples, problem, out_of_fold) or (None, None)
    published = _published(counts, law) if how.folds else None
    found = figures.figures(
        probabilities, labels, weights, soft, bound=bound, folds=how.folds, published=published
    )
    with steps.step(costs.figures(n)):
        data = data_report(examples, out_of_fold)
        warnings = (*not_stated(examples.parts, cross_validated), *_warnings(examples, counts))
        shown = feature_map(train, examples.rows, examples.labels, examples.seed)
    return Report(
        examples=len(examples.rows),
        validation_examples=len(held_out),
        classes=len(train.classes),
        accuracy=found.accuracy,
        macro_f1=found.macro_f1,
        log_loss=found.log_loss,
        calibration_error=found.calibration_error,
        accuracy_low=found.accuracy_low,
        accuracy_high=found.accuracy_high,
        evaluation=how,
        head=choice,
        per_class=figures.class_reports(train.classes, counts, labels, predicted, weights),
        confusions=figures.confusions(train.classes, labels, predicted),
        warnings=warnings,
        seed=examples.seed,
        reliability=figures.reliability(probabilities, labels, weights, soft),
        novelty=NoveltyReport(ABSTAIN_ABOVE, 1 - ABSTAIN_ABOVE),
        data=data,
        learning_curve=curve,
        feature_map=shown,
        advice=labels_advice(law, len(examples.rows), "accuracy", "every class"),
    )


def _published(counts: NDArray[np.int64], law: Law | None) -> Published:
    unseen = unseen_share(counts)
    return Published(unseen) if law is None else Published(unseen, *law.of_all())


def _curve(examples: Examples, problem: Problem, out_of_fold: Array) -> tuple[LearningCurve, Law] | None:
    cells = len(examples.rows) * problem.classes
    # Parts are measured on two folds, which must have examples of classes that others have too.
    told = examples.measured & (examples.fold_of < CURVE_FOLDS)
    if examples.measured.sum() < LEAST_EXAMPLES or cells > MANY_CELLS or not told.any():
        return None
    right = out_of_fold.argmax(axis=1) == examples.labels
    return learning_curve(problem, right, examples.train.classes, examples.measured)


def _warnings(examples: Examples, counts: NDArray[np.int64]) -> tuple[str, ...]:
    train = examples.train
    warnings = [*warnings_of_all(train, examples.parts), *tight(train.classes, examples.parts)]
    torn = np.zeros(len(train.classes), bool)
    torn[examples.labels[~examples.measured]] = True
    for which, what in (
        (counts == 0, "no training examples: {} not a likely answer"),
        (counts == 1, "a single training example: whether {} recognised could not be measured"),
        (
            torn & (counts > 1),
            "examples of one group only, or copies of one input: whether {} recognised could not be measured",
        ),
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
    """Returns whether most of a class's examples have the same features as another class's example, shape (k,)."""
    classes = len(examples.train.classes)
    of_class = np.bincount(examples.labels, minlength=classes)
    contradicted_rows = contradicted(examples.train, examples.rows, examples.labels)
    share = np.bincount(examples.labels, contradicted_rows, classes)
    shared: NDArray[np.bool_] = share > MOSTLY * of_class
    return shared
