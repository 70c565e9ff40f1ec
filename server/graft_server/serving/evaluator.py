"""Measures a version on labelled examples that a caller brings. Nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Input, Task
from graft_server.domain.report import Measured
from graft_server.encoding.fair_queue import Arrays
from graft_server.evaluation.answered import Answered
from graft_server.serving.predictor import Predictor, named
from graft_server.serving.trained_on import NearCopies, TrainedOn
from graft_server.serving.versions import ServedVersion
from graft_server.sharing.threads import Threads


@dataclass(slots=True)
class Evaluator:
    """Takes labelled examples in batches, and measures when all have come.

    It keeps an example's target and the head's output for it, not the input. Examples that the version was trained on
    are left out of the figures: those that are the same, or of the same wording, as they come, and those whose features
    are near when all have come.
    """

    predictor: Predictor
    served: ServedVersion
    trained: TrainedOn
    """What the version was trained on."""
    threads: Threads
    """The threads on which figures are computed."""
    caller: Caller = field(default_factory=new_call)
    """Whose evaluation it is."""
    _outputs: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    """The head's outputs by name, with a row for each example."""
    _targets: list[Example] = field(default_factory=list)
    """The examples without their inputs."""
    _near: NearCopies = field(init=False)
    size: int = field(init=False, default=0)
    """The memory that all of it takes, in bytes."""

    def __post_init__(self) -> None:
        self._near = NearCopies(self.trained.rows)

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
        rows = iter(await self.predictor.outputs(self.served, asked, self.caller) if asked else ())
        return [
            not trained and self._add(example, next(rows))
            for example, trained in zip(examples, known, strict=True)
        ]

    def _add(self, example: Example, row: Arrays | InvalidError) -> InvalidError | bool:
        if isinstance(row, InvalidError):
            return row
        views = {view: row[named(view)] for view in self._near.views if named(view) in row}
        self._near.add(len(self._targets), example, views)
        outputs = {name: array for name, array in row.items() if not name.startswith(named(""))}
        self._outputs.append(outputs)
        self._targets.append(replace(example, input=_NO_INPUT))
        self.size += ROW_BYTES + sum(it.nbytes for it in (*outputs.values(), *views.values()))
        self.size += sum(LABEL_BYTES + len(it) for it in example.labels)
        return True

    async def measure(self) -> tuple[Measured, list[int]]:
        """Returns the figures of the examples that count, and the places among them of those that do not after all.

        These are near copies of examples that the version was trained on.
        """
        return await self.threads.run(self._measured)

    def _measured(self) -> tuple[Measured, list[int]]:
        copies = self._near.found()
        left = [place for place in range(len(self._targets)) if place not in copies]
        if not left:
            return Measured(self.task, 0), sorted(copies)
        answered = Answered(
            labels=tuple(label.name for label in self.served.labels),
            examples=[self._targets[place] for place in left],
            outputs={name: np.stack([self._outputs[it][name] for it in left]) for name in self._outputs[0]},
        )
        return self.served.head.measured(answered), sorted(copies)


_NO_INPUT = Input("")

ROW_BYTES = 1_500
"""The memory of an example that is measured, besides its target and the head's output for it."""
LABEL_BYTES = 100
"""The memory of a label besides its characters."""
