"""What the interim head of a single-label adaptation has learned so far.

It holds sums, not examples. A correction or deletion reads the old row back from the store and subtracts it, so
the head always reflects the newest state of each example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.interim.learner import FindRow, FittedHead, Log
from graft_server.adapting.interim.places import Places
from graft_server.adapting.interim.single_label.class_sums import ClassSums, Discriminant, stacked
from graft_server.adapting.interim.single_label.new_classes import Arrivals, Known, unknown_share
from graft_server.adapting.interim.single_label.prequential import Prequential
from graft_server.domain.examples import Example, Label, Split
from graft_server.store.adaptations.segments import Segment, changes

LARGEST_STEP = 256
"""Rows that are predicted by the same head, at most: in a fast stream they share the 5 ms that fitting it takes."""
GROWTH = 16
"""A step is a 16th of what there is: until 4,096 rows, the head that predicts knows 94% of the rows before."""
_ROW_BITS, _ORDINAL_BITS = 20, 28

Array = NDArray[np.float32]


class _Step:
    """Rows that are predicted, and then learned, together."""

    def __init__(self) -> None:
        self.features: list[Array] = []
        self.classes: list[int] = []
        self.weights: list[float] = []
        self.best: list[int] = []
        """Each example's likeliest class."""
        self.new: list[bool] = []
        """Whether the row's example was not known before, so that its prediction is one."""


class SingleLabelLearner:
    """Sums, labels, and the record of predictions. See `Learner`."""

    def __init__(self, dimension: int, declared: Sequence[Label], *, closed_labels: bool) -> None:
        """Begins without examples.

        Args:
            dimension: d, of the features.
            declared: The labels of start.
            closed_labels: Whether examples with others are left out.
        """
        self.prequential = Prequential()
        self._dimension = dimension
        self._closed = closed_labels
        self._sums = ClassSums(dimension)
        self._declared = len(declared)
        self._labels = list(declared)
        self._numbers = {label.name: number for number, label in enumerate(declared)}
        self._names: dict[int, Array] = {}
        self._places = Places()
        self._logs: dict[Log, int] = {}
        self._log_list: list[Log] = []
        self._fitted: Discriminant | None = None
        self._unfitted = 0
        self._examples = 0
        self._arrivals = Arrivals()
        self._counts: NDArray[np.float64] = np.zeros(0)
        self._sums.widen(len(declared))

    @property
    def metrics(self) -> dict[str, float]:
        """Figures on the learning of the stream, by name."""
        figures = {"examples": float(self._examples), "classes": float(self._sums.classes)}
        if self.prequential.predicted:
            figures["prequential_accuracy"] = self.prequential.faded_accuracy
            figures["prequential_accuracy_total"] = self.prequential.accuracy
        return figures

    @property
    def unnamed(self) -> list[Label]:
        """The labels whose names' features are not known yet."""
        return [label for number, label in enumerate(self._labels) if number not in self._names]

    def name(self, features: Mapping[str, Array]) -> None:
        """Takes in features of labels' names, by label."""
        for label, row in features.items():
            self._names[self._numbers[label]] = row.astype(np.float32)
        self._fitted = None

    def learn(self, log: Log, segment: Segment, end: int, features: Array, find: FindRow) -> None:
        """Predicts and learns a segment's changes below sequence `end`.

        Args:
            log: Whose segment it is. Segments of a log come in their order.
            segment: The segment.
            end: A sequence number.
            features: shape (n, d), of its upserts.
            find: Reads rows of this and earlier segments.
        """
        number = self._number(log)
        step = _Step()
        for placed in changes(segment, segment.first_sequence, end):
            change, row = placed.change, placed.row
            place = (number << _ORDINAL_BITS | segment.ordinal) << _ROW_BITS | max(row, 0)
            known = self._places.get(change.id)
            if known is not None:
                if self._later(known, place):
                    continue  # another writer's, which counts: versions see it so too
                self._flush(step)
                step = _Step()
                self._unlearn(change.id, known, find)
            if change.upsert is not None and self._is_learned(change.upsert, features[row]):
                self._add(step, change.upsert, features[row], place, new=known is None)
            if len(step.classes) >= self._step_rows():
                self._flush(step)
                step = _Step()
        self._flush(step)

    def fit(self) -> FittedHead | None:
        """Returns the head of all learned rows; None if it has no class yet."""
        fitted = self._discriminant(0)
        if fitted is None:
            return None
        labels = tuple(self._labels[number] for number in fitted.classes)
        return FittedHead(
            labels, self.prequential.head(fitted, self._unknown_share(fitted), int(self._counts.sum()))
        )

    def _number(self, log: Log) -> int:
        if log not in self._logs:
            self._logs[log] = len(self._logs)
            self._log_list.append(log)
        return self._logs[log]

    def _later(self, known: int, place: int) -> bool:
        """Whether what is at a place comes after another, in the order in which versions read changes."""
        return self._order(known) > self._order(place)

    def _order(self, place: int) -> tuple[int, str, int, int]:
        log, ordinal, row = self._decoded(place)
        return log.source, log.writer_id, ordinal, row

    def _decoded(self, place: int) -> tuple[Log, int, int]:
        rest, row = place >> _ROW_BITS, place & ((1 << _ROW_BITS) - 1)
        return self._log_list[rest >> _ORDINAL_BITS], rest & ((1 << _ORDINAL_BITS) - 1), row

    def _is_learned(self, example: Example, features: Array) -> bool:
        """Whether a version would be trained on the example."""
        labels = example.labels
        known = bool(labels) and (not self._closed or self._numbers.keys() >= set(labels))
        trained = example.weight > 0 and example.split is not Split.VALIDATION
        return known and trained and bool(np.isfinite(features).all())

    def _add(self, step: _Step, example: Example, features: Array, place: int, *, new: bool) -> None:
        classes, weights = self._shares(example)
        best = int(weights.argmax())
        step.features += [features] * len(classes)
        step.classes += classes.tolist()
        step.weights += weights.tolist()
        step.best.append(int(classes[best]))
        step.new += [new and part == best for part in range(len(classes))]
        self._places.set(example.id, place)
        self._examples += 1

    def _shares(self, example: Example) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The classes of an example and what it counts for in each: a distribution is several rows of one input."""
        shares = [
            (share.label, share.probability) for share in example.distribution or () if share.probability > 0
        ]
        named = shares or [(example.label or "", 1.0)]
        classes = np.array([self._class(label) for label, _ in named], np.int64)
        return classes, example.weight * np.array([share for _, share in named])

    def _class(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._labels)
            self._labels.append(Label(name))
        return self._numbers[name]

    def _unlearn(self, id_: str, place: int, find: FindRow) -> None:
        row = find(*self._decoded(place), id_)
        classes, weights = self._shares(row.example)
        self._sums.unlearn(np.tile(row.features.astype(np.float32), (len(classes), 1)), classes, weights)
        self._places.remove(id_)
        self._examples -= 1
        self._count(int(classes[weights.argmax()]), -1)
        self._fitted = None

    def _step_rows(self) -> int:
        return min(max(self._examples // GROWTH, 1), LARGEST_STEP)

    def _flush(self, step: _Step) -> None:
        if not step.classes:
            return
        features = stacked(step.features, self._dimension)
        classes = np.array(step.classes, np.int64)
        self._predict(features, classes, np.array(step.new))
        for number in step.best:
            self._count(number, 1)
            self._arrivals.note(number)
        self._sums.learn(features, classes, np.array(step.weights))
        self._unfitted += len(classes)

    def _predict(self, features: Array, classes: NDArray[np.int64], new: NDArray[np.bool_]) -> None:
        fitted = self._discriminant(self._step_rows() - 1)
        if fitted is None or not new.any():
            return
        columns = np.searchsorted(fitted.classes, classes[new])
        columns[columns == len(fitted.classes)] = 0
        answers = np.where(fitted.classes[columns] == classes[new], columns, -1)
        self.prequential.note(
            fitted, features[new], answers, self._unknown_share(fitted), int(self._counts.sum())
        )

    def _count(self, number: int, examples: int) -> None:
        if number >= len(self._counts):
            more = max(number + 1 - len(self._counts), len(self._counts) // 2)
            self._counts = np.append(self._counts, np.zeros(more))
        self._counts[number] += examples

    def _unknown_share(self, fitted: Discriminant) -> float:
        """The probability that the stream's next example is of a class that a fit does not know."""
        counts = np.zeros(max(len(self._counts), int(fitted.classes.max()) + 1))
        counts[: len(self._counts)] = self._counts
        seen = counts[self._declared :] > 0
        known = Known(
            self._arrivals.drawn(counts)[fitted.classes], self._declared, int(seen.sum()), closed=self._closed
        )
        return unknown_share(known)

    def _discriminant(self, most_unfitted: int) -> Discriminant | None:
        """Returns the newest fit; fits again if more than `most_unfitted` rows came in after it."""
        if self._fitted is None or self._unfitted > most_unfitted:
            self._sums.widen(len(self._labels))
            # A class whose examples were all removed is gone, whatever its name said.
            names = {
                number: features
                for number, features in self._names.items()
                if number < self._declared or self._sums.rows[number]
            }
            self._fitted, self._unfitted = self._sums.fit(names), 0
        return self._fitted
