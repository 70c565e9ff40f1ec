"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graft_server.errors import InvalidError
from graft_server.examples import Example, Task
from graft_server.metrics import Figures, class_reports, confusions, figures
from graft_server.reports import ClassReport, Confusion
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import ServedVersion


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a version is on n examples."""

    examples: int
    figures: Figures = field(default_factory=lambda: Figures(0.0, 0.0, 0.0, 0.0))
    per_class: tuple[ClassReport, ...] = ()
    """The classes in the examples, sorted by label; none has training examples."""
    confusions: tuple[Confusion, ...] = ()


@dataclass(slots=True)
class Evaluator:
    """Takes labelled examples in batches, and measures once all are there.

    What it keeps is a row of probabilities and the target of an example, not its input.
    """

    predictor: Predictor
    served: ServedVersion
    _probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    _targets: list[dict[str, float]] = field(default_factory=list)
    """Label to probability: a label alone has 1."""
    _weights: list[float] = field(default_factory=list)

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
        rows = await self.predictor.probabilities(self.served, [example.input for example in examples])
        for row, example in zip(rows, examples, strict=True):
            if not isinstance(row, InvalidError):
                self._probabilities.append(row)
                self._targets.append(_target(example))
                self._weights.append(example.weight)
        return [row if isinstance(row, InvalidError) else None for row in rows]

    async def measure(self) -> Measured:
        """The figures of everything that was taken in."""
        return await asyncio.to_thread(self._measure)

    def _measure(self) -> Measured:
        if not self._targets:
            return Measured(0)
        known = [label.name for label in self.served.labels]
        # A label that the version does not know is a class that it never gives any probability.
        unknown = sorted({label for target in self._targets for label in target} - set(known))
        names = (*known, *unknown)
        column = {name: index for index, name in enumerate(names)}
        labels = np.array(
            [column[max(target, key=lambda it: target[it])] for target in self._targets], np.int32
        )
        weights = np.array(self._weights)
        probabilities = np.pad(np.stack(self._probabilities), ((0, 0), (0, len(unknown))))
        predicted = probabilities.argmax(axis=1)
        per_class = class_reports(names, np.zeros(len(names), np.int64), labels, predicted, weights)
        return Measured(
            examples=len(labels),
            figures=figures(probabilities, labels, weights, self._soft(column)),
            per_class=tuple(sorted((it for it in per_class if it.support), key=lambda it: it.label)),
            confusions=confusions(names, labels, predicted),
        )

    def _soft(self, column: dict[str, int]) -> NDArray[np.float32] | None:
        """The targets as distributions, shape (n, k), where one of them is."""
        if all(len(target) == 1 for target in self._targets):
            return None
        soft = np.zeros((len(self._targets), len(column)), np.float32)
        for row, target in zip(soft, self._targets, strict=True):
            for label, probability in target.items():
                row[column[label]] = probability
        return soft


def _target(example: Example) -> dict[str, float]:
    if example.distribution is not None:
        return {share.label: share.probability for share in example.distribution}
    return dict.fromkeys(example.labels, 1.0)
