"""The figures of a report on predictions of classes, from probabilities of examples not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import (
    MAX_CONFUSIONS,
    ClassReport,
    Confusion,
    Figures,
    ReliabilityBin,
)
from graft_server.evaluation.interval import Published, accuracy_interval

BINS = 15
"""The bins of the expected calibration error, as in Guo et al. 2017."""
_ROWS_AT_ONCE = 4_096
"""The rows whose logarithms are in memory at once."""
LEAST_PROBABILITY = 1e-7
"""The smallest probability in a log-loss: float32 would round smaller ones to 0."""


def figures(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
    *,
    bound: NDArray[np.int64] | None = None,
    folds: int = 0,
    published: Published | None = None,
) -> Figures:
    """The figures of n >= 1 predictions over k classes; all 0 where the weights are.

    If targets are distributions, log-loss and calibration error are measured against `soft`, of shape (n, k);
    accuracy and F1 against their most probable labels, `labels`. A label may be k or more: a class that has no column,
    and is never predicted. For `bound`, `folds` and `published`, by which the accuracy is corrected too, see
    `accuracy_interval`.
    """
    total = float(weights.sum())
    if total <= 0:
        return Figures(0.0, 0.0, 0.0, 0.0)
    predicted = probabilities.argmax(axis=1)
    classes = max(probabilities.shape[1], int(labels.max()) + 1)
    f1 = class_scores(labels, predicted, weights, classes)[2]
    right = predicted == labels
    return Figures(
        (published or Published()).accuracy(float(weights @ right) / total),
        float(f1[np.unique(labels[weights > 0])].mean()),
        log_loss(probabilities, labels, weights, soft),
        calibration_error(probabilities, labels, weights, soft),
        *accuracy_interval(right, weights, bound, folds=folds, published=published),
    )


def log_loss(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> float:
    """The weighted mean of `losses`."""
    return float(weights @ losses(probabilities, labels, soft) / weights.sum())


def losses(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    soft: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """-log(probability of the right label), in nats, shape (n,); with `soft`, its mean over targets."""
    found: NDArray[np.float64]
    if soft is None:
        right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        return -np.log(np.maximum(right, LEAST_PROBABILITY))
    found = np.empty(len(labels))
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        logs = np.log(np.maximum(probabilities[rows].astype(np.float64), LEAST_PROBABILITY))
        found[rows] = -np.einsum("nk,nk->n", soft[rows], logs)
    return found


def calibration_error(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> float:
    """Expected calibration error of the best label over BINS equally wide bins of confidence."""
    confidence, right, bins = _binned(probabilities, labels, soft)
    gaps = np.bincount(bins, weights * (right - confidence), BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def reliability(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> tuple[ReliabilityBin, ...]:
    """The bins of the calibration error, by rising confidence."""
    confidence, right, bins = _binned(probabilities, labels, soft)
    total = sums(bins, weights)
    columns = zip(
        np.bincount(bins, minlength=BINS).tolist(),
        ratio(sums(bins, weights * confidence), total).tolist(),
        ratio(sums(bins, weights * right), total).tolist(),
        strict=True,
    )
    return tuple(ReliabilityBin(*column) for column in columns)


def sums(bins: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the values in each bin, shape (BINS,)."""
    return np.bincount(bins, values, BINS).astype(np.float64)


def _binned(
    probabilities: NDArray[np.float32], labels: NDArray[np.int32], soft: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64]]:
    """Returns each row's confidence, whether (or how probably) its best label is right, and its bin."""
    confidence = probabilities.max(axis=1)
    best = probabilities.argmax(axis=1)
    right = best == labels if soft is None else soft[np.arange(len(best)), best]
    return confidence, right, np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)


def class_scores(
    labels: NDArray[np.int32], predicted: NDArray[np.int64], weights: NDArray[np.float64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each of k classes, each of shape (k,); 0 where there is nothing to divide by."""
    hit = labels == predicted
    right = np.bincount(labels[hit], weights[hit], classes).astype(np.float64)
    precision = ratio(right, np.bincount(predicted, weights, classes).astype(np.float64))
    recall = ratio(right, np.bincount(labels, weights, classes).astype(np.float64))
    return precision, recall, ratio(2 * precision * recall, precision + recall)


def class_reports(
    names: tuple[str, ...],
    examples: NDArray[np.int64],
    labels: NDArray[np.int32],
    predicted: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> tuple[ClassReport, ...]:
    """One entry a class, in output order; `examples` counts its training examples, shape (k,)."""
    support = np.bincount(labels, minlength=len(names))
    scores = class_scores(labels, predicted, weights, len(names))
    columns = zip(
        names, examples.tolist(), support.tolist(), *(score.tolist() for score in scores), strict=True
    )
    return tuple(ClassReport(*column) for column in columns)


def confusions(
    names: tuple[str, ...], labels: NDArray[np.int32], predicted: NDArray[np.int64]
) -> tuple[Confusion, ...]:
    """The most frequent pairs of right and predicted label that differ, most frequent first."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_CONFUSIONS]
    return tuple(Confusion(names[pairs[0, i]], names[pairs[1, i]], int(counts[i])) for i in order)


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ratio of each pair of numbers, 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
