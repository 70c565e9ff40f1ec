"""One adaptation while this server has a hand in it: its callers, its commits, and those who watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from graft_server.adapting import announcing
from graft_server.adapting.intake.bases import Bases
from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.intake.matching import StoredMatching
from graft_server.adapting.interim.follower import Interim
from graft_server.adapting.outbox import MOST_UNREAD, Outbox
from graft_server.adapting.publishing.continuous import ContinuousPublishing
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.adapting.publishing.queue import MODEL_DELETED, PublicationQueue, Result
from graft_server.adapting.session import Session, Watcher, WriterPosition, superseded
from graft_server.adapting.telling import Telling
from graft_server.adapting.work import NEXT, Reason, Work
from graft_server.domain.adaptation import AdaptationState, Commit
from graft_server.domain.errors import DrainingError, StateError, StoreError
from graft_server.domain.extension import Extension
from graft_server.domain.names import shown
from graft_server.domain.stream import Committed, PublicationFailed, Published, Reconnect
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.memory import Intake
from graft_server.sharing.refreshing import Refreshing
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.features import Features
from graft_server.store.adaptations.segments import Segment, WriterLog
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)


class Adaptation:
    """One adaptation.

    Attributes:
        store: What is stored of it.
        trunk: The backbone that it uses.
        interim: Its interim head.
        refresh: Reads what other servers wrote; `read_positions` how far each writer is.
        followed: How many entries of the catalogue it has followed.
    """

    def __init__(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        publisher: Publisher,
        intake: Intake,
        *,
        bases: Bases,
        admit: Callable[[Adaptation], None] = lambda _: None,
    ) -> None:
        """Describes it; nothing runs yet.

        Args:
            store: What is stored of it.
            trunk: The backbone that it uses.
            publisher: Carries out its commits.
            intake: Room for the changes of all adaptations.
            bases: Room for the examples that adaptations match with.
            admit: Raises OverloadError where a new commit is one too many.
        """
        self.store = store
        self.trunk = trunk
        self.followed = 0
        self._publisher = publisher
        self.refresh = Refreshing(store.refresh, publisher.reading)
        self.read_positions = Refreshing(store.read_positions, publisher.reading)
        self._feature_writer = FeatureWriter(store, trunk, self._encoded)
        self._share = intake.share()
        self.interim = Interim(store, trunk, self._feature_writer, publisher, self._learned)
        self._telling = Telling(self._open_sessions, self._feature_writer, lambda: self.interim.metrics)
        self._feature_writer.watch(self._telling.of_encoding)
        self._admit = admit
        self._publications = PublicationQueue(
            store,
            trunk,
            publisher,
            self._feature_writer,
            on_progress=self._telling.of_commit,
            on_outcome=self._settled,
            on_free=self._freed,
        )
        self._continuous = ContinuousPublishing(
            store,
            look=self._look,
            attended=lambda: bool(self._sessions),
            training=lambda: bool(self.unfinished),
            commit=self._commit_automatically,
        )
        settings = store.start.settings
        self._matching = (
            StoredMatching(publisher.objects, store, bases, lambda: self.attended)
            if settings.match_content and store.start.lineage
            else None
        )
        self._base_examples: int | None = None
        """How many examples the base has, once they are read."""
        self._sessions: dict[str, Session] = {}
        self._joining = asyncio.Lock()
        self._expected = 0
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """The ends of calls that made way, by writer."""
        self._chores: set[asyncio.Task[None]] = set()
        self._compacting: asyncio.Task[None] | None = None
        self._work = Work.GOING_ON
        self._ending = asyncio.Lock()

    @property
    def key(self) -> tuple[str, str]:
        """Its model and id."""
        return self.store.model, self.store.adaptation_id

    @property
    def running(self) -> str:
        """The commit that a worker trains, or ""."""
        return self._publications.running

    @property
    def closed(self) -> bool:
        """Whether this server does nothing with it any more."""
        return self._work in (Work.DRAINED, Work.DELETED)

    @property
    def working(self) -> bool:
        """Whether it has callers, or commits to carry out."""
        return bool(self._sessions) or self._publications.busy

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if this object were made anew."""
        used = self._sessions or self._expected or self._telling.watched or self._joining.locked()
        busy = self._publications.busy or self._chores or self._feature_writer.busy or self.interim.busy
        waits = self._continuous.pending or self._compacting
        return not (used or busy or self.interim.wanted or waits)

    @property
    def attended(self) -> bool:
        """Whether this server takes its examples, or is about to."""
        return bool(self._sessions or self._expected)

    @property
    def idle_s(self) -> float:
        """How long none of its calls had anything to do, in seconds; 0 if one has, or a commit is carried out."""
        if self._expected or self._publications.busy:
            return 0.0
        return min((it.idle_s for it in self._sessions.values()), default=0.0)

    @property
    def calls(self) -> int:
        """How many calls it has, or is about to have."""
        return len(self._sessions) + self._expected

    def idlest(self) -> Session | None:
        """The call that has been idle longest; None: there is none."""
        return max(self._sessions.values(), key=lambda it: it.idle_s, default=None)

    def make_way(self, *sessions: Session) -> None:
        """Ends calls that are idle; without an argument all. Each hears where it can go on."""
        for session in sessions or tuple(self._sessions.values()):
            self.leave(session)
            session.send_away()
            end = asyncio.create_task(session.close())
            self._leaving[session.writer_id] = end
            self._chores.add(end)
            end.add_done_callback(self._chores.discard)

    async def join_expected(self, writer_id: str) -> Session:
        """The same as `join`; the call counts from here on, not only once it has begun."""
        self._expected += 1
        try:
            return await self.join(writer_id)
        finally:
            self._expected -= 1

    @property
    def unfinished(self) -> int:
        """How many of its commits wait for this server, or are trained by it."""
        return self._publications.unfinished

    async def join(self, writer_id: str) -> Session:
        """Begins a call of a writer. An older call of the same writer ends with WRITER_SUPERSEDED.

        Raises:
            StateError: The adaptation is cancelled.
        """
        async with self._joining:
            if self.store.state is AdaptationState.CANCELLED:
                raise self.store.not_open()
            older = self._sessions.get(writer_id)
            if older is not None:
                older.outbox.fail(superseded(writer_id))
                await older.close()
            left = self._leaving.pop(writer_id, None)
            if left is not None:
                await asyncio.wait([left])
            log = await asyncio.to_thread(self._read_writer, writer_id)
            if self._matching is not None:
                self._base_examples = await asyncio.to_thread(self._matching.follow)
            session = Session(self, log, self._feature_writer, self._share, self._matching)
            self._sessions[writer_id] = session
            return session

    @property
    def extends(self) -> Extension | None:
        """The version that it goes on from, and how many examples that has; None: it began empty."""
        base = self.store.start.extends
        if base is None or self._base_examples is None:
            return base
        return replace(base, base_examples=self._base_examples)

    def leave(self, session: Session) -> None:
        """Ends a call."""
        if self._sessions.get(session.writer_id) is session:
            del self._sessions[session.writer_id]
        self._publications.forget(session.outbox)

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
            NewerError: A newer release wrote to the catalogue.
        """
        watermarks = {position.writer_id: position.next_sequence for position in await self.positions()}
        watermarks[own.writer_id] = own.next_sequence
        commit = await self._make(commit_id, watermarks, own.writer_id, close=close)
        return WriterPosition(own.writer_id, commit.watermarks.get(own.writer_id, 0))

    async def _make(
        self, commit_id: str, watermarks: Mapping[str, int], writer_id: str = "", *, close: bool
    ) -> Commit:
        new = commit_id not in self.store.commits
        if new:
            self._publisher.catalogue.snapshot.require_known()
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
                if new:
                    announcing.accepted(self.store, commit_id)
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
        await self._publications.deliver(commit_id, outbox)

    async def outcome(self, commit_id: str) -> Published | PublicationFailed:
        """The outcome of a commit that has one, here or by another server."""
        return await self._publications.outcome(commit_id)

    def resume(self) -> None:
        """Carries out the commits that have no outcome yet: those that a server left unfinished."""
        for commit_id in self.store.commits:
            self._enqueue(commit_id)
        self._continuous.wake()

    async def cancel(self) -> tuple[bool, int]:
        """Stops the adaptation's work for good. Versions that it published stay.

        Returns:
            Whether this cancelled it (if not, it was over already), and how many commits were given up.
        """
        async with self._joining:
            changed = self.store.state is not AdaptationState.CANCELLED
            if self.store.state is AdaptationState.CLOSED and not self._unfinished():
                return False, 0
            await asyncio.to_thread(self.store.cancel)
        unfinished = self._unfinished()
        if changed:
            announcing.cancelled(self.store, len(unfinished))
        try:
            await asyncio.to_thread(self._publisher.catalogue.cancel_adaptation, *self.key)
        except StoreError as error:
            # It is cancelled all the same; other servers see it before they publish.
            _log.error("other servers could not be told of a cancellation: %s", error.message)
        await self.end(Reason.CANCELLED)
        outcomes = self.store.outcomes
        return changed, sum(1 for it in unfinished if it in outcomes and outcomes[it].failure is not None)

    def _unfinished(self) -> list[str]:
        """Returns the commits that have no outcome, as last read."""
        return [it for it in self.store.commits if it not in self.store.outcomes]

    async def end(self, reason: Reason) -> None:
        """Ends this server's work on it: the same parts in the same order, whatever the reason.

        After it has ended for a reason, a less final one changes nothing. The same one again does what a fault cut off.
        """
        if reason.value not in NEXT[self._work]:
            return
        self._turn(reason.value)
        async with self._ending:
            if self._work is not reason.value:
                return  # a more final end came meanwhile, and waits
            if reason is Reason.CANCELLED:
                await asyncio.to_thread(self.store.refresh)
            await self._dismiss(reason)
            await self._continuous.close()
            await self._publications.stop()
            await self._feature_writer.close()
            self._telling.close()
            await self.interim.close()
            await self._compacted()
            if reason is Reason.CANCELLED:
                await self._give_up_commits()
            self._notify()

    async def _dismiss(self, reason: Reason) -> None:
        """Ends all calls, and says why."""
        sessions = list(self._sessions.values())
        for session in sessions:
            if reason is Reason.CANCELLED:
                session.outbox.fail(self.store.not_open())
            elif reason is Reason.DELETED:
                session.outbox.fail(self._deleted())
        for session in sessions:
            await session.close()
            if reason is Reason.DRAINING:
                session.outbox.put(Reconnect(session.next_sequence))
                session.outbox.end(DrainingError())

    async def _give_up_commits(self) -> None:
        """Gives the commits of a cancelled adaptation their outcome."""
        unfinished = self._unfinished()
        await asyncio.to_thread(self._publisher.tuner.discard, self.store, unfinished)
        for commit_id in unfinished:
            # Nothing more is published after the cancellation, but it may have been before, and not been noted yet.
            published = await self._publications.committed(commit_id)
            await self._publications.finish(commit_id, published or Result(error=self.store.not_open()))

    def _deleted(self) -> StateError:
        return StateError(
            f"Model {shown(self.store.model)} was deleted, and adaptation {shown(self.store.adaptation_id)} with it: "
            "start another one.",
            reason=MODEL_DELETED,
        )

    def _turn(self, work: Work) -> None:
        """Changes what is done with it, in one of the ways that `Work` draws."""
        if work not in NEXT[self._work]:
            raise RuntimeError(f"the work on an adaptation does not go from {self._work.name} to {work.name}")
        self._work = work

    async def forget_erased(self) -> None:
        """Lets go of what is in memory of examples that were erased, here or by another server."""
        await asyncio.to_thread(self.store.refresh)
        await asyncio.to_thread(self.store.follow_all)
        self.interim.drop()
        if self._matching is not None:
            self._matching.forget()
        if self._compacts():
            # What is put together now still has them; it will not count, and is deleted.
            self._turn(Work.PAUSED)
            try:
                await self._compacted()
            finally:
                if self._work is Work.PAUSED:
                    self._turn(Work.GOING_ON)
        if self.running:
            # It would be trained again in any case.
            await self._publications.stop()
            self.resume()

    def watched(self) -> AbstractAsyncContextManager[Watcher]:
        """Gives a watcher, for as long as the block runs."""
        return self._telling.watching()

    def note(self, segment: Segment) -> None:
        """Notes a segment that became durable, and records its rejections for watchers."""
        self._continuous.wake()
        if segment.next_ordinal % FAN_IN == 0 and self._compacting is None and self._compacts():
            self._compacting = asyncio.create_task(self._compact())
        if segment.rejections:
            task = asyncio.create_task(self._record(segment))
            self._chores.add(task)
            task.add_done_callback(self._chores.discard)

    def require_open(self) -> None:
        """Raises StateError if the adaptation takes no more changes."""
        self.store.require_open()

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
            await asyncio.to_thread(compact, objects, self.store, encoder_id, lambda: not self._compacts())
        except StoreError as error:
            _log.warning("segments were not put together: %s", error.message)
        finally:
            self._compacting = None

    def _compacts(self) -> bool:
        """Whether segments may be put together."""
        return self._work is Work.GOING_ON

    async def _compacted(self) -> None:
        """Returns when no segments are being put together here."""
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
        if not self.closed:
            self._publications.put(commit_id)

    def _settled(self, commit_id: str) -> None:
        """A commit has got its outcome."""
        for session in self._sessions.values():
            session.settle(commit_id)
        self._notify()

    def _freed(self) -> None:
        """A commit has run."""
        self._notify()
        self._continuous.wake()

    def _encoded(self, segment: Segment, features: Features) -> None:
        self.interim.offer(segment, features)

    def _learned(self) -> None:
        """Tells of how the stream is being learned."""
        self._telling.of_stream()

    def _open_sessions(self) -> list[Session]:
        return list(self._sessions.values())

    def _notify(self) -> None:
        self._telling.wake()
