"""Contrastive tuning of few examples: which examples it is given, and what is made of it.

Examples are too few to hold any out for good, so that each is held out once, with its copies and its group, from a
training of its own: see `backbones.cross_fitted`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import LEFT_OUT, CrossFitted
from graft_server.backbones.tuning_objects import Part, TunedParts, TuningSet
from graft_server.domain.report import Evaluation, EvaluationMethod, TuningReport
from graft_server.domain.views import POOLED
from graft_server.evaluation import figures
from graft_server.evaluation.interval import LEAST_EVALUATED
from graft_server.heads.single_label import SingleLabelHead
from graft_server.store.objects.objects import Objects
from graft_server.training.calibration.novelty import fit_novelty
from graft_server.training.contract import Finishing
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.folds import stratified_folds
from graft_server.training.tasks.single_label import few
from graft_server.training.tasks.single_label.measured import Measured
from graft_server.training.tasks.task import TunedHead

LEAST_A_CLASS = 8
"""Examples of a class, on average, rounded: one or the other may be held out by the caller or twice there."""
MOST_A_CLASS = 100
"""From here on a head on frozen features has enough to learn from, and there are examples to hold out for good."""
MOST_EXAMPLES = 2_000
"""Beyond, five trainings take longer than anybody waits."""

Array = NDArray[np.float32]


def folds_of(examples: Examples, seed: int) -> NDArray[np.int32] | None:
    """The fold of each example to train on, shape (n,); None where there are too few examples, or enough without it.

    Args:
        examples: The examples.
        seed: What the folds are derived from.
    """
    count, present = len(examples.rows), len(np.unique(examples.labels))
    if not (LEAST_A_CLASS - 0.5) * present <= count <= min(MOST_A_CLASS * present, MOST_EXAMPLES):
        return None
    if not examples.measured.any() or len(np.unique(examples.bound)) < few.FOLDS:
        return None
    return stratified_folds(examples.labels, examples.bound, few.FOLDS, seed)


def measure_cross_fitted(
    objects: Objects, task: Finishing, tried: TuningReport, made: TunedParts
) -> tuple[TuningReport, TunedHead | None]:
    """Chooses the head on the tuned features, and measures it out of fold."""
    kept = TuningSet.read(objects, task.prepared)
    fitted = _fitted(kept, made, task.seed)
    rows = np.flatnonzero(fitted.measured)
    if not len(rows):
        return tried, None
    found = few.decide(fitted)
    whole = len(made.features) > 0
    labels, weights = fitted.labels[rows], fitted.weights[rows]
    soft = None if fitted.soft is None else fitted.soft[rows]
    probabilities, frozen = found.probabilities[rows], fitted.frozen[rows]
    lost, left = (figures.log_loss(it, labels, weights, soft) for it in (frozen, probabilities))
    report = dataclasses.replace(
        tried,
        # What was asked for is kept as soon as it is better at all, as a tuning with examples to stop by is.
        kept=whole and (found.kept if task.auto else left < lost),
        measured=len(rows),
        folds=len(fitted.by_fold),
        frozen_log_loss=lost,
        tuned_log_loss=left,
        gain_error=found.gain_error,
        frozen_accuracy=_accuracy(frozen, labels, weights),
        tuned_accuracy=_accuracy(probabilities, labels, weights),
        accuracy_gain_error=found.accuracy_gain_error,
        tuned_share=found.tuned_share,
        own_share=tried.unfrozen_layers / tried.layers if whole else 0.0,
        bytes=made.top_bytes,
    )
    if not report.kept:
        return report, None
    losses, measured_by = figures.losses(probabilities, labels, soft), weights
    head = _head(fitted, found)
    how = Evaluation(EvaluationMethod.CROSS_VALIDATION, len(fitted.by_fold), len(rows))
    measured_on = rows
    validation = np.flatnonzero(kept.validation)
    if len(validation) >= LEAST_EVALUATED:
        measured_on = validation
        how = Evaluation(EvaluationMethod.HELD_OUT, 0, len(validation))
        probabilities = head.scores(made.features[validation].astype(np.float32)).probabilities
        labels, weights = kept.labels[validation], kept.weights[validation]
    measured = Measured(
        head=head,
        settings=found.settings,
        temperature=found.temperature,
        candidates=found.candidates,
        probabilities=probabilities,
        labels=labels,
        weights=weights,
        bound=kept.together[measured_on],
        evaluation=how,
        soft=None if kept.soft is None else kept.soft[measured_on],
    )
    # What a further tuning measures on may lie in a fold that was left out: there the frozen head stands for this one.
    answered = np.where(fitted.measured[:, None], found.probabilities, fitted.frozen)
    of_measured = answered[kept.part == Part.MEASURE].astype(np.float32)
    return report, TunedHead(
        head, made.features.astype(np.float32), of_measured, losses, measured_by, measured.reported
    )


def _fitted(kept: TuningSet, made: TunedParts, seed: int) -> CrossFitted:
    if kept.fold_of is None or kept.out_of_fold is None or kept.bound is None or made.by_fold is None:
        raise ValueError("a contrastive tuning was given no folds")
    return CrossFitted(
        labels=kept.labels,
        weights=kept.weights,
        classes=kept.head[1].shape[0],
        fold_of=kept.fold_of,
        by_fold=made.by_fold,
        features=made.features,
        frozen=kept.out_of_fold,
        seed=seed,
        soft=kept.soft,
    )


def _head(fitted: CrossFitted, found: few.Decision) -> SingleLabelHead:
    members = found.fit()
    rows = np.flatnonzero(fitted.fold_of != LEFT_OUT)
    novelty = fit_novelty(
        fitted.features[rows].astype(np.float32),
        fitted.labels[rows],
        found.logits[rows].max(axis=1),
        fitted.measured[rows],
        fitted.fold_of[rows],
        seed=fitted.seed,
        by_fold=fitted.by_fold[:, rows],
    )
    temperature = found.temperature if len(members) > 1 else 1.0
    return SingleLabelHead(found.kind, POOLED, members, temperature, novelty)


def _accuracy(probabilities: Array, labels: NDArray[np.int32], weights: NDArray[np.float64]) -> float:
    return float(weights @ (probabilities.argmax(axis=1) == labels) / weights.sum())
