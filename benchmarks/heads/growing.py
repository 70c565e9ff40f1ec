"""Sets that grow: a head of the first n examples, its forecasts, and heads of more of them on fresh ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import banking77, clinc150, goemotions_part, goemotions_part_single, sms_spam
from benchmarks.heads.features import featured
from benchmarks.heads.measure import VIEWS, training_set
from benchmarks.heads.tasks import plain_of, valence
from graft_server.domain.report import Report
from graft_server.domain.views import stacked
from graft_server.heads import Head
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.task import Selection

AT_ONCE = 2_000
Rows = NDArray[np.int64]
Read = Callable[[Any], NDArray[Any]]


class Growing(ABC):
    """A set with its features, for one task."""

    def __init__(self, data: Any) -> None:
        self.data = data

    @abstractmethod
    def select(self, rows: Rows, seed: int) -> Selection:
        """The real selection on some training rows."""

    @abstractmethod
    def figure(self, head: Head, rows: Rows) -> float:
        """The figure that forecasts are of, on other training rows."""

    def labels(self) -> NDArray[np.int32] | None:
        """The training rows' labels; None where they have not one each."""
        return None

    def order(self, seed: int, *, balanced: bool) -> Rows:
        """Rows of different texts in random order; `balanced`: every beginning has about as many of each class."""
        rng = np.random.default_rng(seed)
        _, first = np.unique(np.array(self.data.texts.train), return_index=True)
        order: Rows = rng.permutation(np.sort(first))
        labels = self.labels()
        if not balanced or labels is None:
            return order
        rank = np.zeros(len(order))
        for label in np.unique(labels):
            own = np.flatnonzero(labels[order] == label)
            rank[own] = np.arange(len(own))
        return order[np.argsort(rank, kind="stable")]

    def answers(self, head: Head, rows: Rows, read: Read) -> NDArray[Any]:
        """What a head answers for some training rows."""
        features = stacked(self.data.train, head.view)[rows]
        starts = range(0, len(rows), AT_ONCE)
        return np.concatenate(
            [read(head.scores(features[i : i + AT_ONCE].astype(np.float32))) for i in starts]
        )


class OneLabel(Growing):
    """Accuracy."""

    def labels(self) -> NDArray[np.int32]:
        """The labels."""
        found: NDArray[np.int32] = self.data.texts.train_labels
        return found

    def select(self, rows: Rows, seed: int) -> Selection:
        """See `Growing`."""
        return select_single_label(training_set(self.data, rows), seed=seed)

    def figure(self, head: Head, rows: Rows) -> float:
        """See `Growing`."""
        found = self.answers(head, rows, lambda output: output.probabilities.argmax(axis=1))
        return float((found == self.labels()[rows]).mean())


class SeveralLabels(Growing):
    """Micro-F1."""

    def select(self, rows: Rows, seed: int) -> Selection:
        """See `Growing`."""
        texts = self.data.texts
        train = MultiLabelSet(
            classes=texts.classes,
            descriptions=("",) * len(texts.classes),
            targets=texts.train_targets[rows],
            label_features={view: self.data.names[view] for view in VIEWS},
            **plain_of(self.data, rows),
        )
        return select_multi_label(train, seed=seed)

    def figure(self, head: Head, rows: Rows) -> float:
        """See `Growing`."""
        selected = self.answers(head, rows, lambda output: output.selected)
        targets = self.data.texts.train_targets[rows]
        return float(2 * (selected & targets).sum() / max(selected.sum() + targets.sum(), 1))


class Value(Growing):
    """The share of variance explained."""

    def _values(self, rows: Rows) -> NDArray[np.float64]:
        return valence(self.data.texts.classes, self.data.texts.train_targets[rows])

    def select(self, rows: Rows, seed: int) -> Selection:
        """See `Growing`."""
        return select_regression(
            RegressionSet(values=self._values(rows), **plain_of(self.data, rows)), seed=seed
        )

    def figure(self, head: Head, rows: Rows) -> float:
        """See `Growing`."""
        off = self.answers(head, rows, lambda output: output.value) - self._values(rows)
        return float(1 - (off**2).mean() / self._values(rows).var())


SETS: Mapping[str, Callable[[], Growing]] = {
    "banking77": lambda: OneLabel(featured(banking77())),
    "clinc150": lambda: OneLabel(featured(clinc150())),
    "sms_spam": lambda: OneLabel(featured(sms_spam())),
    "goemotions": lambda: OneLabel(featured(goemotions_part_single())),
    "goemotions, several labels": lambda: SeveralLabels(featured(goemotions_part())),
    "goemotions, value": lambda: Value(featured(goemotions_part())),
}


def forecasts_of(report: Report) -> list[dict[str, float]] | None:
    """What a report forecasts; None where it does not."""
    if report.learning_curve is None:
        return None
    return [
        {"figure": point.accuracy, "low": point.low, "high": point.high}
        for point in report.learning_curve.forecasts
    ]
