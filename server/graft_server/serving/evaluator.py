"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Input, Task
from graft_server.domain.report import (
    CONFIDENCE,
    ClassReport,
    Measured,
)
from graft_server.evaluation import figures
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.serving.answers import HIGH, LOW, PROBABILITIES, SELECTED, VALUE
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import ServedVersion


@dataclass(slots=True)
class Evaluator:
    """Takes labelled examples in batches, and measures once all are there.

    What it keeps is the head's output and the target of an example, not its input.
    """

    predictor: Predictor
    served: ServedVersion
    _outputs: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    """What the head says of each example, by name."""
    _targets: list[Example] = field(default_factory=list)
    """Without their inputs."""

    @property
    def task(self) -> Task:
        """What the version answers with; the examples' targets must fit it."""
        return self.served.manifest.task

    async def add(self, examples: Sequence[Example]) -> list[InvalidError | None]:
        """Takes in a batch of labelled examples.

        Returns:
            What is wrong with each example's input; None where it was taken in.
        """
        if not examples:
            return []
        rows = await self.predictor.outputs(self.served, [example.input for example in examples])
        for row, example in zip(rows, examples, strict=True):
            if not isinstance(row, InvalidError):
                self._outputs.append(row)
                self._targets.append(replace(example, input=_NO_INPUT))
        return [row if isinstance(row, InvalidError) else None for row in rows]

    async def measure(self) -> Measured:
        """The figures of everything that was taken in."""
        if not self._targets:
            return Measured(self.task, 0)
        measure = {
            Task.SINGLE_LABEL: self._single_label,
            Task.MULTI_LABEL: self._multi_label,
            Task.REGRESSION: self._regression,
        }
        return await asyncio.to_thread(measure[self.task])

    def _single_label(self) -> Measured:
        names, column = self._names()
        soft = np.zeros((len(self._targets), len(names)), np.float32)
        for row, example in zip(soft, self._targets, strict=True):
            if example.label is not None:
                row[column[example.label]] = 1
            for share in example.distribution or ():
                row[column[share.label]] = share.probability
        labels = soft.argmax(axis=1).astype(np.int32)
        weights = self._weights
        probabilities = self._padded(PROBABILITIES, len(names))
        predicted = probabilities.argmax(axis=1)
        per_class = figures.class_reports(names, np.zeros(len(names), np.int64), labels, predicted, weights)
        return Measured(
            self.task,
            len(labels),
            figures.figures(probabilities, labels, weights, soft),
            _seen(per_class),
            figures.confusions(names, labels, predicted),
        )

    def _multi_label(self) -> Measured:
        names, column = self._names()
        targets = np.zeros((len(self._targets), len(names)), bool)
        for row, example in zip(targets, self._targets, strict=True):
            row[[column[label] for label in example.labels]] = True
        probabilities = self._padded(PROBABILITIES, len(names))
        selected = self._padded(SELECTED, len(names))
        found = figures.multi_label(probabilities, selected, targets, self._weights)
        thresholds = np.ones(len(names), np.float32)
        if isinstance(self.served.head, MultiLabelHead):
            thresholds[: self.served.head.classes] = self.served.head.thresholds
        none = np.zeros(len(names), np.int64)
        per_class = figures.label_reports(names, none, targets.sum(axis=0), thresholds, found)
        return Measured(self.task, len(targets), found.figures, _seen(per_class), multi_label=found.further)

    def _regression(self) -> Measured:
        values = np.array([example.value for example in self._targets], np.float64)
        predicted, low, high = (self._joined(name).astype(np.float64) for name in (VALUE, LOW, HIGH))
        found = figures.regression(predicted, low, high, values, self._weights, confidence=CONFIDENCE)
        return Measured(self.task, len(values), regression=found)

    @property
    def _weights(self) -> NDArray[np.float64]:
        return np.array([example.weight for example in self._targets])

    def _names(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """The version's labels and those of the examples that it does not know, and each one's column."""
        known = [label.name for label in self.served.labels]
        # A label that the version does not know is a class that it never gives any probability.
        seen = {label for example in self._targets for label in example.labels}
        names = (*known, *sorted(seen - set(known)))
        return names, {name: index for index, name in enumerate(names)}

    def _joined(self, name: str) -> NDArray[Any]:
        return np.stack([output[name] for output in self._outputs])

    def _padded(self, name: str, columns: int) -> NDArray[Any]:
        joined = self._joined(name)
        return np.pad(joined, ((0, 0), (0, columns - joined.shape[1])))


_NO_INPUT = Input("")


def _seen(per_class: tuple[ClassReport, ...]) -> tuple[ClassReport, ...]:
    """Those that examples carry, sorted by label."""
    return tuple(sorted((it for it in per_class if it.support), key=lambda it: it.label))
