"""Incoming examples: from a writer's stream to durable segments, and on to features.

The disk is its own batching window, like the encoder: the changes that arrive while one segment is written are the
next segment. Features follow later; a writer waits only when too much is in memory, see `intake`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.intake.incoming import Incoming
from graft_server.domain.caller import Caller
from graft_server.domain.errors import ConflictError
from graft_server.domain.examples import Change, Rejection
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.memory import Share
from graft_server.store.adaptations.segments import Record, Segment, WriterLog

MAX_RECORDS = 1_024
"""The most records of a segment: its features are in memory at once (some KB a record), its rejections are one event,
and the interim head learns it when all of it is encoded."""


async def readable(
    trunk: Trunk, changes: Sequence[Incoming], writer_id: str, first: int, caller: Caller
) -> list[Incoming]:
    """Returns the changes, with rejections for inputs that the backbone cannot read.

    Args:
        trunk: The backbone.
        changes: Changes that passed all other checks.
        writer_id: The sender.
        first: The sequence number of the first.
        caller: Whose changes they are.
    """
    examples = {
        place: change.result.upsert
        for place, change in enumerate(changes)
        if isinstance(change.result, Change) and change.result.upsert
    }
    inputs = {place: it.input for place, it in examples.items()}
    subjects = {place: it.subject for place, it in examples.items()}
    found = await trunk.unreadable(list(inputs.values()), caller)
    admitted = list(changes)
    for (place, value), error in zip(inputs.items(), found, strict=True):
        if error is not None:
            field = f"upsert.input.{value.kind}"
            rejection = Rejection(first + place, error.reason, field, error.message, writer_id)
            admitted[place] = replace(changes[place], result=rejection, subject=subjects[place])
    return admitted


class Matches(Protocol):
    """Says which examples of its base the changes of an adaptation are."""

    def records(self, changes: Sequence[Incoming]) -> list[Record]:
        """Returns the records of changes that come next in their writer's stream."""

    def forget(self) -> None:
        """Counts out what was not stored."""


class WriterStream:
    """Writes one writer's changes in order, many at a time."""

    def __init__(
        self,
        log: WriterLog,
        feature_writer: FeatureWriter,
        share: Share,
        on_durable: Callable[[Segment], None],
        on_failure: Callable[[Exception], None],
        *,
        matches: Matches | None = None,
    ) -> None:
        """Starts writing.

        Args:
            log: The writer's segments.
            feature_writer: Computes features later.
            share: Room for changes that wait for the disk and the encoder.
            on_durable: Called with each segment once it is durable.
            on_failure: Called when a segment could not be stored: nothing is written after that. The client may
                be waiting for its acknowledgement, and send no message that could raise the error.
            matches: Finds the examples of the base that changes are; None: there are none to find.
        """
        self._log = log
        self._feature_writer = feature_writer
        self._share = share
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._matches = matches
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

    @property
    def busy(self) -> bool:
        """Whether changes that were taken in are not durable yet."""
        return not self._idle.is_set()

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
        self._pending.extend(changes)  # counted in, so that `close` counts out changes that are never written
        self._raise()
        self._idle.clear()
        self._wakeup.set()

    async def flush(self) -> None:
        """Returns when all changes taken in are durable.

        Raises:
            StoreError: It could not be stored.
            ConflictError: A newer call of the same writer was faster.
        """
        await self._idle.wait()
        self._raise()

    async def close(self) -> None:
        """Ends the stream. Changes being written become durable; waiting ones count as not received."""
        dropped, self._pending = self._pending, []
        self._closing = True
        self._wakeup.set()
        # A write cannot be undone, and the next stream of this writer must find it done.
        await asyncio.shield(self._task)
        failed, self._writing = self._writing, []
        self._share.give_back(_size((*failed, *dropped)))

    async def _repeated(self, first_sequence: int, changes: Sequence[Incoming]) -> int:
        digests = [change.digest for change in changes]
        try:
            return self._log.repeated(first_sequence, digests)
        except ConflictError:
            # Another server may have erased a record that differs.
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
                except Exception as error:  # noqa: BLE001 - passed on to the stream's owner
                    self._error = error
                    self._idle.set()
                    self._on_failure(error)
                    return
            self._idle.set()

    async def _write_segment(self) -> None:
        segment = await asyncio.to_thread(self._append, self._writing)
        size, self._writing = _size(self._writing), []
        self._feature_writer.follow(segment, on_done=lambda: self._share.give_back(size))
        self._on_durable(segment)

    def _append(self, changes: Sequence[Incoming]) -> Segment:
        if self._matches is None:
            return self._log.append([change.record for change in changes])
        try:
            return self._log.append(self._matches.records(changes))
        except BaseException:
            self._matches.forget()
            raise


def _size(changes: Iterable[Incoming]) -> int:
    return sum(change.size for change in changes)
