"""How good predictions are: the figures of a report, from probabilities of examples not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import (
    MAX_CONFUSIONS,
    ClassReport,
    Confusion,
    Figures,
    MultiLabelFigures,
    RegressionFigures,
    ReliabilityBin,
)

BINS = 15
"""Of the expected calibration error, as in Guo et al. 2017."""
LEAST_PROBABILITY = 1e-7
"""Log-loss takes no probability to be smaller: float32 would round it to 0."""


def figures(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int32],
    weights: NDArray[np.float64],
    soft: NDArray[np.float32] | None = None,
) -> Figures:
    """The figures of n >= 1 predictions over k classes; all 0 where the weights are.

    Where targets are distributions, `soft`, of shape (n, k), they are what log-loss and calibration error are
    measured against; accuracy and F1 go by their most probable labels, `labels`.
    """
    total = float(weights.sum())
    if total <= 0:
        return Figures(0.0, 0.0, 0.0, 0.0)
    predicted = probabilities.argmax(axis=1)
    f1 = class_scores(confusion_matrix(labels, predicted, weights, probabilities.shape[1]))[2]
    return Figures(
        float(weights @ (predicted == labels)) / total,
        float(f1[np.unique(labels[weights > 0])].mean()),
        log_loss(probabilities, labels, weights, soft),
        calibration_error(probabilities, labels, weights, soft),
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
        found = -np.log(np.maximum(right, LEAST_PROBABILITY))
    else:
        logs = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
        found = -np.einsum("nk,nk->n", soft, logs)
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
    total = _sums(bins, weights)
    columns = zip(
        np.bincount(bins, minlength=BINS).tolist(),
        _ratio(_sums(bins, weights * confidence), total).tolist(),
        _ratio(_sums(bins, weights * right), total).tolist(),
        strict=True,
    )
    return tuple(ReliabilityBin(*column) for column in columns)


def _sums(bins: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(bins, values, BINS).astype(np.float64)


def _binned(
    probabilities: NDArray[np.float32], labels: NDArray[np.int32], soft: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64]]:
    """Confidence of each row, whether (or how probably) its best label is right, and its bin."""
    confidence = probabilities.max(axis=1)
    best = probabilities.argmax(axis=1)
    right = best == labels if soft is None else soft[np.arange(len(best)), best]
    return confidence, right, np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)


def confusion_matrix(
    labels: NDArray[np.int32], predicted: NDArray[np.int64], weights: NDArray[np.float64], classes: int
) -> NDArray[np.float64]:
    """Shape (k, k): weight of the examples by right label (row) and predicted label (column)."""
    cells = np.bincount(labels * np.int64(classes) + predicted, weights, classes * classes)
    return cells.astype(np.float64).reshape(classes, classes)


def class_scores(
    confusion: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each class, each of shape (k,); 0 where there is nothing to divide by."""
    right = confusion.diagonal()
    precision = _ratio(right, confusion.sum(axis=0))
    recall = _ratio(right, confusion.sum(axis=1))
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def class_reports(
    names: tuple[str, ...],
    examples: NDArray[np.int64],
    labels: NDArray[np.int32],
    predicted: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> tuple[ClassReport, ...]:
    """One entry a class, in output order; `examples` counts its training examples, shape (k,)."""
    support = np.bincount(labels, minlength=len(names))
    scores = class_scores(confusion_matrix(labels, predicted, weights, len(names)))
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


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelMeasured:
    """How good decisions about k labels are."""

    figures: Figures
    """Accuracy is that of whole sets; macro-F1 is over the labels that some example carries."""
    further: MultiLabelFigures
    precision: NDArray[np.float64]
    """shape (k,), as the next two."""
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def multi_label(
    probabilities: NDArray[np.float32],
    selected: NDArray[np.bool_],
    targets: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> MultiLabelMeasured:
    """The figures of n predictions about k labels, each array but the weights of shape (n, k); 0 without weight."""
    total = max(float(weights.sum()), 1e-300)
    k = max(targets.shape[1], 1)
    right = weights @ (selected & targets)
    answered, carried = weights @ selected, weights @ targets
    precision, recall = _ratio(right, answered), _ratio(right, carried)
    f1 = _ratio(2 * right, answered + carried)
    own = np.where(targets, probabilities, 1 - probabilities).astype(np.float64)
    losses = -np.log(np.maximum(own, LEAST_PROBABILITY)).sum(axis=1)
    decided = np.repeat(weights, k)
    bins = np.clip((probabilities.reshape(-1) * BINS).astype(np.int64), 0, BINS - 1)
    gaps = np.bincount(bins, decided * (targets.reshape(-1) - probabilities.reshape(-1)), BINS)
    return MultiLabelMeasured(
        Figures(
            float(weights @ (selected == targets).all(axis=1)) / total,
            float(f1[carried > 0].mean()) if (carried > 0).any() else 0.0,
            float(weights @ losses) / (total * k),
            float(np.abs(gaps).sum()) / (total * k),
        ),
        MultiLabelFigures(
            micro_f1=float(2 * right.sum() / max((answered + carried).sum(), 1e-300)),
            hamming_loss=float(weights @ (selected != targets).sum(axis=1)) / (total * k),
            labels_per_example=float(carried.sum()) / total,
            selected_per_example=float(answered.sum()) / total,
        ),
        precision,
        recall,
        f1,
    )


def label_reports(
    names: tuple[str, ...],
    examples: NDArray[np.int64],
    support: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    measured: MultiLabelMeasured,
) -> tuple[ClassReport, ...]:
    """One entry a label, in output order; the arrays are of shape (k,)."""
    scores = (measured.precision, measured.recall, measured.f1, thresholds)
    columns = zip(names, examples.tolist(), support.tolist(), *(one.tolist() for one in scores), strict=True)
    return tuple(ClassReport(*column) for column in columns)


def multi_label_reliability(
    probabilities: NDArray[np.float32], targets: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[ReliabilityBin, ...]:
    """The bins of the calibration error over all decisions, by rising probability."""
    flat = probabilities.reshape(-1)
    bins = np.clip((flat * BINS).astype(np.int64), 0, BINS - 1)
    decided = np.repeat(weights, targets.shape[1])
    total = _sums(bins, decided)
    columns = zip(
        np.bincount(bins, minlength=BINS).tolist(),
        _ratio(_sums(bins, decided * flat), total).tolist(),
        _ratio(_sums(bins, decided * targets.reshape(-1)), total).tolist(),
        strict=True,
    )
    return tuple(ReliabilityBin(*column) for column in columns)


def regression(
    predicted: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    confidence: float,
) -> RegressionFigures:
    """The figures of n predictions, each array of shape (n,); 0 without weight."""
    total = float(weights.sum())
    if not total > 0:
        return RegressionFigures(0.0, 0.0, 0.0, confidence, 0.0, 0.0, 0.0, 0.0)
    shares = weights / total
    off = predicted - values
    mean = float(shares @ values)
    variance = float(shares @ (values - mean) ** 2)
    squared = float(shares @ off**2)
    return RegressionFigures(
        rmse=squared**0.5,
        mae=float(shares @ np.abs(off)),
        r2=1 - squared / variance if variance > 0 else 0.0,
        confidence=confidence,
        coverage=float(shares @ ((low <= values) & (values <= high))),
        interval_width=float(shares @ (high - low)),
        mean=mean,
        deviation=variance**0.5,
    )


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
