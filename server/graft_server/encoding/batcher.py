"""The batcher: owns the queue in front of one encoder, and the threads that run it; `queueing` decides what they run.

There is no timer to tune: the items that arrive while the device is busy are the next batch.

Rows of different models share a batch. After the encoder, on the same thread, each row goes to its own reader
(the head of its model): rows with the same reader are read together. Rows of models with tuned layers leave the
others where those layers begin.

Everything but encoding and reading happens on the event loop, so there are no locks. A worker that dies, which only a
bug in this module can cause, fails the unanswered submissions and is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.caller import NOBODY, Caller
from graft_server.domain.errors import DeadlineError, DrainingError, FaultError, InvalidError, OverloadError
from graft_server.encoding.encoder import Features
from graft_server.encoding.fair_queue import Arrays, Reader, Submission
from graft_server.encoding.isolating import AT_FAULT, Suspects, isolated, no_room
from graft_server.encoding.queueing import (
    Batch,
    Lane,
    Limits,
    Part,
    Price,
    Queues,
    admission,
    idle_s,
    next_batch,
    queue_full,
)
from graft_server.encoding.tuned_layers import TunedLayers
from graft_server.encoding.windows import Windows

_log = logging.getLogger(__name__)

_NICE = 5
"""The niceness of the encoder's threads: the event loop needs little time, but needs it soon."""


class Encodes(Protocol):
    """The interface of an encoder that the batcher needs."""

    def encode(self, items: Sequence[Sized]) -> Features:
        """See `Encoder.encode`."""

    def encode_with(
        self, items: Sequence[Sized], rows_of: Mapping[TunedLayers | None, NDArray[np.int64]]
    ) -> Mapping[TunedLayers | None, Features]:
        """See `SplitEncoder.encode_with`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The answer to one submission, and the time it took."""

    arrays: Arrays
    """The reader's arrays, or the features by view; rows in the order of the submission."""
    queue_s: float
    """The time from submission to the start of the first batch, in seconds."""
    encode_s: float
    """The encoder's time for the batches that had the items, in seconds."""
    read_s: float
    """The reader's time for those batches, in seconds."""
    faults: Mapping[int, InvalidError] = field(default_factory=dict)
    """The errors of the rows on which the encoder fails, by their places; their rows of `arrays` say nothing. Where all
    rows are at fault there are no arrays."""


def unread(features: Features) -> Arrays:
    """The reader that leaves features as they are."""
    return features


@dataclass(slots=True, eq=False)
class _Answer:
    """The answer to a submission in the making: it is assembled from the batches that have the items."""

    future: asyncio.Future[Encoded]
    submitted: float
    count: int
    """The number of items in the submission."""
    remaining: int
    """The number of items not read yet."""
    caller: Caller = NOBODY
    """Who waits for it; None: not known."""
    queue_s: float = 0.0
    encode_s: float = 0.0
    read_s: float = 0.0
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    faults: dict[int, InvalidError] = field(default_factory=dict)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def receive(self, rows: list[int], arrays: Arrays) -> None:
        self.remaining -= len(rows)
        if len(rows) == self.count == 1:
            self.arrays = dict(arrays)
        else:
            for name, array in arrays.items():
                if name not in self.arrays:
                    self.arrays[name] = np.empty((self.count, *array.shape[1:]), array.dtype)
                self.arrays[name][rows] = array
        self._end_if_done()

    def refuse(self, rows: list[int], error: InvalidError) -> None:
        """Notes rows that are at fault; the others are answered."""
        self.remaining -= len(rows)
        self.faults |= dict.fromkeys(rows, error)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.remaining or self.future.done():
            return
        for array in self.arrays.values() if self.faults else ():
            array[list(self.faults)] = 0  # nothing was ever written there
        self.future.set_result(Encoded(self.arrays, self.queue_s, self.encode_s, self.read_s, self.faults))


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A reader's result for its rows of a batch."""

    parts: list[Part]
    result: Arrays | Exception
    encode_s: float
    read_s: float


class Batcher:
    """Owns the queue in front of one encoder, and the threads that run it.

    Attributes:
        windows: How much of each caller's predictions is at work at once.
    """

    def __init__(
        self, encoder: Encodes, limits: Limits, price: Price, probe: Sized = np.ones(4, np.int64)
    ) -> None:
        """Makes it; it runs nothing yet.

        Args:
            encoder: What it runs.
            limits: How much it runs and queues at once.
            price: The cost of a batch.
            probe: An item that the encoder can read, to find out whether rows or the encoder are at fault.
        """
        self._encoder = encoder
        self._probe = probe
        self._suspects = Suspects(limits.budget)
        self._limits = limits
        self._price = price
        self._queues = Queues()
        self.windows = Windows(limits)
        self._wakeup = asyncio.Event()
        self._executor = ThreadPoolExecutor(
            limits.workers, thread_name_prefix="encoder", initializer=_yield_to_others
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: dict[Submission, _Answer] = {}
        """The answers that callers wait for."""
        self._closed = False

    async def start(self) -> None:
        """Starts the workers."""
        for _ in range(self._limits.workers):
            self._start_worker()

    async def close(self) -> None:
        """Ends the workers, waiting for their running batches; every unanswered submission fails."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._fail_all(DrainingError)
        await asyncio.gather(*tasks, return_exceptions=True)
        # On another thread: the event loop runs on while the last batches are encoded.
        await asyncio.to_thread(self._executor.shutdown)

    @property
    def queued_length(self) -> int:
        """The total length of waiting predictions' items."""
        return self._queues.lanes[Lane.PREDICT].length

    async def encode(
        self,
        items: Sequence[Sized],
        *,
        reader: Reader = unread,
        tuned: TunedLayers | None = None,
        lane: Lane = Lane.PREDICT,
        deadline: float = math.inf,
        caller: Caller = NOBODY,
        opens: bool = True,
    ) -> Encoded:
        """Returns a reader's result for the features of n >= 1 prepared items.

        An item on which the encoder fails has its error among the result's faults; the others are answered.

        Args:
            items: The encoder's items; see `backbones.preprocessing.Prepared.item`.
            tuned: The tuned layers that the items go through; None: the frozen ones.
            reader: Called on the encoder's thread, for all rows of a batch that have the same reader.
            lane: The kind of caller that waits for them.
            deadline: On the clock of time.monotonic(): items that are not encoded by then are dropped.
            caller: Who waits for them, in turns with others. The rows of a caller whose rows failed run apart.
            opens: Whether it is the first part of a request: other parts are not refused.

        Raises:
            OverloadError: Too much is queued already, or a caller that asks for far less came after it.
            DeadlineError: The deadline passed first.
            DrainingError: The batcher is closed.
            BackboneError: The encoder failed.
            Exception: The reader's own exception.
        """
        if self._closed:
            raise DrainingError
        if lane is Lane.PREDICT and opens:
            self._make_room(caller, sum(map(len, items)))
        now = time.monotonic()
        future: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        submission = Submission(items, reader, tuned, deadline, future.done, caller, opens)
        self._queues.put(submission, lane, now)
        self._wakeup.set()
        self._unanswered[submission] = _Answer(future, now, len(items), len(items), caller)
        try:
            return await future
        finally:
            del self._unanswered[submission]
            self._queues.withdraw(submission, lane)

    def require_room(self, caller: Caller, length: float) -> None:
        """Raises OverloadError if a request would be refused; call it before preparing one.

        Args:
            caller: Whose request it is.
            length: The length of its first part, as far as it is known.
        """
        self._admitted(caller, length)

    def _admitted(self, caller: Caller, length: float) -> Submission | None:
        """Returns what gives way to a request, if anything has to; raises OverloadError if the request is refused."""
        found = admission(self._queues, self._limits, caller, length)
        if isinstance(found, OverloadError):
            raise found
        return found

    def _make_room(self, caller: Caller, length: int) -> None:
        """Refuses what has to give way to a request; raises OverloadError if that is the request itself."""
        found = self._admitted(caller, length)
        if found is not None:
            answer = self._unanswered.get(found)
            if answer is not None:
                answer.fail(queue_full(self._queues))
            self._queues.withdraw(found, Lane.PREDICT)

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
        self._queues.clear()
        self._suspects.clear()
        for answer in self._unanswered.values():
            answer.fail(error())

    async def _work(self) -> None:
        while True:
            if (batch := self._suspects_batch(others_wait=True)) is not None:
                self._suspects.ran(await self._run(batch), time.monotonic())
            elif (batch := self._next_batch()) is not None:
                try:
                    seconds = await self._run(batch)
                finally:
                    self._queues.end(batch)
                self._queues.account(batch, seconds, self._limits.workers)
            elif (batch := self._suspects_batch(others_wait=False)) is not None:
                self._suspects.ran(await self._run(batch), time.monotonic())
            else:
                await self._wait()

    async def _run(self, batch: Batch) -> float:
        """Runs a batch and delivers what became of its rows; returns how long it ran, in seconds."""
        started = time.monotonic()
        self._note_start(batch, started)
        readings = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._encode_and_read, batch
        )
        took_s = time.monotonic() - started
        for reading in readings:
            self._deliver(reading)
        return took_s

    def _next_batch(self) -> Batch | None:
        """Takes the next batch from the queue; None: no waiting item may run now."""
        while True:
            now = time.monotonic()
            decision = next_batch(self._queues, self._limits, self._price, now)
            self._queues.begin(decision)
            self._fail(
                (submission for choice in decision.choices for submission in choice.expired), DeadlineError
            )
            if decision.batch is None:
                return None
            batch, known = self._suspects.known(decision.batch, now)
            for (submission, place), error in known:
                if (answer := self._unanswered.get(submission)) is not None:
                    answer.refuse([place], error)
            if batch is not None:
                batch, refused = self._suspects.taken(batch, now)
                self._fail(refused, no_room)
            if batch is not None:
                return batch
            self._queues.end(decision.batch)

    def _suspects_batch(self, *, others_wait: bool) -> Batch | None:
        """Takes the next batch of a caller whose rows failed; None: none waits, or others go first."""
        if not self._suspects.waiting:
            return None
        now = time.monotonic()
        self._fail(self._suspects.expired(now), DeadlineError)
        return self._suspects.next_batch(now, others_wait=others_wait)

    def _fail(self, submissions: Iterable[Submission], error: Callable[[], Exception]) -> None:
        for submission in submissions:
            answer = self._unanswered.get(submission)
            if answer is not None:
                answer.fail(error())

    def _note_start(self, batch: Batch, started: float) -> None:
        for submission, _ in batch.parts():
            answer = self._unanswered.get(submission)
            if answer is not None:
                answer.queue_s = answer.queue_s or started - answer.submitted

    async def _wait(self) -> None:
        """Waits for work, or until this worker is no longer kept free."""
        self._wakeup.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(idle_s(self._queues, time.monotonic())):
                await self._wakeup.wait()

    def _encode_and_read(self, batch: Batch) -> list[_Reading]:
        """Runs on a thread; never raises."""
        return isolated(batch, self._attempt, _failed, self._answers)

    def _answers(self, tuned: TunedLayers | None) -> bool:
        """Whether the encoder answers a probe, with these tuned layers. Runs on a thread."""
        try:
            if tuned is None:
                self._encoder.encode([self._probe])
            else:
                self._encoder.encode_with([self._probe], {tuned: np.zeros(1, np.int64)})
        except Exception as error:  # noqa: BLE001 - whatever it is, it does not answer
            _log.debug("the encoder does not answer: %r", error)
            return False
        return True

    def _attempt(self, batch: Batch) -> list[_Reading]:
        """Encodes a batch and has it read. Runs on a thread; raises whatever the encoder raises."""
        started = time.monotonic()
        features = self._features(batch)
        encode_s = time.monotonic() - started
        readings = []
        start = 0
        for reader, parts in batch.groups:
            end = start + sum(len(rows) for _, rows in parts)
            mine = {view: array[start:end] for view, array in features[parts[0][0].tuned].items()}
            readings.append(_read(reader, mine, parts, encode_s))
            start = end
        return readings

    def _features(self, batch: Batch) -> Mapping[TunedLayers | None, Features]:
        """Returns the whole batch's features for the readers of each model."""
        items = [submission.items[row] for submission, rows in batch.parts() for row in rows]
        rows_of: dict[TunedLayers | None, list[int]] = {}
        start = 0
        for _, parts in batch.groups:
            end = start + sum(len(rows) for _, rows in parts)
            # A reader belongs to one model, so the submissions of a group have the same layers.
            rows_of.setdefault(parts[0][0].tuned, []).extend(range(start, end))
            start = end
        if rows_of.keys() == {None}:
            return {None: self._encoder.encode(items)}
        return self._encoder.encode_with(items, {tuned: np.array(rows) for tuned, rows in rows_of.items()})

    def _deliver(self, reading: _Reading) -> None:
        """Delivers the rows of a reading; rows of callers who have left are dropped."""
        start = 0
        for submission, rows in reading.parts:
            end = start + len(rows)
            answer = self._unanswered.get(submission)
            if answer is not None:
                if isinstance(reading.result, InvalidError) and reading.result.reason == AT_FAULT:
                    now = time.monotonic()
                    self._suspects.note(answer.caller, now)
                    self._suspects.note_row((submission, rows[0]), reading.result, now)
                    answer.refuse(rows, reading.result)
                elif isinstance(reading.result, Exception):
                    answer.fail(reading.result)
                else:
                    answer.encode_s += reading.encode_s
                    answer.read_s += reading.read_s
                    answer.receive(rows, {name: array[start:end] for name, array in reading.result.items()})
            start = end


def _yield_to_others() -> None:
    """Lowers the priority of the thread that calls, where the system has priorities of threads."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _failed(batch: Batch, error: Exception) -> list[_Reading]:
    """Returns what becomes of rows that have an error."""
    return [_Reading(list(batch.parts()), error, 0.0, 0.0)]


def _read(reader: Reader, features: Features, parts: list[Part], encode_s: float) -> _Reading:
    """Lets a reader read its rows."""
    started = time.monotonic()
    result: Arrays | Exception
    try:
        result = reader(features)
    except Exception as error:  # noqa: BLE001 - raised to whoever waits for these rows, and to nobody else
        result = error
    return _Reading(parts, result, encode_s, time.monotonic() - started)
