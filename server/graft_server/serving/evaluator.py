"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Input, Task
from graft_server.domain.report import Measured
from graft_server.encoding.queueing import Arrays
from graft_server.evaluation.answered import Answered
from graft_server.serving.predictor import Predictor
from graft_server.serving.trained_on import TrainedOn
from graft_server.serving.versions import ServedVersion
from graft_server.sharing.threads import Threads


@dataclass(slots=True)
class Evaluator:
    """Takes labelled examples in batches, and measures when all have come.

    It keeps an example's target and the head's output for it, not the input. Examples that the version was trained on
    are left out of the figures.
    """

    predictor: Predictor
    served: ServedVersion
    trained: TrainedOn
    """What the version was trained on."""
    threads: Threads
    """The threads on which figures are computed."""
    _outputs: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    """The head's outputs by name, with a row for each example."""
    _targets: list[Example] = field(default_factory=list)
    """The examples without their inputs."""

    @property
    def task(self) -> Task:
        """The version's task; the examples' targets must fit it."""
        return self.served.manifest.task

    async def add(self, examples: Sequence[Example]) -> list[InvalidError | bool]:
        """Takes in a batch of labelled examples.

        Returns:
            The error of each example's input, or whether the example counts: not if the version was trained on it.
        """
        if not examples:
            return []
        inputs = [example.input for example in examples]
        known = await self.threads.run(self.trained.knows, inputs)
        asked = list(compress(inputs, map(not_, known)))
        rows = iter(await self.predictor.outputs(self.served, asked) if asked else ())
        return [
            not trained and self._add(example, next(rows))
            for example, trained in zip(examples, known, strict=True)
        ]

    def _add(self, example: Example, row: Arrays | InvalidError) -> InvalidError | bool:
        if isinstance(row, InvalidError):
            return row
        self._outputs.append(row)
        self._targets.append(replace(example, input=_NO_INPUT))
        return True

    async def measure(self) -> Measured:
        """Returns the figures of all examples that were taken in."""
        if not self._targets:
            return Measured(self.task, 0)
        return await self.threads.run(self._measured)

    def _measured(self) -> Measured:
        answered = Answered(
            labels=tuple(label.name for label in self.served.labels),
            examples=self._targets,
            outputs={name: np.stack([it[name] for it in self._outputs]) for name in self._outputs[0]},
        )
        return self.served.head.measured(answered)


_NO_INPUT = Input("")
