"""What a tuning of a classifier is given, and what is made of one that holds examples out for good.

Three parts of the training examples play three roles. Most are tuned on; a few tell when to stop, and which head
to put on the tuned features; a few more are seen by neither, and measure what came out of it against the frozen
head, example by example. Features of examples that were tuned on say nothing about how good they are, so
temperature and novelty come from the held-out ones too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import LEFT_OUT
from graft_server.backbones.tuning_objects import (
    Part,
    TunedParts,
    TuningSet,
    read_probabilities,
)
from graft_server.domain.examples import Label
from graft_server.domain.report import (
    Candidate,
    Evaluation,
    EvaluationMethod,
    TuningReport,
)
from graft_server.domain.views import POOLED
from graft_server.evaluation import figures
from graft_server.evaluation.interval import LEAST_EVALUATED
from graft_server.heads.maps import LinearMap, Member, softmax
from graft_server.heads.single_label import SingleLabelHead
from graft_server.store.objects.objects import Objects
from graft_server.training.calibration.novelty import fit_novelty
from graft_server.training.contract import Finishing
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.folds import stratified_folds
from graft_server.training.search.candidates import NEVER, LogisticTrials, Measure, Problem, Trial
from graft_server.training.search.evidence import mean_and_variance
from graft_server.training.search.search import AS_GOOD, FIRST_STRENGTH, STRENGTHS
from graft_server.training.solvers import logistic
from graft_server.training.tasks.single_label.cross_fitting import folds_of
from graft_server.training.tasks.single_label.measured import Measured
from graft_server.training.tasks.single_label.noise import is_beyond_noise
from graft_server.training.tasks.task import Selection, TunedHead

LEAST_EXAMPLES = 100
"""With fewer, too few can be held out to tell a gain from noise."""
MANY_EXAMPLES = 4000
"""From here on, 5% each are enough to stop by and to measure on; below, it takes 10%."""
LEAST_PROBABILITY = 1e-12
REFITTED = (1.0, 10.0, 100.0)
"""Strengths of the logistic regressions that are fitted anew on tuned features."""

Array = NDArray[np.float32]


def prepare(selection: Selection, *, seed: int) -> TuningSet | None:
    """What tunings are given: some learn by a head, and hold examples out for good, others by cross-fitting.

    None if there are too few examples for either.

    Args:
        selection: The frozen head, and the examples that it was chosen on.
        seed: What the split and the folds are derived from.
    """
    examples = selection.examples
    if examples is None or selection.out_of_fold is None:
        return None
    train, rows = examples.train, examples.rows
    of_examples, folds = _parts(examples, seed), folds_of(examples, seed)
    if of_examples is None and folds is None:
        return None
    if of_examples is None:
        of_examples = np.full(len(rows), Part.TRAIN, np.int8)
    part = np.full(len(train), Part.LEFT_OUT, np.int8)
    part[rows] = of_examples
    chosen = TuningSet(
        ids=train.ids,
        labels=train.labels,
        weights=train.weights,
        part=part,
        validation=np.isin(np.arange(len(train)), examples.parts.held_out),
        head=_start(examples, selection.report.head.settings, of_examples),
        frozen=selection.out_of_fold[of_examples == Part.MEASURE],
        bound=examples.parts.bound,
        names=tuple(Label(*it).text for it in train.labels_named),
    )
    if folds is None:
        return chosen
    fold_of = np.full(len(train), LEFT_OUT, np.int32)
    fold_of[rows] = folds
    out_of_fold = np.zeros((len(train), len(train.classes)), np.float32)
    out_of_fold[rows] = selection.out_of_fold
    return dataclasses.replace(chosen, fold_of=fold_of, out_of_fold=out_of_fold, soft=train.soft)


def _parts(examples: Examples, seed: int) -> NDArray[np.int8] | None:
    """Which part each example plays in a tuning that holds some out for good, shape (n,); None if there are too few."""
    rows = examples.rows
    folds = 20 if len(rows) >= MANY_EXAMPLES else 10
    if len(rows) < LEAST_EXAMPLES or len(np.unique(examples.bound)) < folds:
        return None
    fold_of = stratified_folds(examples.labels, examples.bound, folds, seed)
    of_examples = np.full(len(rows), Part.TRAIN, np.int8)
    of_examples[fold_of == 0] = Part.STOP
    of_examples[fold_of == 1] = Part.MEASURE
    # A class that would be held out whole cannot be learned: it is tuned on, and not measured.
    classes = len(examples.train.classes)
    trained = np.bincount(examples.labels[of_examples == Part.TRAIN], minlength=classes) > 0
    of_examples[~trained[examples.labels]] = Part.TRAIN
    held_out = (of_examples == Part.STOP).any() and (of_examples == Part.MEASURE).any()
    return of_examples if held_out else None


def _start(examples: Examples, settings: Mapping[str, float], part: NDArray[np.int8]) -> tuple[Array, Array]:
    """A linear head on the final features, fitted without what is held out, and calibrated on it: (d, k) and (k,)."""
    train = examples.train
    features = train.features[POOLED][examples.rows].astype(np.float32)
    axes = logistic.principal_axes(features)
    kept = np.where(part == Part.TRAIN, examples.weights, 0).astype(np.float32)[None]
    strength = settings.get("C", STRENGTHS[FIRST_STRENGTH])
    solution = logistic.fit(axes, examples.labels, kept, len(train.classes), strength=strength, start=None)
    weight: Array = axes.rotation @ solution.weight[0]
    bias: Array = solution.bias[0] - axes.centre @ weight
    stop = part == Part.STOP
    if not stop.any():
        return weight, bias
    measure = Measure(np.ones(int(stop.sum()), bool), examples.labels[stop], examples.weights[stop])
    temperature = np.float32(measure.temperature(features[stop] @ weight + bias))
    return weight / temperature, bias / temperature


def measure_tuned(
    objects: Objects, task: Finishing, tried: TuningReport, made: TunedParts
) -> tuple[TuningReport, TunedHead | None]:
    """Chooses the head on the tuned features, and measures it against the frozen one, and the best one so far."""
    kept = TuningSet.read(objects, task.prepared)
    features = made.features.astype(np.float32)
    held_out = np.flatnonzero((kept.part == Part.STOP) | (kept.part == Part.MEASURE))
    rows = np.concatenate([held_out, np.flatnonzero(kept.part == Part.TRAIN)])
    stop = kept.part[held_out] == Part.STOP
    trial, candidates = _choose(kept, made, features, rows, stop=stop, seed=task.seed)
    labels, weights = kept.labels[held_out][~stop], kept.weights[held_out][~stop]
    tuned = of_measured = _tempered(trial.probabilities, stop, kept.labels[held_out], kept.weights[held_out])
    best = read_probabilities(objects, task.best_measured) if task.best_measured else kept.frozen
    losses, lost, least = (_losses(it, labels) for it in (tuned, kept.frozen, best))
    report = dataclasses.replace(
        tried,
        kept=not task.auto or is_beyond_noise(least - losses, weights, tuned.shape[1]),
        measured=len(labels),
        frozen_log_loss=figures.log_loss(kept.frozen, labels, weights),
        tuned_log_loss=figures.log_loss(tuned, labels, weights),
        gain_error=float(np.sqrt(mean_and_variance(lost - losses, weights)[1])),
        frozen_accuracy=_accuracy(kept.frozen, labels, weights),
        tuned_accuracy=_accuracy(tuned, labels, weights),
        own_share=tried.unfrozen_layers / tried.layers,
        bytes=made.top_bytes,
    )
    if not report.kept:
        return report, None
    measured_by = weights
    head = _fitted(trial, features[rows], kept.labels[rows], len(held_out), task.seed)
    measured_on = held_out[~stop]
    validation = np.flatnonzero(kept.validation)
    if len(validation) >= LEAST_EVALUATED:
        measured_on = validation
        tuned = head.scores(features[validation]).probabilities
        labels, weights = kept.labels[validation], kept.weights[validation]
    measured = Measured(
        head=head,
        settings=trial.settings,
        temperature=trial.temperature,
        candidates=candidates,
        probabilities=tuned,
        labels=labels,
        weights=weights,
        bound=kept.together[measured_on],
        evaluation=Evaluation(EvaluationMethod.HELD_OUT, 0, len(labels)),
    )
    return report, TunedHead(head, features, of_measured, losses, measured_by, measured.reported)


def _choose(
    kept: TuningSet,
    made: TunedParts,
    features: Array,
    rows: NDArray[np.int64],
    *,
    stop: NDArray[np.bool_],
    seed: int,
) -> tuple[Trial, tuple[Candidate, ...]]:
    """The head that was tuned along, or a new one on the tuned features: whichever those to stop by like best.

    Args:
        kept: The examples.
        made: What the tuning made of them.
        features: shape (n, d).
        rows: Those held out first, then those trained on.
        stop: shape (held out,): which of the held-out ones may be chosen on.
        seed: What chance is derived from.
    """
    count = len(stop)
    labels, weights = kept.labels[rows], kept.weights[rows]
    # One fold holds out what tuning held out, and everything else is always trained on.
    fold_of = np.where(np.arange(len(rows)) < count, 0, NEVER).astype(np.int32)
    classes = kept.head[1].shape[0]
    wide = features[rows].astype(np.float16)
    problem = Problem(POOLED, wide, labels, weights, classes, fold_of, 1, seed)
    measure = Measure(np.ones(count, bool), labels[:count], weights[:count])
    trials = LogisticTrials(problem, measure)
    tried = [_along(made, problem, features[rows][:count], measure)]
    tried += [dataclasses.replace(trials.trial(it), settings={"C": it}) for it in REFITTED]
    judged = [
        Candidate(
            it.kind,
            it.problem.view,
            it.settings,
            figures.log_loss(it.probabilities[stop], labels[:count][stop], weights[:count][stop]),
            _accuracy(it.probabilities[stop], labels[:count][stop], weights[:count][stop]),
        )
        for it in tried
    ]
    # A new head may learn from all examples, also those that tuning held out: of equals it is the better one.
    losses = [it.log_loss + (AS_GOOD if it.kind == "tuned" else 0) for it in judged]
    best = int(np.argmin(losses))
    return tried[best], tuple(sorted(judged, key=lambda it: it.log_loss))


def _along(made: TunedParts, problem: Problem, features: Array, measure: Measure) -> Trial:
    """The head that was tuned along with the layers."""
    of = LinearMap(*made.head)
    logits = of.logits(features)
    temperature = measure.temperature(logits)

    def fit() -> tuple[Member, ...]:
        return (Member(of, temperature, 1.0),)

    return Trial("tuned", problem, {}, logits, softmax(logits / np.float32(temperature)), temperature, fit)


def _fitted(
    trial: Trial, features: Array, labels: NDArray[np.int32], held_out: int, seed: int
) -> SingleLabelHead:
    logits = np.zeros(len(labels), np.float32)
    logits[:held_out] = trial.logits.max(axis=1)
    measured = np.arange(len(labels)) < held_out
    folds = np.where(measured, 0, 1).astype(np.int32)
    novelty = fit_novelty(features, labels, logits, measured, folds, seed=seed)
    return SingleLabelHead(trial.kind, POOLED, trial.fit(), 1.0, novelty)


def _losses(probabilities: Array, labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """The log-loss of each example, shape (n,)."""
    found = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(found, LEAST_PROBABILITY))
    return losses


def _tempered(
    probabilities: Array, stop: NDArray[np.bool_], labels: NDArray[np.int32], weights: NDArray[np.float64]
) -> Array:
    """Probabilities of the examples to measure on, at the temperature that suits those to stop by.

    The head's own temperature suits both, so that it would be measured on what it was fitted to.
    """
    logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY)).astype(np.float32)
    temperature = Measure(stop, labels, weights).temperature(logits)
    return softmax(logits[~stop] / np.float32(temperature))


def _accuracy(probabilities: Array, labels: NDArray[np.int32], weights: NDArray[np.float64]) -> float:
    return float(weights @ (probabilities.argmax(axis=1) == labels) / weights.sum())
