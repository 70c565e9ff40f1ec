"""Checks whether features of a reduced encoder (int8, fp16) are as good for a task as float32 features.

The same simple head is cross-validated on both, on the same folds: only the features differ. float32
features are computed here, in the worker, from the cached float32 graph, and discarded.

Few examples prove little: of 160, one is 0.6 points. So a version is refused if its loss is more than is accepted
and is not chance, judged by the examples that only one of the two gets right (McNemar 1947).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import NOT_CACHED, EncoderCache
from graft_server.backbones.preprocessing import Prepared
from graft_server.backbones.source import backbone_at
from graft_server.domain.errors import BackboneError, StateError
from graft_server.domain.examples import Input, Kind
from graft_server.domain.views import POOLED, stacked
from graft_server.encoding.encoder import Encoder
from graft_server.jobs.job import Place
from graft_server.training.examples.folded import Examples, examples_of, usable
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.search.candidates import LogisticTrials, Measure, Problem
from graft_server.training.search.search import FIRST_STRENGTH, STRENGTHS
from graft_server.training.solvers.logistic import ROUGH

MAX_LOSS = 0.003
"""A version is published if its accuracy falls by no more than this, or by no more than chance explains."""
CERTAIN = 1.645
"""Standard errors below the measured loss, for 95% certainty that the real one is no smaller."""
EXAMPLES = 2_000
"""The most examples that are compared, 5 to 10 s of one core: more would not change the verdict."""
MOST_REPEATS, PREDICTIONS = 5, 3_000
"""Few examples are predicted several times, in folds dealt anew: a single deal moves the accuracy of 600 by more
than what is allowed (on Banking77 in int8, falls of -1.0 to 0.7 points by one deal, -0.2 to 0.4 by three)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What it takes to run an encoder in float32, on the CPU."""

    graph: Path
    """Its exported graph."""
    backbone: Backbone
    precision: str
    """What the served encoder computes in instead."""


def reference_at(place: Place, name: str, encoder_id: str) -> Reference:
    """The encoder in float32 of a backbone whose encoder computes in less, where a job runs.

    Raises:
        BackboneError: The backbone is not there, or another one.
    """
    backbone = backbone_at(place, name, encoder_id)
    cache = EncoderCache.at(place)
    try:
        graph = cache.require(cache.graph(backbone.reference_id))
    except BackboneError as error:
        if error.reason != NOT_CACHED:
            raise
        raise BackboneError(
            "The encoder in float32, which a reduced precision is compared with, is not in the server's cache: "
            "restart the server, which exports it anew.",
            reason=NOT_CACHED,
            metadata=error.metadata,
        ) from None
    return Reference(graph, backbone, backbone.precision)


@dataclass(frozen=True, slots=True)
class Drift:
    """The effect of a reduced precision on a task."""

    examples: int
    """The number of compared examples."""
    accuracy: float
    """The out-of-fold accuracy of logistic regression on the reduced encoder's features."""
    reference_accuracy: float
    """The same on float32 features."""
    agreement: float
    """The share of examples that receive the same label from both."""
    cosine: float
    """The mean cosine between the two final features of an example."""
    least_loss: float
    """The least fall of accuracy, with 95% certainty; below 0 if it may also rise."""

    @property
    def loss(self) -> float:
        """The fall of accuracy."""
        return self.reference_accuracy - self.accuracy

    @property
    def admissible(self) -> bool:
        """Whether the loss is small enough, or may be chance."""
        return self.loss <= MAX_LOSS or self.least_loss <= 0

    def found(self, precision: str) -> str:
        """The findings, as a sentence without its end."""
        return (
            f"out of fold, on {self.examples:,} examples, logistic regression is right on {self.accuracy:.1%} of "
            f"them with features in {precision}, on {self.reference_accuracy:.1%} in fp32; both agree on "
            f"{self.agreement:.1%}, and the features' mean cosine is {self.cosine:.3f}"
        )

    def sentence(self, precision: str) -> str:
        """The report's sentence on an admissible precision."""
        chance = "" if self.loss <= MAX_LOSS else "; so few examples cannot tell the difference from chance"
        return f"The encoder computes in {precision}: {self.found(precision)}{chance}."


def admit(
    train: ClassifiedSet, inputs: Sequence[Input], view: str, reference: Reference, *, seed: int
) -> str:
    """Compares, and returns a sentence for the report.

    Args:
        train: The training set, with the reduced encoder's features.
        inputs: The input of each of its rows.
        view: The view that the head reads.
        reference: The encoder in float32.
        seed: The seed of the sample and the folds.

    Raises:
        StateError: The accuracy falls by more than MAX_LOSS, and not by chance (PRECISION_LOSS).
        BackboneError: The encoder in float32 cannot be run.
    """
    precision = reference.precision
    embedded = np.array([it.kind is not Kind.FEATURES for it in inputs])
    sample = _sample(train, embedded, seed)
    if not len(sample):
        return (
            f"What the encoder's precision, {precision}, costs is not known: the examples came as features."
        )
    repeats = max(1, min(MOST_REPEATS, round(PREDICTIONS / len(sample))))
    examples = [examples_of(train, sample, (seed + repeat) % (1 << 64)) for repeat in range(repeats)]
    if not any(one.measured.any() for one in examples):
        return f"What the encoder's precision, {precision}, costs could not be measured: too few examples."
    features = _features([inputs[row] for row in sample], reference)
    drift = compare(examples, {name: array.astype(np.float16) for name, array in features.items()}, view)
    if drift.admissible:
        return drift.sentence(precision)
    raise StateError(
        f"The encoder's precision, {precision}, costs too much accuracy on this task: {drift.found(precision)}. A "
        f"fall of {MAX_LOSS:.1%} is accepted, and this one is no chance. Run the server with --precision fp32, or "
        "commit again with more examples.",
        reason="PRECISION_LOSS",
        metadata={
            "precision": precision,
            "examples": str(drift.examples),
            "accuracy": f"{drift.accuracy:.4f}",
            "fp32_accuracy": f"{drift.reference_accuracy:.4f}",
            "least_loss": f"{drift.least_loss:.4f}",
            "agreement": f"{drift.agreement:.4f}",
            "cosine": f"{drift.cosine:.4f}",
        },
    )


def compare(examples: Sequence[Examples], reference: dict[str, NDArray[np.float16]], view: str) -> Drift:
    """Cross-validates the same head on both kinds of features.

    Args:
        examples: The same rows of one training set, dealt into different folds.
        reference: View name to float32 features of those rows, shape (n, d).
        view: What the head reads.
    """
    rows, labels = examples[0].rows, examples[0].labels
    reduced = {name: array[rows] for name, array in examples[0].train.features.items()}
    lost, right, weights = np.zeros(len(rows)), 0.0, np.zeros(len(rows))
    agreed = 0.0
    for one in examples:
        mine, other = (_predicted(one, stacked(features, view)) for features in (reduced, reference))
        counted = np.where(one.measured, one.weights, 0)
        right += counted @ (mine == labels)
        lost += counted * (1.0 * (other == labels) - (mine == labels))
        agreed += counted @ (mine == other)
        weights += counted
    total = weights.sum()
    pairs = reduced[POOLED].astype(np.float32) * reference[POOLED].astype(np.float32)
    return Drift(
        examples=len(rows),
        accuracy=float(right / total),
        reference_accuracy=float((right + lost.sum()) / total),
        agreement=float(agreed / total),
        cosine=float(pairs.sum(axis=1).mean()),
        least_loss=_least_loss(lost, weights),
    )


def _least_loss(lost: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The lower end of a one-sided 95% interval of the mean loss.

    Args:
        lost: shape (n,): each example's answers that only the reference gets right, less the other's.
        weights: shape (n,): the most that each could lose.

    The standard error is that of a ratio of sums over examples: predictions of one example in several folds
    count as one. An example's worth is taken off too, as McNemar's test does, since counts come in steps.
    """
    total = weights.sum()
    loss = lost.sum() / total
    spread = np.sqrt(((lost - loss * weights) ** 2).sum()) / total
    return float(loss - CERTAIN * spread - weights.max() / total)


def _predicted(examples: Examples, features: NDArray[np.float16]) -> NDArray[np.int64]:
    """The label of each row by logistic regression trained without its fold."""
    problem = Problem(
        POOLED,
        features,
        examples.labels,
        examples.weights,
        len(examples.train.classes),
        examples.fold_of,
        examples.folds,
        examples.seed,
    )
    measure = Measure(examples.measured, examples.labels, examples.weights)
    trial = LogisticTrials(problem, measure).trial(STRENGTHS[FIRST_STRENGTH], ROUGH)
    predicted: NDArray[np.int64] = trial.logits.argmax(axis=1)
    return predicted


def _sample(train: ClassifiedSet, embedded: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """The training rows that were embedded here, or EXAMPLES of them with the same share of each class."""
    rows = np.flatnonzero(usable(train) & ~train.validation & embedded)
    if len(rows) <= EXAMPLES:
        return rows
    rows = np.random.default_rng(seed).permutation(rows)
    labels = train.labels[rows]
    place = np.empty(len(rows))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(rows[np.argsort(place, kind="stable")[:EXAMPLES]])


def _features(inputs: Sequence[Input], reference: Reference) -> dict[str, NDArray[np.float32]]:
    preprocessor = reference.backbone.preprocessor()
    # One thread: serving needs the others.
    encoder = Encoder(reference.graph, device="cpu", threads=1, collate=preprocessor.collate)
    items = [it.item for it in preprocessor.many(inputs) if isinstance(it, Prepared)]
    order = sorted(range(len(items)), key=lambda row: len(items[row]))
    batches = [
        encoder.encode([items[row] for row in rows])
        for rows in _batches(order, items, preprocessor.budgets.cpu[0])
    ]
    back = np.argsort(order)
    return {view: np.concatenate([batch[view] for batch in batches])[back] for view in encoder.views}


def _batches(order: Sequence[int], items: Sequence[Sized], most: int) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for row in order:
        if batch and size + len(items[row]) > most:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(items[row])
    yield batch
