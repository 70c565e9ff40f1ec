"""One call of Adapt, from its first change to its last answer; and watchers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.writer_stream import Matches, WriterStream
from graft_server.adapting.outbox import Outbox
from graft_server.domain.errors import ConflictError, IdleError
from graft_server.domain.extension import Extension
from graft_server.domain.names import shown
from graft_server.domain.stream import Committed, Message, Progress, Reconnect
from graft_server.sharing.memory import Share
from graft_server.store.adaptations.segments import Segment, WriterLog
from graft_server.store.adaptations.store import AdaptationStore

MOST_UNREAD_REJECTIONS = 4_096
"""The most unread rejections in memory (1 MB or so); more are left in the store until the caller has read these."""


@dataclass(frozen=True, slots=True)
class WriterPosition:
    """How far a writer is."""

    writer_id: str
    next_sequence: int


class Host(Protocol):
    """The interface of an adaptation that a call needs."""

    store: AdaptationStore

    @property
    def extends(self) -> Extension | None:
        """See `Adaptation.extends`."""

    def require_open(self) -> None:
        """See `Adaptation.require_open`."""

    async def commit(self, commit_id: str, own: WriterPosition, close: bool) -> WriterPosition:
        """See `Adaptation.commit`."""

    async def deliver_outcome(self, commit_id: str, outbox: Outbox) -> None:
        """See `Adaptation.deliver_outcome`."""

    def note(self, segment: Segment) -> None:
        """See `Adaptation.note`."""

    def leave(self, session: Session) -> None:
        """See `Adaptation.leave`."""


class Watcher:
    """A caller who waits for events.

    Attributes:
        changed: Set when there may be new events, or progress.
        progress: The newest progress that has not been read, or None.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.progress: Progress | None = None


class Session:
    """One call of Adapt.

    Attributes:
        writer_id: The writer's id.
        outbox: The messages waiting for the caller.
    """

    def __init__(
        self,
        adaptation: Host,
        log: WriterLog,
        feature_writer: FeatureWriter,
        share: Share,
        matches: Matches | None = None,
    ) -> None:
        self.writer_id = log.writer_id
        self.outbox = Outbox()
        self._adaptation = adaptation
        self._log = log
        self._stream = WriterStream(
            log, feature_writer, share, self._on_durable, self.outbox.fail, matches=matches
        )
        self._last_active = time.monotonic()
        self._open_commits: set[str] = set()
        self._half_closed = False
        self._durable_ordinals = 0
        self._untold: tuple[int, int] | None = None
        """The ordinal and sequence number from which rejections are read from the store: too many are unread."""

    @property
    def next_sequence(self) -> int:
        """Every change below this number is durable."""
        return self._log.next_sequence

    @property
    def extends(self) -> Extension | None:
        """See `Adaptation.extends`."""
        return self._adaptation.extends

    @property
    def idle_s(self) -> float:
        """How long neither its caller sent anything nor anything was done for it, in seconds; 0 while work goes on."""
        at_work = self._open_commits or self._stream.busy
        return 0.0 if at_work else time.monotonic() - self._last_active

    async def next_message(self) -> Message | None:
        """Returns the next message for the caller; None: there will be no more.

        Raises:
            Exception: The error that ends the call.
        """
        if self._untold is not None and not self.outbox.unread_rejections:
            await self._recall()
        return await self.outbox.get()

    async def put(self, first_sequence: int, changes: Sequence[Incoming]) -> None:
        """Takes changes in; see `WriterStream.put`. They are acknowledged through the outbox.

        Raises:
            StateError: The adaptation takes no more changes.
        """
        self._last_active = time.monotonic()
        known = self._log.next_sequence
        if first_sequence + len(changes) > known:
            self._adaptation.require_open()
        await self._stream.put(first_sequence, changes)
        if first_sequence + len(changes) <= known:
            self.outbox.accept(known, ())  # a repeat: acknowledge again

    async def commit(self, commit_id: str, next_sequence: int | None, close: bool) -> None:
        """Commits the changes put so far; acknowledged, and later answered, through the outbox.

        Raises:
            StateError: The adaptation takes no more commits.
            ConflictError: next_sequence is beyond the changes put.
        """
        self._last_active = time.monotonic()
        await self.outbox.room()
        await self._stream.flush()
        end = self._log.next_sequence if next_sequence is None else next_sequence
        require_sent(end, self._log.next_sequence)
        # Before the commit is durable, so that its outcome cannot come in between.
        self._open_commits.add(commit_id)
        meant = await self._adaptation.commit(commit_id, WriterPosition(self.writer_id, end), close)
        self.outbox.put(Committed(commit_id, meant.next_sequence))
        await self._adaptation.deliver_outcome(commit_id, self.outbox)
        if commit_id in self._adaptation.store.outcomes:
            self.settle(commit_id)

    def settle(self, commit_id: str) -> None:
        """Notes that a commit has been answered."""
        self._last_active = time.monotonic()
        self._open_commits.discard(commit_id)
        self._end_if_done()

    def tell(self, progress: Progress) -> None:
        """Passes on how well the stream is learned, unless there is more important news, or the call is ending."""
        if not (self._half_closed or self._open_commits):
            self.outbox.put(progress)

    async def half_close(self) -> None:
        """Notes that the caller sends no more: the outbox ends when all is acknowledged and answered."""
        await self._stream.flush()
        self._half_closed = True
        self._end_if_done()

    def send_away(self) -> None:
        """Tells the caller that its place is needed, and where to go on; one that has sent all is told nothing."""
        if not self._half_closed:
            self.outbox.put(Reconnect(self.next_sequence))
            self.outbox.end(IdleError(self.next_sequence))

    async def close(self) -> None:
        """Ends the call in any state."""
        self._adaptation.leave(self)
        await self._stream.close()

    def _end_if_done(self) -> None:
        if self._half_closed and not self._open_commits:
            self.outbox.end()

    def _on_durable(self, segment: Segment) -> None:
        self._last_active = time.monotonic()
        rejections = segment.rejections
        if self._untold is None and rejections and self.outbox.unread_rejections > MOST_UNREAD_REJECTIONS:
            self._untold = segment.ordinal, segment.first_sequence
        self.outbox.accept(segment.next_sequence, () if self._untold else rejections)
        self._durable_ordinals = segment.next_ordinal
        self._adaptation.note(segment)

    async def _recall(self) -> None:
        """Reads rejections that the caller has not received, as many as may be unread."""
        while self._untold is not None and self.outbox.unread_rejections <= MOST_UNREAD_REJECTIONS:
            ordinal, sequence = self._untold
            segment = await asyncio.to_thread(self._adaptation.store.segment, self.writer_id, ordinal)
            rejections = [it for it in segment.rejections if it.sequence >= sequence]
            self.outbox.accept(self.next_sequence, rejections)
            over = segment.next_ordinal >= self._durable_ordinals
            self._untold = None if over else (segment.next_ordinal, segment.next_sequence)


def require_sent(end: int, next_sequence: int) -> None:
    """Raises ConflictError if a commit reaches beyond the sent changes."""
    if end > next_sequence:
        raise ConflictError(
            f"commit.next_sequence is {end}, but only examples below {next_sequence} have been sent: send the "
            "others first.",
            reason="SEQUENCE_GAP",
            metadata={"next_sequence": str(next_sequence)},
        )


def superseded(writer_id: str) -> ConflictError:
    """Returns the error that ends an older call of the same writer."""
    return ConflictError(
        f"A newer call of writer {shown(writer_id)} has taken over: give each concurrent call a writer_id of "
        "its own.",
        reason="WRITER_SUPERSEDED",
    )
