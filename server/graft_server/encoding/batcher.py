"""The batcher: whatever arrives while the device is busy is the next batch.

There is no timer to tune. A worker that becomes free takes its share of what is queued, up to the budget: under
low load that is one text at once, under high load a full batch. Work of two lanes is queued: predictions go
first, and adaptation's embedding work is guaranteed a share of the device.

Rows of different models ride in one batch. Behind the encoder, on the same thread, each row meets its own reader
(the head of its model): rows that share one are read together.

Everything but encoding and reading happens on the event loop, so there are no locks. A work whose future is done
(its caller left, or another part of it failed) or whose deadline has passed is dropped when its turn comes,
before it costs anything; its batch-mates are not touched.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.encoding.runtime import Features
from graft_server.errors import BackboneError, DeadlineError, DrainingError, OverloadError

Tokens = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]


Reader = Callable[[Features], Arrays]
"""What becomes of the features of n rows: arrays by name, each of shape (n, ...)."""


class Encodes(Protocol):
    """What the batcher needs of an encoder."""

    def encode(self, texts: Sequence[Tokens]) -> Features:
        """See `Encoder.encode`."""


class Lane(enum.Enum):
    """Who waits for the features."""

    PREDICT = 0
    ADAPT = 1


ADAPT_SHARE = 1 / 8
"""The part of the device's time that adaptation gets while predictions queue."""

_DRAIN_MEMORY = 0.9
"""How much of the drain rate's estimate is kept at each batch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work may be queued or run at once."""

    budget: float
    """The cost of a batch, in tokens; see `cost`."""
    workers: int
    """Batches that run at the same time."""
    queued_tokens: int = 400_000
    """Predictions beyond this many queued tokens are refused."""
    queued_requests: int = 4_096
    """Predictions beyond this many queued requests are refused."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one submission, and what that took."""

    arrays: Arrays
    """What the reader made of the features, or the features by view; rows in the order of the submission."""
    queue_s: float
    """From submission to the start of the first batch, in seconds."""
    encode_s: float
    """The encoder's time for the batches that the texts rode in, in seconds."""
    read_s: float
    """The reader's time for those batches, in seconds."""


def unread(features: Features) -> Arrays:
    """The reader that leaves features as they are."""
    return features


@dataclass(slots=True, eq=False)
class _Work:
    """One submission: its texts ride in one batch or in several."""

    texts: Sequence[Tokens]
    order: Sequence[int]
    reader: Reader
    future: asyncio.Future[Encoded]
    deadline: float
    submitted: float
    cursor: int = 0
    remaining: int = 0
    queue_s: float = 0.0
    encode_s: float = 0.0
    read_s: float = 0.0
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Queue:
    works: deque[_Work] = field(default_factory=deque)
    tokens: int = 0


_Part = tuple[_Work, list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What became of those parts of a batch that have the same reader."""

    parts: list[_Part]
    result: Arrays | Exception
    encode_s: float
    read_s: float


@dataclass(slots=True, eq=False)
class _Batch:
    texts: list[Tokens]
    parts: list[_Part]
    """Which texts of which work the batch's rows are, in order."""
    lane: Lane
    tokens: int


def cost(count: int, tokens: int, longest: int, dimension: int) -> float:
    """What a batch costs, in tokens' worth of matrix products.

    A layer of a transformer spends 12 d² multiplications on a token, and attention 2 d on each pair of places;
    attention works on texts padded to the longest of the batch.
    """
    return tokens + count * longest * longest / (6 * dimension)


class Batcher:
    """Owns the queue in front of one encoder, and the threads that run it."""

    def __init__(self, encoder: Encodes, limits: Limits, dimension: int) -> None:
        self._encoder = encoder
        self._limits = limits
        self._dimension = dimension
        self._queues = {lane: _Queue() for lane in Lane}
        self._adapt_credit = 0.0
        self._drain_rate = 0.0
        self._wakeup = asyncio.Event()
        self._executor = ThreadPoolExecutor(limits.workers, thread_name_prefix="encoder")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the workers."""
        self._tasks = [
            asyncio.create_task(self._work(), name=f"encoder-{n}") for n in range(self._limits.workers)
        ]

    async def close(self) -> None:
        """Ends the workers; what is still queued fails."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues.values():
            for work in queue.works:
                _fail(work, DrainingError())
            queue.works.clear()
        self._executor.shutdown(wait=True)

    @property
    def queued_tokens(self) -> int:
        """Tokens of predictions that wait."""
        return self._queues[Lane.PREDICT].tokens

    async def encode(
        self,
        texts: Sequence[Tokens],
        *,
        reader: Reader = unread,
        lane: Lane = Lane.PREDICT,
        deadline: float = math.inf,
    ) -> Encoded:
        """Gives what a reader makes of the features of n >= 1 token sequences.

        Args:
            texts: Each of shape (tokens,).
            reader: Called on the encoder's thread, for all rows of a batch that have the same reader.
            lane: Who waits for them.
            deadline: On the clock of time.monotonic(): texts that have not been encoded by then never are.

        Raises:
            OverloadError: Too much is queued already.
            DeadlineError: The deadline passed first.
            BackboneError: The encoder failed.
            Exception: What the reader raised.
        """
        queue = self._queues[lane]
        if lane is Lane.PREDICT:
            self.require_room()
        order = range(len(texts))
        # Batch-mates of one length waste nothing on attention's padding.
        by_length = sorted(order, key=lambda row: len(texts[row])) if len(texts) > 2 else order
        work = _Work(
            texts=texts,
            order=by_length,
            reader=reader,
            future=asyncio.get_running_loop().create_future(),
            deadline=deadline,
            submitted=time.monotonic(),
            remaining=len(texts),
        )
        queue.works.append(work)
        queue.tokens += sum(map(len, texts))
        self._wakeup.set()
        return await work.future

    def require_room(self) -> None:
        """Raises OverloadError if too many predictions are queued: worth asking before work is put into one."""
        limits, queue = self._limits, self._queues[Lane.PREDICT]
        if queue.tokens < limits.queued_tokens and len(queue.works) < limits.queued_requests:
            return
        drain_s = queue.tokens / self._drain_rate if self._drain_rate else 1.0
        raise OverloadError(
            f"The server has {len(queue.works):,} requests queued, about {drain_s:.1f} s of work: try again "
            "after that, or add servers.",
            reason="QUEUE_FULL",
            retry_after_s=min(max(drain_s, 0.05), 30.0),
        )

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._take()
            if batch is None:
                self._wakeup.clear()
                await self._wakeup.wait()
                continue
            started = time.monotonic()
            for work, _ in batch.parts:
                work.queue_s = work.queue_s or started - work.submitted
            try:
                readings = await loop.run_in_executor(self._executor, self._encode_and_read, batch)
            except asyncio.CancelledError:
                for work, _ in batch.parts:
                    _fail(work, DrainingError())
                raise
            self._account(batch, time.monotonic() - started)
            for reading in readings:
                _deliver(reading)

    def _encode_and_read(self, batch: _Batch) -> list[_Reading]:
        """Runs on a thread; never raises."""
        by_reader: dict[Reader, list[int]] = {}
        for place, (work, _) in enumerate(batch.parts):
            by_reader.setdefault(work.reader, []).append(place)
        started = time.monotonic()
        try:
            features = self._encoder.encode(batch.texts)
        except BackboneError as error:
            return [_Reading(batch.parts, error, 0.0, 0.0)]
        encode_s = time.monotonic() - started
        ends = np.cumsum([len(rows) for _, rows in batch.parts])
        return [
            _read(reader, features, [(batch.parts[it], int(ends[it])) for it in places], encode_s)
            for reader, places in by_reader.items()
        ]

    def _take(self) -> _Batch | None:
        """The next batch, or None if nothing waits."""
        for lane in self._lanes():
            batch = self._take_from(lane)
            if batch.texts:
                return batch
        return None

    def _lanes(self) -> tuple[Lane, Lane]:
        if self._adapt_credit >= self._limits.budget:
            return (Lane.ADAPT, Lane.PREDICT)
        return (Lane.PREDICT, Lane.ADAPT)

    def _take_from(self, lane: Lane) -> _Batch:
        queue = self._queues[lane]
        # A worker's share of the queue, so that the others do not starve.
        share = math.ceil(queue.tokens / self._limits.workers)
        batch = _Batch([], [], lane, 0)
        longest = 0
        now = time.monotonic()
        while queue.works:
            work = queue.works[0]
            if work.future.done() or work.deadline < now:
                self._drop(queue)
                continue
            part: list[int] = []
            batch.parts.append((work, part))
            while work.cursor < len(work.order):
                row = work.order[work.cursor]
                text = work.texts[row]
                longest = max(longest, len(text))
                price = cost(len(batch.texts) + 1, batch.tokens + len(text), longest, self._dimension)
                if batch.texts and (price > self._limits.budget or batch.tokens + len(text) > share):
                    if not part:
                        batch.parts.pop()
                    return batch
                batch.texts.append(text)
                part.append(row)
                batch.tokens += len(text)
                queue.tokens -= len(text)
                work.cursor += 1
            queue.works.popleft()
        return batch

    def _drop(self, queue: _Queue) -> None:
        work = queue.works.popleft()
        queue.tokens -= sum(len(work.texts[row]) for row in work.order[work.cursor :])
        _fail(work, DeadlineError())

    def _account(self, batch: _Batch, seconds: float) -> None:
        rate = batch.tokens * self._limits.workers / max(seconds, 1e-6)
        self._drain_rate = _DRAIN_MEMORY * self._drain_rate + (1 - _DRAIN_MEMORY) * rate
        if batch.lane is Lane.ADAPT:
            self._adapt_credit = max(0.0, self._adapt_credit - batch.tokens)
        elif self._queues[Lane.ADAPT].works:
            self._adapt_credit += batch.tokens * ADAPT_SHARE / (1 - ADAPT_SHARE)


def _fail(work: _Work, error: Exception) -> None:
    if not work.future.done():
        work.future.set_exception(error)


def _read(reader: Reader, features: Features, parts: list[tuple[_Part, int]], encode_s: float) -> _Reading:
    """Lets a reader read its rows. A part's rows are those of the batch that end before its number."""
    started = time.monotonic()
    mine = [part for part, _ in parts]
    try:
        if len(parts) == 1:
            (_, rows), end = parts[0]
            arrays = reader({view: array[end - len(rows) : end] for view, array in features.items()})
        else:
            places = np.concatenate([np.arange(end - len(rows), end) for (_, rows), end in parts])
            arrays = reader({view: array[places] for view, array in features.items()})
    except Exception as error:  # noqa: BLE001 - raised to whoever waits for these rows, and to nobody else
        return _Reading(mine, error, encode_s, time.monotonic() - started)
    return _Reading(mine, arrays, encode_s, time.monotonic() - started)


def _deliver(reading: _Reading) -> None:
    start = 0
    for work, rows in reading.parts:
        if isinstance(reading.result, Exception):
            _fail(work, reading.result)
            continue
        end = start + len(rows)
        work.encode_s += reading.encode_s
        work.read_s += reading.read_s
        _receive(work, rows, {name: array[start:end] for name, array in reading.result.items()})
        start = end


def _receive(work: _Work, rows: list[int], arrays: Arrays) -> None:
    work.remaining -= len(rows)
    if len(rows) == len(work.texts) == 1:
        work.arrays = dict(arrays)
    else:
        for name, array in arrays.items():
            if name not in work.arrays:
                work.arrays[name] = np.empty((len(work.texts), *array.shape[1:]), array.dtype)
            work.arrays[name][rows] = array
    if work.remaining == 0 and not work.future.done():
        work.future.set_result(Encoded(work.arrays, work.queue_s, work.encode_s, work.read_s))
