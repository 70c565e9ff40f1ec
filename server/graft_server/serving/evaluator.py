"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Input, Task
from graft_server.domain.report import Measured
from graft_server.evaluation.answered import Answered
from graft_server.serving.predictor import Predictor
from graft_server.serving.versions import ServedVersion
from graft_server.sharing.threads import Threads


@dataclass(slots=True)
class Evaluator:
    """Takes labelled examples in batches, and measures when all have come.

    It keeps an example's target and the head's output for it, not the input.
    """

    predictor: Predictor
    served: ServedVersion
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

    async def add(self, examples: Sequence[Example]) -> list[InvalidError | None]:
        """Takes in a batch of labelled examples.

        Returns:
            The error of each example's input; None if the example was taken in.
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
