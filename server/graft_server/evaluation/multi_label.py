"""How good decisions about any number of labels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Task
from graft_server.domain.report import ClassReport, Figures, Measured, MultiLabelFigures, ReliabilityBin
from graft_server.evaluation.answered import Answered, carried_by_some
from graft_server.evaluation.figures import BINS, LEAST_PROBABILITY, ratio, sums
from graft_server.evaluation.interval import accuracy_interval


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelMeasured:
    """How good decisions about k labels are."""

    figures: Figures
    """Accuracy counts whole sets; macro-F1 is over the labels that some example carries."""
    further: MultiLabelFigures
    precision: NDArray[np.float64]
    """shape (k,), as are the next two."""
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def figures(
    probabilities: NDArray[np.float32],
    selected: NDArray[np.bool_],
    targets: NDArray[np.bool_],
    weights: NDArray[np.float64],
    *,
    bound: NDArray[np.int64] | None = None,
    folds: int = 0,
) -> MultiLabelMeasured:
    """The figures of n predictions about k labels, each array but the weights of shape (n, k); 0 without weight.

    For `bound` and `folds` see `accuracy_interval`.
    """
    total = max(float(weights.sum()), 1e-300)
    k = max(targets.shape[1], 1)
    right = weights @ (selected & targets)
    answered, carried = weights @ selected, weights @ targets
    precision, recall = ratio(right, answered), ratio(right, carried)
    f1 = ratio(2 * right, answered + carried)
    own = np.where(targets, probabilities, 1 - probabilities).astype(np.float64)
    losses = -np.log(np.maximum(own, LEAST_PROBABILITY)).sum(axis=1)
    decided = np.repeat(weights, k)
    exact = (selected == targets).all(axis=1)
    bins = np.clip((probabilities.reshape(-1) * BINS).astype(np.int64), 0, BINS - 1)
    gaps = np.bincount(bins, decided * (targets.reshape(-1) - probabilities.reshape(-1)), BINS)
    return MultiLabelMeasured(
        Figures(
            float(weights @ exact) / total,
            float(f1[carried > 0].mean()) if (carried > 0).any() else 0.0,
            float(weights @ losses) / (total * k),
            float(np.abs(gaps).sum()) / (total * k),
            *accuracy_interval(exact, weights, bound, folds=folds),
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


def reliability(
    probabilities: NDArray[np.float32], targets: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[ReliabilityBin, ...]:
    """The bins of the calibration error over all decisions, by rising probability."""
    flat = probabilities.reshape(-1)
    bins = np.clip((flat * BINS).astype(np.int64), 0, BINS - 1)
    decided = np.repeat(weights, targets.shape[1])
    total = sums(bins, decided)
    columns = zip(
        np.bincount(bins, minlength=BINS).tolist(),
        ratio(sums(bins, decided * flat), total).tolist(),
        ratio(sums(bins, decided * targets.reshape(-1)), total).tolist(),
        strict=True,
    )
    return tuple(ReliabilityBin(*column) for column in columns)


def measure(answered: Answered, thresholds: NDArray[np.float32]) -> Measured:
    """The figures of answers with "probabilities" and "selected", (n, k).

    Args:
        answered: The answers.
        thresholds: shape (k,): the least probability at which each of the version's labels is selected.
    """
    names, column = answered.names()
    targets = np.zeros((len(answered.examples), len(names)), bool)
    for row, example in zip(targets, answered.examples, strict=True):
        row[[column[label] for label in example.labels]] = True
    probabilities, selected = (answered.padded(it, len(names)) for it in ("probabilities", "selected"))
    found = figures(probabilities, selected, targets, answered.weights, bound=answered.bound())
    unknown = np.ones(len(names) - len(thresholds), np.float32)
    none = np.zeros(len(names), np.int64)
    per_class = label_reports(names, none, targets.sum(axis=0), np.concatenate([thresholds, unknown]), found)
    return Measured(
        Task.MULTI_LABEL,
        len(targets),
        found.figures,
        carried_by_some(per_class),
        multi_label=found.further,
    )
