"""How good decisions about any number of labels are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Task
from graft_server.domain.report import ClassReport, Figures, Measured, MultiLabelFigures, ReliabilityBin
from graft_server.evaluation.answered import Answered, carried_by_some
from graft_server.evaluation.figures import BINS, LEAST_PROBABILITY, ratio, sums
from graft_server.evaluation.interval import accuracy_interval

_ROWS_AT_ONCE = 4_096
"""The rows whose logarithms are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Strange:
    """What n examples carry of labels that are never selected, and whose probability is 0: there may be many."""

    labels: NDArray[np.float64]
    """shape (n,): how many of them each example carries."""
    classes: int
    """How many there are."""
    weighed: int
    """How many of them an example with a weight carries."""


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
    strange: Strange | None = None,
    bound: NDArray[np.int64] | None = None,
    folds: int = 0,
) -> MultiLabelMeasured:
    """The figures of n predictions about k labels; 0 without weight.

    Args:
        probabilities: shape (n, k).
        selected: shape (n, k).
        targets: shape (n, k).
        weights: shape (n,).
        strange: What the examples carry of labels that have no column; None: nothing.
        bound: See `accuracy_interval`.
        folds: See `accuracy_interval`.
    """
    total = max(float(weights.sum()), 1e-300)
    strange = strange or Strange(np.zeros(len(weights)), 0, 0)
    missed = strange.labels
    k = max(targets.shape[1] + strange.classes, 1)
    right = weights @ (selected & targets)
    answered, carried = weights @ selected, weights @ targets
    precision, recall = ratio(right, answered), ratio(right, carried)
    f1 = ratio(2 * right, answered + carried)
    losses, gaps = _losses_and_gaps(probabilities, targets, weights)
    losses -= missed * np.log(LEAST_PROBABILITY)
    gaps[0] += float(weights @ missed)
    exact = (selected == targets).all(axis=1) & (missed == 0)
    counted = int((carried > 0).sum()) + strange.weighed
    return MultiLabelMeasured(
        Figures(
            float(weights @ exact) / total,
            float(f1[carried > 0].sum()) / counted if counted else 0.0,
            float(weights @ losses) / (total * k),
            float(np.abs(gaps).sum()) / (total * k),
            *accuracy_interval(exact, weights, bound, folds=folds),
        ),
        MultiLabelFigures(
            micro_f1=float(2 * right.sum() / max((answered + carried).sum() + weights @ missed, 1e-300)),
            hamming_loss=float(weights @ ((selected != targets).sum(axis=1) + missed)) / (total * k),
            labels_per_example=float(carried.sum() + weights @ missed) / total,
            selected_per_example=float(answered.sum()) / total,
        ),
        precision,
        recall,
        f1,
    )


def _losses_and_gaps(
    probabilities: NDArray[np.float32], targets: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of -log(probability of what is right) of each row, and the weighed gap of each bin of probability."""
    losses, gaps = np.empty(len(weights)), np.zeros(BINS)
    for start in range(0, len(weights), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        said, right = probabilities[rows], targets[rows]
        own = np.where(right, said, 1 - said).astype(np.float64)
        losses[rows] = -np.log(np.maximum(own, LEAST_PROBABILITY)).sum(axis=1)
        bins = np.clip((said.reshape(-1) * BINS).astype(np.int64), 0, BINS - 1)
        decided = np.repeat(weights[rows], said.shape[1])
        gaps += np.bincount(bins, decided * (right.reshape(-1) - said.reshape(-1)), BINS)
    return losses, gaps


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
    known = len(answered.labels)
    targets = np.zeros((len(answered.examples), known), bool)
    missed = np.zeros(len(targets))
    support = np.zeros(len(names), np.int64)
    weighed: set[int] = set()
    for place, example in enumerate(answered.examples):
        columns = {column[label] for label in example.labels}
        strange = {it for it in columns if it >= known}
        targets[place, list(columns - strange)] = True
        support[list(columns)] += 1
        missed[place] = len(strange)
        weighed |= strange if example.weight > 0 else set()
    found = figures(
        answered.outputs["probabilities"], answered.outputs["selected"], targets, answered.weights,
        strange=Strange(missed, len(names) - known, len(weighed)), bound=answered.bound(),
    )  # fmt: skip
    none = np.zeros(len(names), np.int64)
    per_class = label_reports(
        names, none, support, np.concatenate([thresholds, np.ones(len(names) - known, np.float32)]),
        _with_strange(found, len(names) - known),
    )  # fmt: skip
    return Measured(
        Task.MULTI_LABEL,
        len(targets),
        found.figures,
        carried_by_some(per_class),
        multi_label=found.further,
    )


def _with_strange(measured: MultiLabelMeasured, count: int) -> MultiLabelMeasured:
    """The same with the scores of labels that are never selected, which are 0, behind the others."""
    nothing = np.zeros(count)
    return replace(
        measured,
        precision=np.concatenate([measured.precision, nothing]),
        recall=np.concatenate([measured.recall, nothing]),
        f1=np.concatenate([measured.f1, nothing]),
    )
