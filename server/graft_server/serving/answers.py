"""From a head's output to answers, one kind for each task.

What can be done for many rows at once (finding the best labels) is done on the encoder's thread by `read`; what a row
takes for itself is left to `answers_of`, on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Label
from graft_server.domain.prediction import Answer, ManyLabels, OneLabel, Value
from graft_server.encoding.queueing import Arrays
from graft_server.heads import HeadOutput
from graft_server.heads.multi_label import MultiLabelOutput
from graft_server.heads.regression import RegressionOutput
from graft_server.heads.single_label import SingleLabelOutput

BEST, PROBABILITIES, SELECTED, NOVELTY = "best", "probabilities", "selected", "novelty"
VALUE, LOW, HIGH = "value", "low", "high"
SORTED_WHOLE = 512
"""Up to so many classes, sorting a row costs less than looking for its largest first."""


def read(output: HeadOutput, top_k: int) -> dict[str, NDArray[Any]]:
    """What `answers_of` needs of n rows: the `top_k` best labels, and for several labels every selected one too."""
    match output:
        case SingleLabelOutput():
            best = best_columns(output.probabilities, top_k)
            rows = np.arange(len(best))[:, None]
            return {BEST: best, PROBABILITIES: output.probabilities[rows, best], NOVELTY: output.novelty}
        case MultiLabelOutput():
            # Rows of one request may meet in different batches: their arrays must have the same width everywhere.
            best = best_columns(output.probabilities, output.probabilities.shape[1])
            rows = np.arange(len(best))[:, None]
            selected = output.selected[rows, best]
            given = selected | (np.arange(best.shape[1]) < top_k)
            return {
                BEST: np.where(given, best, NOT_GIVEN),
                PROBABILITIES: output.probabilities[rows, best],
                SELECTED: selected,
                NOVELTY: output.novelty,
            }
        case RegressionOutput():
            return {VALUE: output.value, LOW: output.low, HIGH: output.high, NOVELTY: output.novelty}
    raise TypeError(type(output).__name__)


NOT_GIVEN = -1
"""The column of a score that is not part of the answer."""


def answers_of(labels: Sequence[Label], arrays: Arrays) -> Iterator[Answer]:
    """The answers of the rows that were read."""
    if VALUE in arrays:
        columns = (arrays[name].tolist() for name in (VALUE, LOW, HIGH))
        yield from (Value(*row) for row in zip(*columns, strict=True))
        return
    best, probabilities = arrays[BEST].tolist(), arrays[PROBABILITIES].tolist()
    if SELECTED not in arrays:
        for columns, chances in zip(best, probabilities, strict=True):
            yield OneLabel([(labels[it].name, p) for it, p in zip(columns, chances, strict=True)])
        return
    for columns, chances, selected in zip(best, probabilities, arrays[SELECTED].tolist(), strict=True):
        scores = zip(columns, chances, selected, strict=True)
        yield ManyLabels([(labels[it].name, p, chosen) for it, p, chosen in scores if it != NOT_GIVEN])


def best_columns(probabilities: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Columns of the largest of each row, largest first, at most `top_k`; shape (n, columns)."""
    k = min(top_k, probabilities.shape[1])
    if probabilities.shape[1] <= SORTED_WHOLE:
        return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    columns = np.argpartition(-probabilities, k - 1, axis=1)[:, :k]
    rows = np.arange(len(columns))[:, None]
    order = np.argsort(-probabilities[rows, columns], axis=1, kind="stable")
    return columns[rows, order]
