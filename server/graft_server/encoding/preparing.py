"""From raw inputs to an encoder's items: off the event loop if that takes long, and in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence, Sized
from typing import TypeVar

import numpy as np

from graft_server.backbones.preprocessing import Prepared, Preprocessor, alone, ready_features
from graft_server.domain.caller import NOBODY, Caller
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Input, Kind
from graft_server.domain.views import POOLED
from graft_server.encoding.batcher import Encoded
from graft_server.encoding.encoder import Features
from graft_server.encoding.fair_queue import Arrays, Reader
from graft_server.sharing.threads import Threads
from graft_server.sharing.turns import Turns

T = TypeVar("T")

FILES_AT_ONCE = 256
"""The images or clips of one caller that are decoded at a time: an image's pixels take 150 KB while they wait, 30 s of
sound 1 MB, whatever the size of their files."""

TEXTS_A_TURN = 64
FILES_A_TURN = 4
BYTES_A_TURN = 1 << 16
"""What one caller prepares on a thread in its turn, some tens of milliseconds of work: at most so many texts, or files,
and no more than one where they have more bytes."""

CHARACTERS_A_TOKEN = 4
"""Of usual text: what is queued is counted in tokens, and told apart before there are any."""

TURN = 32
"""The inputs that an adaptation brings to the encoder in its turn."""
TURNS_AT_ONCE = 8
"""The number of such parts that are prepared and queued. Fewer would leave the batcher without choice; more would make
a small adaptation wait for the inputs of others."""


class ReadyFeatures(Prepared):
    """Features computed by the caller: the item is the unit-norm vector."""

    __slots__ = ()


class Preparer:
    """Prepares the inputs of one backbone.

    Attributes:
        preprocessor: Turns inputs into the encoder's items.
        kinds: The kinds of input that it takes, sorted.
    """

    def __init__(
        self, preprocessor: Preprocessor, dimension: int, threads: Threads, longest: int = 0
    ) -> None:
        """Makes it.

        Args:
            preprocessor: Turns inputs into the encoder's items.
            dimension: The length of features that a caller may bring.
            threads: Where inputs that take long are prepared.
            longest: The most tokens of a text that are read; 0: of no text.
        """
        self.preprocessor = preprocessor
        self.kinds = sorted({*preprocessor.kinds, Kind.FEATURES})
        self._dimension = dimension
        self._threads = threads
        self._longest = longest
        self._typical = len(preprocessor.typical(np.random.default_rng(0)))

    def lengths(self, most: float) -> Callable[[Input], float]:
        """Returns what gives the length of an input's item, as far as it is known before the input is prepared.

        Args:
            most: The length that a caller may hold. A file counts for more than it has if a caller could hold too many.
        """
        least = 0.0 if self.reads_texts else most / FILES_AT_ONCE
        return lambda value: max(self._length(value), least)

    def _length(self, value: Input) -> int:
        if value.kind is Kind.FEATURES:
            return 1
        if not self.reads_texts:
            return self._typical
        return min(value.size // CHARACTERS_A_TOKEN + 2, self._longest or value.size + 2)

    @property
    def reads_texts(self) -> bool:
        """Whether it takes texts."""
        return Kind.TEXT in self.preprocessor.kinds

    async def prepare_all(
        self, inputs: Sequence[Input], caller: Caller = NOBODY
    ) -> list[Prepared | InvalidError]:
        """Prepares inputs: inline if they are short texts, otherwise on threads, in turns with other callers.

        An input that cannot be read fails alone. Features computed by the caller bypass the encoder: their
        item is the vector.
        """
        if any(it.kind is Kind.FEATURES for it in inputs):
            return await self._prepare_mixed(inputs, caller)
        if self.preprocessor.quick(inputs):
            return [alone(self.preprocessor.prepare, it) for it in inputs]
        turns = list(self._turns(inputs))
        if len(turns) == 1:
            return await self._threads.run_in_turn(caller, self.preprocessor.many, inputs)
        tasks = [
            asyncio.create_task(self._threads.run_in_turn(caller, self.preprocessor.many, turn))
            for turn in turns
        ]
        try:
            return [it for part in await asyncio.gather(*tasks) for it in part]
        finally:
            for task in tasks:
                task.cancel()

    def _turns(self, inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
        """Returns the inputs in parts that a caller prepares in one turn each."""
        most = TEXTS_A_TURN if self.reads_texts else FILES_A_TURN
        start = size = 0
        for place, value in enumerate(inputs):
            if place > start and (place - start == most or size + value.size > BYTES_A_TURN):
                yield inputs[start:place]
                start, size = place, 0
            size += value.size
        yield inputs[start:]

    async def unreadable(self, inputs: Sequence[Input], caller: Caller) -> list[InvalidError | None]:
        """Returns the error of each input; None if it can be read.

        Where the backbone reads every text, no time is spent on them.
        """
        if self.preprocessor.always_reads and all(it.kind is Kind.TEXT for it in inputs):
            return [None] * len(inputs)
        errors: list[InvalidError | None] = []
        for part in self.parts(inputs):
            prepared = await self.prepare_all(part, caller)
            errors += [it if isinstance(it, InvalidError) else None for it in prepared]
        return errors

    def parts(self, inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
        """Returns the inputs in parts that may be prepared at once: a decoded file may be far larger than the file."""
        at_once = len(inputs) if self.reads_texts else FILES_AT_ONCE
        for start in range(0, len(inputs), max(at_once, 1)):
            yield inputs[start : start + at_once]

    async def _prepare_mixed(self, inputs: Sequence[Input], caller: Caller) -> list[Prepared | InvalidError]:
        others = iter(await self.prepare_all([it for it in inputs if it.kind is not Kind.FEATURES], caller))
        return [alone(self._ready, it) if it.kind is Kind.FEATURES else next(others) for it in inputs]

    def _ready(self, value: Input) -> Prepared:
        return ReadyFeatures(ready_features(value, self._dimension))


async def in_turns(
    turns: Turns, key: Hashable, inputs: Sequence[Input], work: Callable[[Sequence[Input]], Awaitable[T]]
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


Others = Callable[[Sequence[Sized], Reader], Awaitable[Encoded]]
"""Encodes items, and has them read."""


async def beside_ready(
    prepared: Sequence[Prepared], reader: Reader, threads: Threads, caller: Caller, encode: Others
) -> Encoded:
    """Returns what a reader makes of inputs of which some are features already, in the order of the inputs.

    Ready features meet the reader on a thread, in turns with other callers, and the others on the encoder's. The reader
    is given the view "pooled" alone.

    Args:
        prepared: The inputs, of which one at least is ready.
        reader: What they are for.
        threads: Where ready features are read.
        caller: Whose inputs they are.
        encode: Encodes the others.
    """

    def of_pooled(features: Features) -> Arrays:
        return reader({POOLED: features[POOLED]})

    ready = [row for row, it in enumerate(prepared) if isinstance(it, ReadyFeatures)]
    others = [row for row, it in enumerate(prepared) if not isinstance(it, ReadyFeatures)]
    started = time.monotonic()
    features = {POOLED: np.stack([prepared[row].item for row in ready])}
    arrays = await threads.run_in_turn(caller, of_pooled, features)
    encoded = Encoded(arrays, 0.0, 0.0, time.monotonic() - started)
    if not others:
        return encoded
    batched = await encode([prepared[row].item for row in others], of_pooled)
    back = np.argsort([*ready, *others])
    rest = batched.arrays or {
        name: np.zeros((len(others), *array.shape[1:]), array.dtype) for name, array in arrays.items()
    }
    return Encoded(
        {name: np.concatenate([array, rest[name]])[back] for name, array in arrays.items()},
        batched.queue_s,
        batched.encode_s,
        batched.read_s + encoded.read_s,
        {others[place]: error for place, error in batched.faults.items()},
    )
