"""The batcher: whatever arrives while the device is busy is the next batch.

There is no timer to tune. A worker that becomes free takes its share of what is queued, up to the budget: under
low load that is one item at once, under high load a full batch: the oldest item, and of those behind it the ones
nearest to it in length, since attention pads a batch to its longest. An item is a text's token ids, or an image or a
clip; what it counts for is its length.

Work of two lanes is queued: predictions go first, and adaptation's embedding work is guaranteed a share of the device.
A batch that runs is not called back, so whoever comes next waits for its end: while predictions come in, adaptation's
batches are short, and one worker is kept free of them.

Rows of different models ride in one batch. Behind the encoder, on the same thread, each row meets its own reader
(the head of its model): rows that share one are read together. Rows of models with tuned layers part from the
others where those layers begin.

Everything but encoding and reading happens on the event loop, so there are no locks. A work whose future is done
(its caller left, or another part of it failed) or whose deadline has passed is dropped when its turn comes,
before it costs anything; its batch-mates are not touched. A worker that dies, which only a mistake in here can
bring about, fails what is unanswered and is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import DeadlineError, DrainingError, FaultError, OverloadError
from graft_server.encoding.encoder import Features
from graft_server.encoding.tuned_layers import TunedLayers

_log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]


Reader = Callable[[Features], Arrays]
"""What becomes of the features of n rows: arrays by name, each of shape (n, ...)."""


class Encodes(Protocol):
    """What the batcher needs of an encoder."""

    def encode(self, items: Sequence[Sized]) -> Features:
        """See `Encoder.encode`."""

    def encode_with(
        self, items: Sequence[Sized], rows_of: Mapping[TunedLayers | None, NDArray[np.int64]]
    ) -> Mapping[TunedLayers | None, Features]:
        """See `SplitEncoder.encode_with`."""


Price = Callable[[int, int, int], float]
"""See `backbones.preprocessing.Preprocessor.price`."""


class Lane(enum.Enum):
    """Who waits for the features."""

    PREDICT = 0
    ADAPT = 1


ADAPT_SHARE = 1 / 8
"""The part of the device's time that adaptation gets while predictions queue."""

BRIEF = 1 / 4
"""How large adaptation's batches may be while predictions come in, as a part of the budget: one of 3 sentences takes a
third of the time of one of 12, and costs a sixth of the throughput. In a simulation of two workers at half load (times
of batches as measured), the slowest hundredth of predictions waits 3.1 times as long as without adaptation beside whole
batches, 1.3 times beside short ones, and 1.2 times where one worker is kept free besides."""
BRIEF_S = 5.0
"""How long after a prediction they are so small."""
FREE_S = 0.5
"""How long after a prediction one worker is kept free of adaptation."""

LOOKAHEAD = 4
"""How many batches' worth of the queue a batch is chosen from: on single sentences, with 40 of them queued, that is
worth 6% of the throughput over taking them as they came, as much as sorting all of them by length."""

_NICE = 5
"""How much the encoder's threads yield to the event loop, which needs little and needs it soon."""
_DRAIN_MEMORY = 0.9
"""How much of the drain rate's estimate is kept at each batch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work may be queued or run at once."""

    budget: float
    """The cost of a batch, in the unit of its items' length; see `Price`."""
    workers: int
    """Batches that run at the same time."""
    queued_length: int = 400_000
    """Predictions beyond this length of all queued items are refused."""
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
    """The encoder's time for the batches that the items rode in, in seconds."""
    read_s: float
    """The reader's time for those batches, in seconds."""


def unread(features: Features) -> Arrays:
    """The reader that leaves features as they are."""
    return features


@dataclass(slots=True, eq=False)
class _Work:
    """One submission: its items ride in one batch or in several."""

    items: Sequence[Sized]
    reader: Reader
    future: asyncio.Future[Encoded]
    deadline: float
    submitted: float
    queued: int
    """Items that wait."""
    remaining: int
    """Items that are not read yet."""
    tuned: TunedLayers | None = None
    queue_s: float = 0.0
    encode_s: float = 0.0
    read_s: float = 0.0
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


_Row = tuple[_Work, int]
"""An item that waits: which one of which work."""


@dataclass(slots=True, eq=False)
class _Queue:
    rows: deque[_Row] = field(default_factory=deque)
    length: int = 0
    requests: int = 0

    def put(self, work: _Work) -> None:
        """Queues all items of a work, by length: batch-mates of one length waste nothing on attention's padding."""
        order: Iterable[int] = range(len(work.items))
        if len(work.items) > 2:
            order = sorted(order, key=lambda row: len(work.items[row]))
        self.rows.extend((work, row) for row in order)
        self.length += sum(map(len, work.items))
        self.requests += 1

    def left(self, row: _Row) -> None:
        """Accounts for a row that was taken out for good."""
        work, place = row
        self.length -= len(work.items[place])
        work.queued -= 1
        if work.queued == 0:
            self.requests -= 1


_Part = tuple[_Work, list[int]]
"""Items of one work in a batch."""
_Group = tuple[Reader, list[_Part]]
"""The parts of a batch that have the same reader; they are next to each other."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What became of a group."""

    parts: list[_Part]
    result: Arrays | Exception
    encode_s: float
    read_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    groups: list[_Group]
    lane: Lane
    length: int

    def parts(self) -> Iterator[_Part]:
        """All parts, in the order of the batch's rows."""
        return (part for _, parts in self.groups for part in parts)


class Batcher:
    """Owns the queue in front of one encoder, and the threads that run it."""

    def __init__(self, encoder: Encodes, limits: Limits, price: Price) -> None:
        self._encoder = encoder
        self._limits = limits
        self._price = price
        self._queues = {lane: _Queue() for lane in Lane}
        self._adapt_credit = 0.0
        self._adapt_batches = 0
        self._last_prediction = -math.inf
        self._drain_rate = 0.0
        self._wakeup = asyncio.Event()
        self._executor = ThreadPoolExecutor(
            limits.workers, thread_name_prefix="encoder", initializer=_yield_to_others
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: set[_Work] = set()
        self._closed = False

    async def start(self) -> None:
        """Starts the workers."""
        for _ in range(self._limits.workers):
            self._start_worker()

    async def close(self) -> None:
        """Ends the workers, waiting for what they encode; all that is unanswered fails."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._fail_all(DrainingError)
        await asyncio.gather(*tasks, return_exceptions=True)
        # On another thread: the event loop goes on while the last batches are encoded.
        await asyncio.to_thread(self._executor.shutdown)

    @property
    def queued_length(self) -> int:
        """The length of all predictions' items that wait."""
        return self._queues[Lane.PREDICT].length

    async def encode(
        self,
        items: Sequence[Sized],
        *,
        reader: Reader = unread,
        tuned: TunedLayers | None = None,
        lane: Lane = Lane.PREDICT,
        deadline: float = math.inf,
    ) -> Encoded:
        """Gives what a reader makes of the features of n >= 1 prepared items.

        Args:
            items: What the encoder takes; see `backbones.preprocessing.Prepared.item`.
            tuned: The tuned layers that they go through; None: the frozen ones.
            reader: Called on the encoder's thread, for all rows of a batch that have the same reader.
            lane: Who waits for them.
            deadline: On the clock of time.monotonic(): items that have not been encoded by then never are.

        Raises:
            OverloadError: Too much is queued already.
            DeadlineError: The deadline passed first.
            DrainingError: The batcher is closed.
            BackboneError: The encoder failed.
            Exception: What the reader raised.
        """
        if self._closed:
            raise DrainingError
        if lane is Lane.PREDICT:
            self.require_room()
            self._last_prediction = time.monotonic()
        work = _Work(
            items=items,
            reader=reader,
            future=asyncio.get_running_loop().create_future(),
            deadline=deadline,
            submitted=time.monotonic(),
            queued=len(items),
            tuned=tuned,
            remaining=len(items),
        )
        self._queues[lane].put(work)
        self._wakeup.set()
        self._unanswered.add(work)
        try:
            return await work.future
        finally:
            self._unanswered.discard(work)

    def require_room(self) -> None:
        """Raises OverloadError if too many predictions are queued: worth asking before work is put into one."""
        limits, queue = self._limits, self._queues[Lane.PREDICT]
        if queue.length < limits.queued_length and queue.requests < limits.queued_requests:
            return
        drain_s = queue.length / self._drain_rate if self._drain_rate else 1.0
        # In round numbers: whoever turns many refusals into answers can do so once for all that are alike.
        drain_s = float(f"{min(max(drain_s, 0.05), 30.0):.1g}")
        raise OverloadError(
            f"The server has as many requests queued as it accepts, about {drain_s:g} s of work: try again after "
            "that, or add servers.",
            reason="QUEUE_FULL",
            retry_after_s=drain_s,
        )

    def _start_worker(self) -> None:
        task = asyncio.create_task(self._work(), name="encoder")
        self._tasks.add(task)
        task.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._closed:
            return
        _log.error("a worker of the batcher died and is replaced", exc_info=task.exception())
        self._fail_all(
            lambda: FaultError("Something failed here; the server's log has the details.", reason="INTERNAL")
        )
        self._start_worker()

    def _fail_all(self, error: Callable[[], Exception]) -> None:
        for queue in self._queues.values():
            queue.rows.clear()
            queue.length = queue.requests = 0
        for work in self._unanswered:
            _fail(work, error())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._take()
            if batch is None:
                await self._wait()
                continue
            started = time.monotonic()
            for work, _ in batch.parts():
                work.queue_s = work.queue_s or started - work.submitted
            adapting = batch.lane is Lane.ADAPT
            self._adapt_batches += adapting
            try:
                readings = await loop.run_in_executor(self._executor, self._encode_and_read, batch)
            finally:
                self._adapt_batches -= adapting
            self._account(batch, time.monotonic() - started)
            for reading in readings:
                _deliver(reading)

    async def _wait(self) -> None:
        """Waits for work, or until this worker is not kept free any more."""
        self._wakeup.clear()
        kept_free_s = None
        if self._queues[Lane.ADAPT].rows:
            kept_free_s = max(0.0, self._last_prediction + FREE_S - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(kept_free_s):
                await self._wakeup.wait()

    def _encode_and_read(self, batch: _Batch) -> list[_Reading]:
        """Runs on a thread; never raises."""
        started = time.monotonic()
        try:
            features = self._features(batch)
        except Exception as error:  # noqa: BLE001 - raised to whoever waits for these rows
            return [_Reading(list(batch.parts()), error, 0.0, 0.0)]
        encode_s = time.monotonic() - started
        readings = []
        start = 0
        for reader, parts in batch.groups:
            end = start + sum(len(rows) for _, rows in parts)
            mine = {view: array[start:end] for view, array in features[parts[0][0].tuned].items()}
            readings.append(_read(reader, mine, parts, encode_s))
            start = end
        return readings

    def _features(self, batch: _Batch) -> Mapping[TunedLayers | None, Features]:
        """The features that the readers of each model read, of the whole batch."""
        items = [work.items[row] for work, rows in batch.parts() for row in rows]
        rows_of: dict[TunedLayers | None, list[int]] = {}
        start = 0
        for _, parts in batch.groups:
            end = start + sum(len(rows) for _, rows in parts)
            # A reader is of one model, so the works of a group have the same layers.
            rows_of.setdefault(parts[0][0].tuned, []).extend(range(start, end))
            start = end
        if rows_of.keys() == {None}:
            return {None: self._encoder.encode(items)}
        return self._encoder.encode_with(items, {tuned: np.array(rows) for tuned, rows in rows_of.items()})

    def _take(self) -> _Batch | None:
        """The next batch, or None if nothing waits."""
        for lane in self._lanes():
            batch = self._take_from(lane, self._budget(lane))
            if batch is not None:
                return batch
        return None

    def _budget(self, lane: Lane) -> float:
        """What the next batch of a lane may cost; 0: it has to wait."""
        since_s = time.monotonic() - self._last_prediction
        if lane is Lane.PREDICT or since_s > BRIEF_S:
            return self._limits.budget
        most = max(1, self._limits.workers - 1)
        if since_s < FREE_S and self._adapt_batches >= most:
            return 0.0
        return BRIEF * self._limits.budget

    def _lanes(self) -> tuple[Lane, Lane]:
        if self._adapt_credit >= self._limits.budget:
            return (Lane.ADAPT, Lane.PREDICT)
        return (Lane.PREDICT, Lane.ADAPT)

    def _take_from(self, lane: Lane, budget: float) -> _Batch | None:
        queue = self._queues[lane]
        if not budget:
            return None
        # A worker's share of the queue, so that the others do not starve.
        share = math.ceil(queue.length / self._limits.workers)
        waiting = self._oldest(queue)
        if not waiting:
            return None
        first = _length(waiting[0])
        total = longest = first
        picked = {0}
        for place in sorted(range(1, len(waiting)), key=lambda place: abs(_length(waiting[place]) - first)):
            length = _length(waiting[place])
            together = self._price(len(picked) + 1, total + length, max(longest, length))
            if together <= budget and total + length <= share:
                picked.add(place)
                total += length
                longest = max(longest, length)
        queue.rows.extendleft(row for place, row in reversed([*enumerate(waiting)]) if place not in picked)
        taken = [waiting[place] for place in sorted(picked)]
        for row in taken:
            queue.left(row)
        return _Batch(_grouped(taken), lane, total)

    def _oldest(self, queue: _Queue) -> list[_Row]:
        """Takes out the rows that the next batch is chosen from, and drops those that nobody waits for."""
        now = time.monotonic()
        waiting: list[_Row] = []
        total = 0
        while queue.rows and total < LOOKAHEAD * self._limits.budget:
            row = queue.rows.popleft()
            work, _ = row
            if work.deadline < now:
                _fail(work, DeadlineError())
            if work.future.done():
                queue.left(row)
                continue
            waiting.append(row)
            total += _length(row)
        return waiting

    def _account(self, batch: _Batch, seconds: float) -> None:
        rate = batch.length * self._limits.workers / max(seconds, 1e-6)
        self._drain_rate = _DRAIN_MEMORY * self._drain_rate + (1 - _DRAIN_MEMORY) * rate
        if batch.lane is Lane.ADAPT:
            self._adapt_credit = max(0.0, self._adapt_credit - batch.length)
        elif self._queues[Lane.ADAPT].rows:
            self._adapt_credit += batch.length * ADAPT_SHARE / (1 - ADAPT_SHARE)


def _fail(work: _Work, error: Exception) -> None:
    if not work.future.done():
        work.future.set_exception(error)


def _yield_to_others() -> None:
    """Lowers the priority of the thread that calls, where the system has priorities of threads."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _length(row: _Row) -> int:
    work, place = row
    return len(work.items[place])


def _grouped(rows: Sequence[_Row]) -> list[_Group]:
    groups: dict[Reader, dict[_Work, list[int]]] = {}
    for work, place in rows:
        groups.setdefault(work.reader, {}).setdefault(work, []).append(place)
    return [(reader, list(parts.items())) for reader, parts in groups.items()]


def _read(reader: Reader, features: Features, parts: list[_Part], encode_s: float) -> _Reading:
    """Lets a reader read its rows."""
    started = time.monotonic()
    result: Arrays | Exception
    try:
        result = reader(features)
    except Exception as error:  # noqa: BLE001 - raised to whoever waits for these rows, and to nobody else
        result = error
    return _Reading(parts, result, encode_s, time.monotonic() - started)


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
    if len(rows) == len(work.items) == 1:
        work.arrays = dict(arrays)
    else:
        for name, array in arrays.items():
            if name not in work.arrays:
                work.arrays[name] = np.empty((len(work.items), *array.shape[1:]), array.dtype)
            work.arrays[name][rows] = array
    if work.remaining == 0 and not work.future.done():
        work.future.set_result(Encoded(work.arrays, work.queue_s, work.encode_s, work.read_s))
