"""One adaptation while this server has a hand in it: its callers, its commits, and those who watch.

A commit outlives its caller: once it is durable it is carried out, also by the next server after a crash.
Commits that wait behind a running one are answered by the newest of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.intake.writer_stream import Incoming, WriterStream
from graft_server.adapting.interim.follower import Interim
from graft_server.adapting.outbox import Outbox
from graft_server.adapting.publishing.continuous import ContinuousPublishing
from graft_server.adapting.publishing.policy import already_published
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.domain.adaptation import AdaptationState, Commit, Failure
from graft_server.domain.errors import (
    ConflictError,
    DomainError,
    DrainingError,
    FaultError,
    StateError,
    StoreError,
)
from graft_server.domain.names import shown
from graft_server.domain.report import Report
from graft_server.domain.stream import Committed, Message, Progress, PublicationFailed, Published, Reconnect
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.memory import Intake, Share
from graft_server.sharing.shielding import uncancelled
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.features import Features
from graft_server.store.adaptations.segments import Segment, WriterLog
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)

MOST_UNREAD = 64
"""A caller that has left so many messages unread is not told of the server's own commits: events have them all."""

MOST_UNREAD_REJECTIONS = 4_096
"""Beyond so many (1 MB or so) they are left in the store until the caller has read these."""

CANCELLED = "ADAPTATION_CANCELLED"
"""The reason of commits that a cancellation gave up."""
MODEL_DELETED = "MODEL_DELETED"
"""The reason where the adaptation was deleted with its model."""


@dataclass(frozen=True, slots=True)
class WriterPosition:
    """How far a writer is."""

    writer_id: str
    next_sequence: int


class Adaptation:
    """One adaptation.

    Attributes:
        store: What is stored of it.
        trunk: The backbone that it uses.
        interim: Its interim head.
        running: The commit that a worker trains, or "".
        closed: Whether this server has stopped working on it.
        followed: How many entries of the catalogue it has followed.
    """

    def __init__(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        publisher: Publisher,
        intake: Intake,
        admit: Callable[[Adaptation], None] = lambda _: None,
    ) -> None:
        """Describes it; nothing runs yet.

        Args:
            store: What is stored of it.
            trunk: The backbone that it uses.
            publisher: Carries out its commits.
            intake: Room for the changes of all adaptations.
            admit: Raises OverloadError where a new commit is one too many.
        """
        self.store = store
        self.trunk = trunk
        self.running = ""
        self.closed = False
        self.followed = 0
        self._publisher = publisher
        self._feature_writer = FeatureWriter(store, trunk, self._encoded)
        self._share = intake.share()
        self.interim = Interim(store, trunk, self._feature_writer, publisher, self._learned)
        self._admit = admit
        self._continuous = ContinuousPublishing(
            store,
            look=self._look,
            attended=lambda: bool(self._sessions),
            training=lambda: bool(self.unfinished),
            commit=self._commit_automatically,
        )
        self._sessions: dict[str, Session] = {}
        self._joining = asyncio.Lock()
        self._queue: list[str] = []
        self._runner: asyncio.Task[None] | None = None
        self._waiting: dict[str, set[Outbox]] = {}
        self._watchers: set[Watcher] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._compacting: asyncio.Task[None] | None = None
        self._rests = False

    @property
    def key(self) -> tuple[str, str]:
        """Its model and id."""
        return self.store.model, self.store.adaptation_id

    @property
    def working(self) -> bool:
        """Whether it has callers, or commits to carry out."""
        return bool(self._sessions or self._queue or self.running)

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if this object were made anew."""
        used = self._sessions or self._watchers or self._joining.locked()
        busy = self._queue or self.running or self._chores or self._feature_writer.busy or self.interim.busy
        waits = self._continuous.pending or self._compacting
        return not (used or busy or self.interim.wanted or waits)

    @property
    def attended(self) -> bool:
        """Whether this server takes its examples."""
        return bool(self._sessions)

    @property
    def unfinished(self) -> int:
        """How many of its commits wait for this server, or are trained by it."""
        return len(self._queue)

    async def join(self, writer_id: str) -> Session:
        """Begins a call of a writer. An older call of the same writer ends with WRITER_SUPERSEDED.

        Raises:
            StateError: The adaptation is cancelled.
        """
        async with self._joining:
            self._require_not_cancelled()
            older = self._sessions.get(writer_id)
            if older is not None:
                older.outbox.fail(_superseded(writer_id))
                await older.close()
            log = await asyncio.to_thread(self._read_writer, writer_id)
            session = Session(self, log, self._feature_writer, self._share)
            self._sessions[writer_id] = session
            return session

    def leave(self, session: Session) -> None:
        """Ends a call."""
        if self._sessions.get(session.writer_id) is session:
            del self._sessions[session.writer_id]
        for outboxes in self._waiting.values():
            outboxes.discard(session.outbox)

    async def positions(self) -> list[WriterPosition]:
        """How far each writer is, sorted by writer."""
        found = await asyncio.to_thread(self.store.read_positions)
        return [WriterPosition(writer_id, end) for writer_id, end in sorted(found.items())]

    async def commit(self, commit_id: str, own: WriterPosition, close: bool) -> WriterPosition:
        """Makes a commit durable and sees to it that it is carried out.

        Args:
            commit_id: Its id. A known one is not made again.
            own: The committing writer, and the number below which its changes are meant.
            close: Whether the adaptation takes no more changes.

        Returns:
            The committing writer, and the number below which its changes are part of it.

        Raises:
            StateError: The adaptation takes no more commits.
            OverloadError: Too many commits wait.
        """
        watermarks = {position.writer_id: position.next_sequence for position in await self.positions()}
        watermarks[own.writer_id] = own.next_sequence
        commit = await self._make(commit_id, watermarks, own.writer_id, close=close)
        return WriterPosition(own.writer_id, commit.watermarks.get(own.writer_id, 0))

    async def _make(
        self, commit_id: str, watermarks: Mapping[str, int], writer_id: str = "", *, close: bool
    ) -> Commit:
        if commit_id not in self.store.commits:
            self._admit(self)
        making = asyncio.ensure_future(
            asyncio.to_thread(self.store.commit, commit_id, watermarks, close=close, writer_id=writer_id)
        )
        try:
            return await asyncio.shield(making)
        finally:
            # The caller may leave meanwhile: what became durable is carried out all the same.
            await asyncio.wait({making})
            if commit_id in self.store.commits:
                self._enqueue(commit_id)
                self._notify()

    async def _commit_automatically(self, commit_id: str) -> None:
        """Commits everything so far, and tells every call of it."""
        watermarks = {position.writer_id: position.next_sequence for position in await self.positions()}
        commit = await self._make(commit_id, watermarks, close=False)
        for session in list(self._sessions.values()):
            if session.outbox.unread < MOST_UNREAD:
                session.outbox.put(Committed(commit_id, commit.watermarks.get(session.writer_id, 0)))
                await self.deliver_outcome(commit_id, session.outbox)

    async def deliver_outcome(self, commit_id: str, outbox: Outbox) -> None:
        """Puts a commit's outcome into the outbox, now or when there is one."""
        if commit_id in self.store.outcomes:
            outbox.put(await self.outcome(commit_id))
        else:
            self._waiting.setdefault(commit_id, set()).add(outbox)

    async def outcome(self, commit_id: str) -> Published | PublicationFailed:
        """What became of a commit that has an outcome."""
        if commit_id not in self.store.outcomes:
            await asyncio.to_thread(self.store.refresh)  # another server finished it
        outcome = self.store.outcomes[commit_id]
        if outcome.failure is not None:
            return PublicationFailed(commit_id, outcome.failure)
        report = await asyncio.to_thread(self._publisher.report, self.store.model, outcome.version)
        return Published(commit_id, self.store.model, outcome.version, report)

    def resume(self) -> None:
        """Carries out the commits that have no outcome yet: those that a server left unfinished."""
        for commit_id in self.store.commits:
            self._enqueue(commit_id)
        self._continuous.wake()

    async def cancel(self) -> None:
        """Stops the adaptation's work for good. Versions that it published stay."""
        async with self._joining:
            await asyncio.to_thread(self.store.cancel)
        try:
            await asyncio.to_thread(self._publisher.catalogue.cancel_adaptation, *self.key)
        except StoreError as error:
            # It is cancelled all the same; other servers see it before they publish.
            _log.error("other servers could not be told of a cancellation: %s", error.message)
        await self.give_up()

    async def give_up(self) -> None:
        """Ends the work on an adaptation that was cancelled, here or by another server."""
        await asyncio.to_thread(self.store.refresh)
        for session in list(self._sessions.values()):
            session.outbox.fail(self._not_open())
        unfinished = [it for it in self.store.commits if it not in self.store.outcomes]
        await self._continuous.close()
        await self.interim.close()
        await self._stop_runner()
        await self._feature_writer.close()
        await self._rest()
        await asyncio.to_thread(self._publisher.tuner.discard, self.store, unfinished)
        for commit_id in unfinished:
            await self._finish(commit_id, self._not_open())
        self._notify()

    async def drop(self, error: DomainError) -> None:
        """Ends the work on an adaptation that is no more; callers get the error."""
        self.closed = True
        for session in list(self._sessions.values()):
            session.outbox.fail(error)
            await session.close()
        await self._continuous.close()
        await self._stop_runner()
        await self._feature_writer.close()
        await self.interim.close()
        await self._rest()
        self._notify()

    async def forget_erased(self) -> None:
        """Lets go of what is in memory of examples that were erased, here or by another server."""
        await asyncio.to_thread(self.store.refresh)
        await asyncio.to_thread(self.store.follow_all)
        self.interim.drop()
        if not self._rests:
            # What is put together now still has them; it will not count, and is deleted.
            await self._rest()
            self._rests = False
        if self.running:
            # It would be trained again in any case.
            await self._stop_runner()
            self.resume()

    async def close(self) -> None:
        """Stops working on it, here and now; what is durable is taken up by the next server.

        Callers are told how far they are, and asked to call again.
        """
        self.closed = True
        for session in list(self._sessions.values()):
            await session.close()
            session.outbox.put(Reconnect(session.next_sequence))
            session.outbox.end(DrainingError())
        await self._continuous.close()
        await self._stop_runner()
        await self._feature_writer.close()
        await self.interim.close()
        await self._rest()
        self._notify()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watcher]:
        """Gives a watcher, for as long as the block runs."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def note(self, segment: Segment) -> None:
        """Takes note of a segment that became durable: watchers are told of its rejections."""
        self._continuous.wake()
        if segment.next_ordinal % FAN_IN == 0 and self._compacting is None and not self._rests:
            self._compacting = asyncio.create_task(self._compact())
        if segment.rejections:
            task = asyncio.create_task(self._record(segment))
            self._chores.add(task)
            task.add_done_callback(self._chores.discard)

    def require_open(self) -> None:
        """Raises StateError if the adaptation takes no more changes."""
        if self.store.state is not AdaptationState.OPEN:
            raise self._not_open()

    def _require_not_cancelled(self) -> None:
        if self.store.state is AdaptationState.CANCELLED:
            raise self._not_open()

    def _not_open(self) -> StateError:
        state = self.store.state
        return StateError(
            f"Adaptation {shown(self.store.adaptation_id)} of model {shown(self.store.model)} is {state}: "
            "start another one, with base_version to go on from its examples.",
            reason=f"ADAPTATION_{state.name}",
        )

    async def record_events(self) -> None:
        """Returns when all that is known to have happened is among the events."""
        await asyncio.gather(*self._chores)
        await asyncio.to_thread(self.store.record_events)

    async def _record(self, segment: Segment) -> None:
        try:
            await asyncio.to_thread(self.store.record_rejections, segment)
        except StoreError as error:
            # The rejections are durable with their segment; the event is recorded when it is read again.
            _log.warning("an event was not recorded: %s", error.message)
        self._notify()

    async def _compact(self) -> None:
        try:
            objects, encoder_id = self._publisher.objects, self.trunk.encoder_id
            await asyncio.to_thread(compact, objects, self.store, encoder_id, lambda: self._rests)
        except StoreError as error:
            _log.warning("segments were not put together: %s", error.message)
        finally:
            self._compacting = None

    async def _rest(self) -> None:
        """Returns when no segments are being put together here, and sees to it that none will be."""
        self._rests = True
        while self._compacting is not None:
            await asyncio.wait([self._compacting])

    async def _look(self) -> None:
        """Reads what other servers wrote."""
        await asyncio.to_thread(self.store.refresh)
        await asyncio.to_thread(self.store.follow_all)

    def _read_writer(self, writer_id: str) -> WriterLog:
        self.store.refresh()  # it may have been closed, and segments rewritten, by another server
        log = self.store.writer(writer_id)
        self.store.follow(log)
        return log

    def _enqueue(self, commit_id: str) -> None:
        if self.closed or commit_id in self.store.outcomes:
            return
        if commit_id in self._queue or commit_id == self.running:
            return
        self._queue.append(commit_id)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._queue:
            oldest = self._queue[0]
            self.running = next(it for it in reversed(self._queue) if self._covers(it, oldest))
            older = self._queue[: self._queue.index(self.running)]
            try:
                await self._publish(self.running, [it for it in older if self._covers(self.running, it)])
            finally:
                self.running = ""
            self._notify()
            self._continuous.wake()

    def _covers(self, newer: str, older: str) -> bool:
        """Whether a commit trains on everything that another one asks for."""
        commits = self.store.commits
        watermarks = commits[newer].watermarks
        return all(watermarks.get(writer, 0) >= end for writer, end in commits[older].watermarks.items())

    async def _publish(self, commit_id: str, coalesced: list[str]) -> None:
        result: tuple[int, Report] | DomainError
        try:
            self._require_not_cancelled()
            result = await self._already_published(commit_id) or await self._train(commit_id)
        except DrainingError:
            self._queue.clear()  # the next server goes on
            return
        except DomainError as error:
            if error.reason == MODEL_DELETED:
                self._queue.clear()  # an outcome would be written to what is being deleted
                return
            result = error
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an outcome
            _log.exception("publishing %s of %s", commit_id, self.store.model)
            result = FaultError("Publishing failed; the server's log has the details.", reason="INTERNAL")
        for it in (*coalesced, commit_id):
            await self._finish(it, result)
        # Commits that came in meanwhile stay, and so do those that this one does not cover.
        self._queue = [it for it in self._queue if it != commit_id and it not in coalesced]

    async def _train(self, commit_id: str) -> tuple[int, Report]:
        version, report = await self._publisher.publish(
            self.store, self.trunk, self._feature_writer, commit_id, self._progress
        )
        return version.number, report

    async def _already_published(self, commit_id: str) -> tuple[int, Report] | None:
        """What continuous publishing has made of the same changes, where it still stands: not made twice."""
        number = already_published(self.store, commit_id)
        report = (
            await asyncio.to_thread(self._publisher.unerased, self.store.model, number) if number else None
        )
        return None if report is None else (number, report)

    async def _finish(self, commit_id: str, result: tuple[int, Report] | DomainError) -> None:
        message: Published | PublicationFailed
        failure: Failure | None
        if isinstance(result, DomainError):
            message = PublicationFailed(commit_id, Failure.of(result))
            version, failure = 0, message.failure
        else:
            message = Published(commit_id, self.store.model, *result)
            version, failure = message.version, None
        try:
            outcome = await uncancelled(
                asyncio.to_thread(self.store.finish, commit_id, version=version, failure=failure)
            )
            if (outcome.version, outcome.failure) != (version, failure):
                message = await self.outcome(commit_id)  # it had one already, which stays
        except StoreError as error:
            # Without an outcome the commit is carried out again by the next start, to the same version.
            _log.error("the outcome of %s could not be stored: %s", commit_id, error.message)
        for outbox in self._waiting.pop(commit_id, set()):
            outbox.put(message)
        for session in self._sessions.values():
            session.settle(commit_id)
        self._notify()

    async def _stop_runner(self) -> None:
        self._queue.clear()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    def _encoded(self, segment: Segment, features: Features) -> None:
        self.interim.offer(segment, features)

    def _learned(self) -> None:
        """Tells of how the stream is being learned."""
        progress = Progress(stage="streaming", metrics=self.interim.metrics)
        for session in self._sessions.values():
            session.tell(progress)
        for watcher in self._watchers:
            watcher.progress = watcher.progress or progress
        self._notify()

    def _progress(self, progress: Progress) -> None:
        for session in self._sessions.values():
            session.outbox.put(progress)
        for watcher in self._watchers:
            watcher.progress = progress
        self._notify()

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher.changed.set()


class Watcher:
    """Somebody who wants to know when something happened.

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
        writer_id: Which writer it is.
        outbox: What waits to be sent to the caller.
    """

    def __init__(
        self, adaptation: Adaptation, log: WriterLog, feature_writer: FeatureWriter, share: Share
    ) -> None:
        self.writer_id = log.writer_id
        self.outbox = Outbox()
        self._adaptation = adaptation
        self._log = log
        self._stream = WriterStream(log, feature_writer, share, self._on_durable, self.outbox.fail)
        self._open_commits: set[str] = set()
        self._half_closed = False
        self._durable_ordinals = 0
        self._untold: tuple[int, int] | None = None
        """From which ordinal and sequence number on rejections are told from the store: too many are unread."""

    @property
    def next_sequence(self) -> int:
        """Every change below this number is durable."""
        return self._log.next_sequence

    async def next_message(self) -> Message | None:
        """The next message for the caller; None: there will be no more.

        Raises:
            Exception: What the call ends with.
        """
        if self._untold is not None and not self.outbox.unread_rejections:
            await self._recall()
        return await self.outbox.get()

    async def put(self, first_sequence: int, changes: Sequence[Incoming]) -> None:
        """Takes changes in; see `WriterStream.put`. They are acknowledged through the outbox.

        Raises:
            StateError: The adaptation takes no more changes.
        """
        known = self._log.next_sequence
        if first_sequence + len(changes) > known:
            self._adaptation.require_open()
        await self._stream.put(first_sequence, changes)
        if first_sequence + len(changes) <= known:
            self.outbox.accept(known, ())  # a repeat: say again how far we are

    async def commit(self, commit_id: str, next_sequence: int | None, close: bool) -> None:
        """Commits what was put so far; acknowledged, and later answered, through the outbox.

        Raises:
            StateError: The adaptation takes no more commits.
            ConflictError: next_sequence is beyond what was put.
        """
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
        self._open_commits.discard(commit_id)
        self._end_if_done()

    def tell(self, progress: Progress) -> None:
        """Passes on how the stream is being learned, unless there is more important news, or no more to send."""
        if not (self._half_closed or self._open_commits):
            self.outbox.put(progress)

    async def half_close(self) -> None:
        """Notes that the caller sends no more: the outbox ends when all is acknowledged and answered."""
        await self._stream.flush()
        self._half_closed = True
        self._end_if_done()

    async def close(self) -> None:
        """Ends the call, whatever state it is in."""
        self._adaptation.leave(self)
        await self._stream.close()

    def _end_if_done(self) -> None:
        if self._half_closed and not self._open_commits:
            self.outbox.end()

    def _on_durable(self, segment: Segment) -> None:
        rejections = segment.rejections
        if self._untold is None and rejections and self.outbox.unread_rejections > MOST_UNREAD_REJECTIONS:
            self._untold = segment.ordinal, segment.first_sequence
        self.outbox.accept(segment.next_sequence, () if self._untold else rejections)
        self._durable_ordinals = segment.next_ordinal
        self._adaptation.note(segment)

    async def _recall(self) -> None:
        """Reads rejections that the caller has not been told of, as many as may be unread."""
        while self._untold is not None and self.outbox.unread_rejections <= MOST_UNREAD_REJECTIONS:
            ordinal, sequence = self._untold
            segment = await asyncio.to_thread(self._adaptation.store.segment, self.writer_id, ordinal)
            rejections = [it for it in segment.rejections if it.sequence >= sequence]
            self.outbox.accept(self.next_sequence, rejections)
            over = segment.next_ordinal >= self._durable_ordinals
            self._untold = None if over else (segment.next_ordinal, segment.next_sequence)


def require_sent(end: int, next_sequence: int) -> None:
    """Raises ConflictError if a commit reaches beyond what was sent."""
    if end > next_sequence:
        raise ConflictError(
            f"commit.next_sequence is {end}, but only examples below {next_sequence} have been sent: send the "
            "others first.",
            reason="SEQUENCE_GAP",
            metadata={"next_sequence": str(next_sequence)},
        )


def _superseded(writer_id: str) -> ConflictError:
    return ConflictError(
        f"A newer call of writer {shown(writer_id)} has taken over: give each concurrent call a writer_id of "
        "its own.",
        reason="WRITER_SUPERSEDED",
    )
