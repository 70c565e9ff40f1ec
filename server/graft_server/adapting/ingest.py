"""Examples on their way in: from a writer's stream to durable segments, and from those to features.

The disk is its own batching window, as the encoder is: whatever arrives while one segment is written is the
next segment. Features follow behind; a writer waits only when too much is in memory, see `intake`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graft_server.domain.errors import BackboneError, ConflictError, InvalidError, StoreError
from graft_server.domain.examples import Change, Input, Rejection
from graft_server.encoding.batcher import Lane
from graft_server.encoding.trunk import POOLED, Trunk
from graft_server.sharing.memory import Share
from graft_server.store.adaptations.features import Features
from graft_server.store.adaptations.segments import Record, Segment, WriterLog
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)

RECORD_BYTES = 600
"""What a change takes in memory besides its input."""

MAX_RECORDS = 1_024
"""Of a segment: its features are in memory at once (some KB a record), its rejections are one event, and the interim
head learns of it when all of it is encoded."""

STORED_TYPE = "float16"

OnFeatures = Callable[[Segment, Features], None]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A change as a client sent it, checked."""

    digest: int
    """`store.segments.content_digest` of what was sent."""
    result: Change | Rejection
    subject: str = ""
    """Whose data it is, also where it was refused."""

    @property
    def record(self) -> Record:
        """What is stored of it."""
        if isinstance(self.result, Rejection):
            return Record(self.digest, rejection=self.result, subject=self.subject)
        return Record(self.digest, change=self.result)

    @property
    def size(self) -> int:
        """What it weighs while it waits for the disk and the encoder, in bytes."""
        if isinstance(self.result, Change) and self.result.upsert:
            return self.result.upsert.input.size + RECORD_BYTES
        return RECORD_BYTES


async def readable(trunk: Trunk, changes: Sequence[Incoming], writer_id: str, first: int) -> list[Incoming]:
    """The changes; those whose input the backbone cannot read have become rejections.

    Args:
        trunk: The backbone.
        changes: Checked otherwise.
        writer_id: Who sent them.
        first: The sequence number of the first.
    """
    inputs = {
        place: change.result.upsert.input
        for place, change in enumerate(changes)
        if isinstance(change.result, Change) and change.result.upsert
    }
    found = await trunk.unreadable(list(inputs.values()))
    admitted = list(changes)
    for (place, value), error in zip(inputs.items(), found, strict=True):
        if error is not None:
            field = f"upsert.input.{value.kind}"
            rejection = Rejection(first + place, error.reason, field, error.message, writer_id)
            admitted[place] = Incoming(changes[place].digest, rejection)
    return admitted


class Embedder:
    """Computes the features of one adaptation's segments, behind the stream."""

    def __init__(
        self, store: AdaptationStore, trunk: Trunk, on_features: OnFeatures = lambda _segment, _features: None
    ) -> None:
        """Computes with the trunk, for `store`; `on_features` is told of segments whose features are stored."""
        self._store = store
        self._trunk = trunk
        self._on_features = on_features
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether features are being computed."""
        return bool(self._tasks)

    def follow(self, segment: Segment, on_done: Callable[[], None]) -> None:
        """Computes the segment's features in the background; `on_done` is told of its end, however it ends."""
        task = asyncio.create_task(self._follow(segment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: on_done())

    async def complete(self, on_progress: Callable[[int, int], None]) -> None:
        """Returns when every segment has its features, computing those that were lost.

        Args:
            on_progress: Told how many segments are done, of how many.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        missing = await asyncio.to_thread(self._store.missing_features, self._trunk.encoder_id)
        for done, (writer_id, ordinal) in enumerate(missing):
            on_progress(done, len(missing))
            segment = await asyncio.to_thread(self._store.segment, writer_id, ordinal)
            await self._embed(segment)

    async def close(self) -> None:
        """Gives up what has not been computed; it is computed when it is needed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, segment: Segment) -> None:
        try:
            await self._embed(segment)
        except (BackboneError, StoreError) as error:
            # Features are derived: `complete` computes them when they are needed, and fails if it must.
            _log.warning("features of a segment were not stored: %s", error.message)

    async def _embed(self, segment: Segment) -> None:
        upserts = segment.upserts
        features: Features = {}
        if upserts:
            inputs = [example.input for example in upserts]
            key = f"{self._store.model}/{self._store.adaptation_id}"
            parts = await self._trunk.in_turns(key, inputs, self._features)
            back = np.argsort([place for places, _ in parts for place in places])
            joined = _joined([part for _, part in parts])
            features = {view: array[back] for view, array in joined.items()}
        counts = await asyncio.to_thread(
            self._store.write_features, segment, self._trunk.encoder_id, features
        )
        if counts:
            self._on_features(segment, features)

    async def _features(self, inputs: Sequence[Input]) -> Features:
        """Features of n >= 1 inputs. A row that cannot be prepared, though it was once, is NaN: no head reads it."""
        prepared = await self._trunk.prepare_all(inputs)
        good = [row for row, it in enumerate(prepared) if not isinstance(it, InvalidError)]
        if not good:
            shape = (len(inputs), self._trunk.backbone.dimension)
            return {POOLED: np.full(shape, np.nan, STORED_TYPE)}
        encoded = await self._trunk.encode(
            [it for it in prepared if not isinstance(it, InvalidError)], lane=Lane.ADAPT
        )
        features = {view: array.astype(STORED_TYPE) for view, array in encoded.arrays.items()}
        return features if len(good) == len(inputs) else _spread(features, good, len(inputs))


def _joined(parts: Sequence[Features]) -> Features:
    """The rows of all parts; NaN where a part lacks a view, because nothing of it could be prepared."""
    if len(parts) == 1:
        return parts[0]
    counts = [len(next(iter(part.values()))) for part in parts]
    widths = {view: array.shape[1] for part in parts for view, array in part.items()}
    return {
        view: np.concatenate(
            [
                part.get(view, np.full((count, width), np.nan, STORED_TYPE))
                for part, count in zip(parts, counts, strict=True)
            ]
        )
        for view, width in widths.items()
    }


def _spread(features: Features, rows: Sequence[int], count: int) -> Features:
    """Features of `count` rows: those given at `rows`, NaN elsewhere."""
    spread = {view: np.full((count, array.shape[1]), np.nan, STORED_TYPE) for view, array in features.items()}
    for view, array in features.items():
        spread[view][list(rows)] = array
    return spread


class WriterStream:
    """Writes one writer's changes in order, many at a time."""

    def __init__(
        self,
        log: WriterLog,
        embedder: Embedder,
        share: Share,
        on_durable: Callable[[Segment], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Starts writing.

        Args:
            log: The writer's segments.
            embedder: Computes features behind.
            share: Room for what waits for the disk and the encoder.
            on_durable: Told of each segment once it is durable.
            on_failure: Told when a segment could not be stored: nothing is written after that. The client may
                be waiting for its acknowledgement, and send nothing that the error could be raised to.
        """
        self._log = log
        self._embedder = embedder
        self._share = share
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._pending: list[Incoming] = []
        self._writing: list[Incoming] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._wakeup = asyncio.Event()
        self._error: Exception | None = None
        self._closing = False
        self._task = asyncio.create_task(self._write())

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next new change must have."""
        return self._log.next_sequence + len(self._writing) + len(self._pending)

    async def put(self, first_sequence: int, changes: Sequence[Incoming]) -> None:
        """Takes changes in; returns when there is room for more.

        Raises:
            ConflictError: A gap, a repeat with other content, or a newer call of the same writer.
            StoreError: Earlier changes could not be stored.
        """
        self._raise()
        if first_sequence != self.next_sequence:
            await self.flush()
            changes = changes[await self._repeated(first_sequence, changes) :]
        if not changes:
            return
        await self._share.take(_size(changes))
        self._pending.extend(changes)  # counted in, so that `close` counts out what is never written
        self._raise()
        self._idle.clear()
        self._wakeup.set()

    async def flush(self) -> None:
        """Returns when everything taken in is durable.

        Raises:
            StoreError: It could not be stored.
            ConflictError: A newer call of the same writer was faster.
        """
        await self._idle.wait()
        self._raise()

    async def close(self) -> None:
        """Ends the stream. What is being written becomes durable; what waited is as if it had not arrived."""
        dropped, self._pending = self._pending, []
        self._closing = True
        self._wakeup.set()
        # A write cannot be called back, and the next stream of this writer must find it done.
        await asyncio.shield(self._task)
        failed, self._writing = self._writing, []
        self._share.give_back(_size((*failed, *dropped)))

    async def _repeated(self, first_sequence: int, changes: Sequence[Incoming]) -> int:
        digests = [change.digest for change in changes]
        try:
            return self._log.repeated(first_sequence, digests)
        except ConflictError:
            # What differs may have been erased by another server.
            await asyncio.to_thread(lambda: list(self._log.load()))
            return self._log.repeated(first_sequence, digests)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    async def _write(self) -> None:
        while not self._closing:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._pending:
                self._writing, self._pending = self._pending[:MAX_RECORDS], self._pending[MAX_RECORDS:]
                try:
                    await self._write_segment()
                except Exception as error:  # noqa: BLE001 - told and raised to the stream's owner
                    self._error = error
                    self._idle.set()
                    self._on_failure(error)
                    return
            self._idle.set()

    async def _write_segment(self) -> None:
        records = [change.record for change in self._writing]
        segment = await asyncio.to_thread(self._log.append, records)
        size, self._writing = _size(self._writing), []
        self._embedder.follow(segment, on_done=lambda: self._share.give_back(size))
        self._on_durable(segment)


def _size(changes: Iterable[Incoming]) -> int:
    return sum(change.size for change in changes)
