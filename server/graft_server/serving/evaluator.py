"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graft_server.metrics import Figures, class_reports, confusions, figures
from graft_server.reports import ClassReport, Confusion
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import ServedVersion


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a version is on n examples."""

    examples: int
    figures: Figures
    per_class: tuple[ClassReport, ...]
    """The classes in the examples, sorted by label; none has training examples."""
    confusions: tuple[Confusion, ...]


@dataclass(slots=True)
class Evaluator:
    """Takes labelled texts in batches, and measures once all are there.

    What it keeps is a row of probabilities an example, not the texts.
    """

    predictor: Predictor
    served: ServedVersion
    _probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    _labels: list[str] = field(default_factory=list)
    _weights: list[float] = field(default_factory=list)

    async def add(self, texts: list[str], labels: list[str], weights: list[float]) -> None:
        """Takes in a batch of valid examples."""
        if texts:
            self._probabilities.append(await self.predictor.probabilities(self.served, texts))
            self._labels.extend(labels)
            self._weights.extend(weights)

    async def measure(self) -> Measured:
        """The figures of everything that was taken in."""
        return await asyncio.to_thread(self._measure)

    def _measure(self) -> Measured:
        known = [label.name for label in self.served.labels]
        # A label that the version does not know is a class that it never gives any probability.
        unknown = sorted(set(self._labels) - set(known))
        names = (*known, *unknown)
        if not self._labels:
            return Measured(0, Figures(0.0, 0.0, 0.0, 0.0), (), ())
        column = {name: index for index, name in enumerate(names)}
        labels = np.array([column[label] for label in self._labels], np.int32)
        weights = np.array(self._weights)
        probabilities = np.pad(np.concatenate(self._probabilities), ((0, 0), (0, len(unknown))))
        predicted = probabilities.argmax(axis=1)
        per_class = class_reports(names, np.zeros(len(names), np.int64), labels, predicted, weights)
        return Measured(
            examples=len(labels),
            figures=figures(probabilities, labels, weights),
            per_class=tuple(sorted((it for it in per_class if it.support), key=lambda it: it.label)),
            confusions=confusions(names, labels, predicted),
        )
