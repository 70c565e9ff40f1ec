"""The report of a multi-label head: its figures, and facts that a person needs before trusting it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Task
from graft_server.domain.report import (
    Evaluation,
    EvaluationMethod,
    HeadChoice,
    LabelError,
    NoveltyReport,
    Report,
)
from graft_server.domain.views import stacked
from graft_server.evaluation.multi_label import figures, label_reports, reliability
from graft_server.heads import ABSTAIN_ABOVE
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.training.examples.folded import Parts
from graft_server.training.reporting.advice import labels_advice
from graft_server.training.reporting.data_quality import MAX_LISTED, findings, reference
from graft_server.training.reporting.feature_map import feature_map
from graft_server.training.reporting.warnings import (
    FEW,
    about,
    contradictions,
    enough,
    not_stated,
    warnings_of_all,
    without_accuracies,
)
from graft_server.training.search.search import MANY_CELLS
from graft_server.training.solvers.ticks import Tick, untold
from graft_server.training.tasks.multi_label.curve import multi_label_curve
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.thresholds import decided_without

DOUBTFUL = 0.25
"""A label, or its absence, is listed as worth a second look if its probability, given the input, is below this
fraction of its average."""

Array = NDArray[np.float32]


def report_of(
    train: MultiLabelSet,
    parts: Parts,
    head: MultiLabelHead,
    choice: HeadChoice,
    *,
    scores: Array,
    fold_of: NDArray[np.int32],
    seed: int,
    tick: Tick = untold,
) -> Report:
    """Returns the report of a head, measured on held-out rows of the training set, or out of fold if there are none.

    Args:
        train: The examples.
        parts: What its rows are for: the head was trained on n.
        head: The fitted head.
        choice: The choice of the head.
        scores: shape (n, k): the rows' scores, by maps not trained on them.
        fold_of: shape (n,): the fold in which each is held out.
        seed: The seed of every random choice.
        tick: Told now and then, from any thread.
    """
    rows, held_out = parts.rows, parts.held_out
    targets = train.targets[rows]
    probabilities, selected = decided_without(scores, targets, train.weights[rows], fold_of)
    found_curve = None
    if targets.size <= MANY_CELLS:
        found_curve = multi_label_curve(
            stacked(train.features, head.view)[rows],
            targets,
            train.weights[rows],
            fold_of,
            kinds=train.kinds()[rows],
            selected=selected,
            names=train.classes,
            seed=seed,
            tick=tick,
        )
    curve, law = found_curve or (None, None)
    suspects, errors = _label_errors(train, rows, probabilities)
    data = replace(
        findings(train, parts, _numbers(targets)),
        probable_label_errors=suspects,
        label_errors=errors,
    )
    how = Evaluation(EvaluationMethod.CROSS_VALIDATION, int(fold_of.max()) + 1, len(rows))
    measured_on = rows
    if not (enough(parts, held_out) or enough(parts, rows)):
        how, measured_on = Evaluation(EvaluationMethod.NONE), rows[:0]
        probabilities, selected = probabilities[:0], selected[:0]
        choice = without_accuracies(choice)
    elif enough(parts, held_out):
        output = head.scores(stacked(train.features, head.view)[held_out].astype(np.float32))
        probabilities, selected = output.probabilities, output.selected
        how, measured_on = Evaluation(EvaluationMethod.HELD_OUT, 0, len(held_out)), held_out
    carried, weights = train.targets[measured_on], train.weights[measured_on]
    found = figures(
        probabilities, selected, carried, weights, bound=parts.bound[measured_on], folds=how.folds
    )
    counts = targets.sum(axis=0)
    return Report(
        examples=len(rows),
        validation_examples=len(held_out),
        classes=len(train.classes),
        accuracy=found.figures.accuracy,
        macro_f1=found.figures.macro_f1,
        log_loss=found.figures.log_loss,
        calibration_error=found.figures.calibration_error,
        accuracy_low=found.figures.accuracy_low,
        accuracy_high=found.figures.accuracy_high,
        evaluation=how,
        head=choice,
        per_class=label_reports(train.classes, counts, carried.sum(axis=0), head.thresholds, found),
        warnings=(*not_stated(parts, rows), *_warnings(train, parts, fold_of)),
        seed=seed,
        reliability=reliability(probabilities, carried, weights),
        novelty=NoveltyReport(ABSTAIN_ABOVE, 1 - ABSTAIN_ABOVE),
        data=data,
        learning_curve=curve,
        feature_map=feature_map(train, rows, train.kinds()[rows], seed),
        task=Task.MULTI_LABEL,
        multi_label=found.further,
        advice=labels_advice(law, len(rows), "micro-F1", "every label"),
    )


def _numbers(targets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Shape (n,): equal for equal sets."""
    numbers: dict[bytes, int] = {}
    packed = np.packbits(targets, axis=1)
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in packed], np.int64)


def _label_errors(
    train: MultiLabelSet, rows: NDArray[np.int64], probabilities: Array
) -> tuple[int, tuple[LabelError, ...]]:
    """Returns the number of labels that look wrong or missing, and the least likely, each with the corrected set."""
    targets = train.targets[rows]
    own = np.where(targets, probabilities, 1 - probabilities).astype(np.float64)
    shares = targets.mean(axis=0)
    usual = np.where(targets, shares, 1 - shares)
    likelihood = own / usual
    likelihood[train.confirmed_among(rows)] = np.inf
    doubtful = np.flatnonzero(likelihood.reshape(-1) < DOUBTFUL)
    order = doubtful[np.argsort(likelihood.reshape(-1)[doubtful], kind="stable")][:MAX_LISTED]
    errors = []
    for place, label in zip(*np.unravel_index(order, targets.shape), strict=True):
        suggested = targets[place].copy()
        suggested[label] = not suggested[label]
        errors.append(
            LabelError(
                example=reference(train, rows[place]),
                suggested=", ".join(train.classes[i] for i in np.flatnonzero(suggested)),
                probability=float(own[place, label]),
                suggested_probability=float(1 - own[place, label]),
            )
        )
    return len(doubtful), tuple(errors)


def _warnings(train: MultiLabelSet, parts: Parts, fold_of: NDArray[np.int32]) -> tuple[str, ...]:
    rows = parts.rows
    warnings = [*warnings_of_all(train, parts), *contradictions(train, rows, _numbers(train.targets[rows]))]
    n, counts = len(rows), train.targets[rows].sum(axis=0)
    by_fold = [train.targets[rows[fold_of == fold]].any(axis=0) for fold in np.unique(fold_of)]
    torn = (np.sum(by_fold, axis=0) == 1) & (counts > 1)
    for which, what in (
        (counts == 0, "no training examples: {} not a likely answer"),
        (counts == n, "no training example without it: {} always a likely answer"),
        (
            torn,
            "examples of one group only, or copies of one input: whether {} recognised could not be measured",
        ),
        (
            (counts > 0) & (counts < FEW) & (counts < n) & ~torn,
            f"fewer than {FEW} training examples: how well {{}} recognised is a rough estimate",
        ),
    ):
        if which.any():
            warnings.append(about(train.classes, np.flatnonzero(which), what))
    return tuple(warnings)
