"""From raw inputs to an encoder's items: off the event loop if that takes long, and in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from graft_server.backbones.preprocessing import Prepared, Preprocessor, alone, ready_features
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Input, Kind
from graft_server.sharing.event_loop import in_slices
from graft_server.sharing.threads import Threads
from graft_server.sharing.turns import Turns

T = TypeVar("T")

FILES_AT_ONCE = 256
"""The images or clips of one caller that are decoded at a time: an image's pixels take 150 KB while they wait, 30 s of
sound 1 MB, whatever the size of their files."""

TURN = 32
"""The inputs that an adaptation brings to the encoder in its turn."""
TURNS_AT_ONCE = 8
"""The number of such parts that are prepared and queued. Fewer would leave the batcher without choice; more would make
a small adaptation wait for the inputs of others."""


READ_AT_ONCE = 256
"""The rows of ready features that a head reads at once: with 10,000 labels its output takes 10 MB."""


class ReadyFeatures(Prepared):
    """Features computed by the caller: the item is the unit-norm vector."""

    __slots__ = ()


class Preparer:
    """Prepares the inputs of one backbone.

    Attributes:
        preprocessor: Turns inputs into the encoder's items.
        kinds: The kinds of input that it takes, sorted.
    """

    def __init__(self, preprocessor: Preprocessor, dimension: int, threads: Threads) -> None:
        """Makes it.

        Args:
            preprocessor: Turns inputs into the encoder's items.
            dimension: The length of features that a caller may bring.
            threads: Where inputs that take long are prepared.
        """
        self.preprocessor = preprocessor
        self.kinds = sorted({*preprocessor.kinds, Kind.FEATURES})
        self._dimension = dimension
        self._threads = threads

    @property
    def reads_texts(self) -> bool:
        """Whether it takes texts."""
        return Kind.TEXT in self.preprocessor.kinds

    async def prepare_all(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Prepares inputs: inline if they are short texts, otherwise on a thread beside the encoder.

        An input that cannot be read fails alone. Features computed by the caller bypass the encoder: their
        item is the vector.
        """
        if any(it.kind is Kind.FEATURES for it in inputs):
            return await self._prepare_mixed(inputs)
        if self.preprocessor.quick(inputs):
            return [alone(self.preprocessor.prepare, it) for it in inputs]
        return await self._threads.run(self.preprocessor.many, inputs)

    async def unreadable(self, inputs: Sequence[Input]) -> list[InvalidError | None]:
        """Returns the error of each input; None if it can be read.

        Where the backbone reads every text, no time is spent on them.
        """
        if self.preprocessor.always_reads and all(it.kind is Kind.TEXT for it in inputs):
            return [None] * len(inputs)
        errors: list[InvalidError | None] = []
        for part in self.parts(inputs):
            prepared = await self.prepare_all(part)
            errors += [it if isinstance(it, InvalidError) else None for it in prepared]
        return errors

    def parts(self, inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
        """Returns the inputs in parts that may be prepared at once: a decoded file may be far larger than the file."""
        at_once = len(inputs) if self.reads_texts else FILES_AT_ONCE
        for start in range(0, len(inputs), max(at_once, 1)):
            yield inputs[start : start + at_once]

    async def _prepare_mixed(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        others = iter(await self.prepare_all([it for it in inputs if it.kind is not Kind.FEATURES]))
        return await in_slices(
            lambda it: alone(self._ready, it) if it.kind is Kind.FEATURES else next(others), inputs
        )

    def _ready(self, value: Input) -> Prepared:
        return ReadyFeatures(ready_features(value, self._dimension))


async def in_turns(
    turns: Turns, key: str, inputs: Sequence[Input], work: Callable[[Sequence[Input]], Awaitable[T]]
) -> list[tuple[list[int], T]]:
    """Returns the results of `work` on the inputs, part by part, with the inputs' places. Competing keys take turns.

    Inputs of similar size share a part, so that batches have little to pad.

    Raises:
        Exception: The first exception of `work`; the other parts are cancelled.
    """

    async def turn(places: list[int]) -> tuple[list[int], T]:
        async with turns.place(key):
            return places, await work([inputs[place] for place in places])

    order = sorted(range(len(inputs)), key=lambda place: inputs[place].size)
    tasks = [asyncio.create_task(turn(order[start : start + TURN])) for start in range(0, len(order), TURN)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
