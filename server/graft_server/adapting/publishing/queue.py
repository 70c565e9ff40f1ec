"""The commits of one adaptation: one is carried out at a time, the others wait, and each gets one outcome.

A commit outlives its caller: once it is durable it is carried out, also by the next server after a crash.
Commits that wait behind a running one are answered by the newest of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graft_server.adapting import announcing
from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.outbox import Outbox
from graft_server.adapting.publishing.policy import already_published
from graft_server.adapting.publishing.publisher import Publisher
from graft_server.domain.adaptation import AdaptationState, Commit, Failure
from graft_server.domain.errors import DomainError, DrainingError, FaultError, NewerError, StoreError
from graft_server.domain.extension import Extension
from graft_server.domain.model import Version
from graft_server.domain.report import Report
from graft_server.domain.stream import Progress, PublicationFailed, Published
from graft_server.encoding.trunk import Trunk
from graft_server.sharing.shielding import uncancelled
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)

CANCELLED = "ADAPTATION_CANCELLED"
"""The reason of commits that a cancellation gave up."""
MODEL_DELETED = "MODEL_DELETED"
"""The reason where the adaptation was deleted with its model."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a commit led to."""

    version: Version | None = None
    report: Report | None = None
    error: DomainError | None = None
    """Why there is no version."""
    extension: Extension | None = None
    """What came of the examples beside those of the base; None: there is no base."""


class PublicationQueue:
    """Carries out the commits of one adaptation. Belongs to one event loop.

    A commit of the queue waits, then runs, then has an outcome in the store and is not in the queue any more::

        put --> waiting --> running --> finished
                   |                       ^
                   +--- coalesced ---------+

    Attributes:
        running: The commit that is carried out now, or "".
    """

    def __init__(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        publisher: Publisher,
        feature_writer: FeatureWriter,
        *,
        on_progress: Callable[[Progress], None],
        on_outcome: Callable[[str], None],
        on_free: Callable[[], None],
    ) -> None:
        """Carries out nothing yet.

        Args:
            store: The adaptation.
            trunk: The backbone that it uses.
            publisher: Makes a version of a commit.
            feature_writer: Completes the features of the adaptation's segments.
            on_progress: Told how far the running commit is.
            on_outcome: Told of each commit that has got its outcome.
            on_free: Told when a commit has run and the next one may.
        """
        self.running = ""
        self._store = store
        self._trunk = trunk
        self._publisher = publisher
        self._feature_writer = feature_writer
        self._on_progress = on_progress
        self._on_outcome = on_outcome
        self._on_free = on_free
        self._queue: list[str] = []
        """Those that wait and the one that runs, oldest first."""
        self._runner: asyncio.Task[None] | None = None
        self._waiting: dict[str, set[Outbox]] = {}
        """Who wants to hear of an outcome that there is not yet."""

    @property
    def unfinished(self) -> int:
        """How many commits wait, or run."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether a commit waits or runs."""
        return bool(self._queue or self.running)

    def put(self, commit_id: str) -> None:
        """Takes in a commit that is durable; one that has its outcome, or is here already, is left alone."""
        if commit_id in self._store.outcomes or commit_id in self._queue or commit_id == self.running:
            return
        self._queue.append(commit_id)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Carries out nothing more until a commit is put in again; what is durable is taken up later."""
        self._queue.clear()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def deliver(self, commit_id: str, outbox: Outbox) -> None:
        """Puts a commit's outcome into the outbox, now or when there is one."""
        if commit_id in self._store.outcomes:
            outbox.put(await self.outcome(commit_id))
        else:
            self._waiting.setdefault(commit_id, set()).add(outbox)

    def forget(self, outbox: Outbox) -> None:
        """Delivers nothing more to the outbox."""
        for outboxes in self._waiting.values():
            outboxes.discard(outbox)

    async def outcome(self, commit_id: str) -> Published | PublicationFailed:
        """The outcome of a commit that has one, here or by another server."""
        if commit_id not in self._store.outcomes:
            await asyncio.to_thread(self._store.refresh)  # another server finished it
        outcome = self._store.outcomes[commit_id]
        if outcome.failure is not None:
            return PublicationFailed(commit_id, outcome.failure, outcome.extension)
        found = await asyncio.to_thread(self._publisher.published, self._store.model, outcome.version)
        if found is None:
            return Published(commit_id, self._store.model, outcome.version, None, extension=outcome.extension)
        return _published(commit_id, *found, outcome.extension)

    async def finish(self, commit_id: str, result: Result) -> None:
        """Stores a commit's outcome, and tells those who wait for it. One that has an outcome keeps it."""
        message: Published | PublicationFailed
        failure: Failure | None
        if result.version is not None and result.report is not None:
            message = _published(commit_id, result.version, result.report, result.extension)
            version, failure = message.version, None
        else:
            failure = Failure.of(result.error or _internal_fault())
            message, version = PublicationFailed(commit_id, failure, result.extension), 0
        try:
            outcome = await uncancelled(
                asyncio.to_thread(
                    self._store.finish,
                    commit_id,
                    version=version,
                    failure=failure,
                    extension=result.extension,
                )
            )
            if (outcome.version, outcome.failure) != (version, failure):
                message = await self.outcome(commit_id)  # it had one already, which stays
        except StoreError as error:
            # Without an outcome the commit is carried out again by the next start, to the same version.
            _log.error("the outcome of %s could not be stored: %s", commit_id, error.message)
        self._tell(commit_id, message)

    def _tell(self, commit_id: str, message: Published | PublicationFailed) -> None:
        for outbox in self._waiting.pop(commit_id, set()):
            outbox.put(message)
        self._on_outcome(commit_id)

    async def _run(self) -> None:
        while self._queue:
            self.running, coalesced = next_run(self._queue, self._store.commits)
            try:
                await self._publish(self.running, coalesced)
            finally:
                self.running = ""
            self._on_free()

    async def _publish(self, commit_id: str, coalesced: list[str]) -> None:
        result: Result
        began = time.monotonic()
        try:
            result = await self._version(commit_id)
        except DrainingError:
            self._queue.clear()  # the next server goes on
            return
        except NewerError as error:
            # No outcome is stored: a server of the release that can carries it out.
            _log.error("%s of %s is left to a newer server: %s", commit_id, self._store.model, error.message)
            self._queue.clear()
            for it in (*coalesced, commit_id):
                self._tell(it, PublicationFailed(it, Failure.of(error)))
            return
        except DomainError as error:
            if error.reason == MODEL_DELETED:
                self._queue.clear()  # an outcome would be written to what is being deleted
                return
            result = Result(error=error, extension=await self._extension(commit_id))
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an outcome
            _log.exception("publishing %s of %s", commit_id, self._store.model)
            result = Result(error=_internal_fault())
        if result.error is not None and result.error.reason != CANCELLED:
            announcing.failed(self._store, commit_id, result.error, began=began)
        for it in (*coalesced, commit_id):
            await self.finish(it, result)
        # Commits that came in meanwhile stay, and so do those that this one does not cover.
        self._queue = [it for it in self._queue if it != commit_id and it not in coalesced]

    async def _version(self, commit_id: str) -> Result:
        if self._store.state is AdaptationState.CANCELLED:
            raise self._store.not_open()
        return await self._already_published(commit_id) or await self._train(commit_id)

    async def _train(self, commit_id: str) -> Result:
        version, report, extension = await self._publisher.publish(
            self._store, self._trunk, self._feature_writer, commit_id, self._on_progress
        )
        return Result(version, report, extension=extension)

    async def _already_published(self, commit_id: str) -> Result | None:
        """The version that was made of the same examples, where it still stands: none is made twice."""
        number = already_published(self._store, commit_id) or await self._publisher.version_with_the_same(
            self._store, self._trunk, commit_id
        )
        if not number:
            return None
        found = await asyncio.to_thread(self._publisher.unerased, self._store.model, number)
        if found is None:
            return None
        announcing.answered(self._store, commit_id, number)
        return Result(*found, extension=await self._extension(commit_id))

    async def committed(self, commit_id: str) -> Result | None:
        """What a commit led to by the catalogue, where its outcome was not noted; None: nothing yet."""
        found = await asyncio.to_thread(self._publisher.committed, self._store, commit_id)
        return None if found is None else Result(*found, extension=await self._extension(commit_id))

    async def _extension(self, commit_id: str) -> Extension | None:
        """What came of the examples of a commit of which nothing was trained."""
        try:
            return await self._publisher.extension(self._store, commit_id)
        except DomainError as error:
            _log.warning(
                "what came of the examples of %s of %s is not known: %s",
                commit_id,
                self._store.model,
                error.message,
            )
            return None


def _internal_fault() -> FaultError:
    return FaultError("Publishing failed; the server's log has the details.", reason="INTERNAL")


def _published(commit_id: str, version: Version, report: Report, extension: Extension | None) -> Published:
    return Published(commit_id, version.model, version.number, report, version.live_then, extension)


def next_run(queue: Sequence[str], commits: Mapping[str, Commit]) -> tuple[str, list[str]]:
    """The commit to carry out next, and the older ones that its outcome answers too.

    It is the newest that trains on everything that the oldest asks for.

    Args:
        queue: Ids of commits without an outcome, oldest first; at least one.
        commits: All commits by id.
    """

    def covers(newer: str, older: str) -> bool:
        reached = commits[newer].watermarks
        return all(reached.get(writer, 0) >= end for writer, end in commits[older].watermarks.items())

    newest = next(it for it in reversed(queue) if covers(it, queue[0]))
    return newest, [it for it in queue[: queue.index(newest)] if covers(newest, it)]
