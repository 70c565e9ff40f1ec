"""Continuous publishing: the clock that commits as an adaptation's policy says, while this server is in it.

It commits nothing while a commit of this server waits or is trained: what comes in meanwhile is in the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from graft_server.adapting.publishing.policy import automatic_id, changes_since, due_in_s
from graft_server.domain.adaptation import AdaptationState
from graft_server.domain.errors import StateError
from graft_server.sharing.background import survived
from graft_server.store.adaptations.store import AdaptationStore

_log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often changes and commits of other servers are looked for."""


class ContinuousPublishing:
    """Commits one adaptation by its policy. Belongs to one event loop."""

    def __init__(
        self,
        store: AdaptationStore,
        look: Callable[[], Awaitable[None]],
        attended: Callable[[], bool],
        training: Callable[[], bool],
        commit: Callable[[str], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does nothing before it is woken.

        Args:
            store: The adaptation.
            look: Reads what other servers wrote.
            attended: Whether this server takes its examples.
            training: Whether a commit of this server is not finished.
            commit: Makes a commit of that id on everything so far.
            clock: Seconds, by a clock that nobody sets.
        """
        self._now = clock
        self._since: tuple[int, float] | None = None
        """How many commits there were when the newest of them was first seen, and when that was by the clock."""
        self._store = store
        self._policy = store.start.settings.publish
        self._look = look
        self._attended = attended
        self._training = training
        self._commit = commit
        self._wakeup = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether there is something that it will commit by itself in time."""
        return self._clock is not None and not self._clock.done()

    def wake(self) -> None:
        """Says that changes came in, or that a commit has its outcome."""
        if not self._policy.automatic or self._store.state is not AdaptationState.OPEN:
            return
        self._wakeup.set()
        if not self.pending:
            self._clock = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops; what is due is committed by the next server."""
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)

    async def _run(self) -> None:
        await self._look_around()
        await survived(self._find_since(), f"asking for the age of a commit of {self._store.model}", _log)
        while self._store.state is AdaptationState.OPEN:
            self._wakeup.clear()
            wait_s = self._due_in_s()
            if self._training():
                wait_s = LOOK_S
            elif wait_s is not None and wait_s <= 0:
                await self._commit_now()
                continue
            elif wait_s is None and not self._attended():
                return
            await self._wait(LOOK_S if wait_s is None else min(wait_s, LOOK_S))

    async def _wait(self, seconds: float) -> None:
        """Waits to be woken, and looks what others did if it is not."""
        try:
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            await self._look_around()

    async def _look_around(self) -> None:
        await survived(self._look(), f"looking for changes of {self._store.model}", _log)

    def _due_in_s(self) -> float | None:
        changes = changes_since(self._store, self._store.positions)
        return due_in_s(self._policy, changes, self._waited_s())

    async def _find_since(self) -> None:
        """Asks the store how long ago the newest commit was, which may have been before this server began.

        Whatever clocks have been set to since, a commit is at most one interval late or early for it.
        """
        if not self._policy.every_s or self._since is not None:
            return
        commits = len(self._store.commits)
        age_s = await asyncio.to_thread(self._store.newest_age_s)
        self._since = commits, self._now() - min(max(age_s, 0.0), self._policy.every_s)

    def _waited_s(self) -> float:
        """The seconds since the newest commit was seen."""
        commits = len(self._store.commits)
        if self._since is None or self._since[0] != commits:
            self._since = commits, self._now()
        return self._now() - self._since[1]

    async def _commit_now(self) -> None:
        if not await survived(self._commit_due(), f"a commit of {self._store.model} by its policy", _log):
            await asyncio.sleep(LOOK_S)

    async def _commit_due(self) -> None:
        with suppress(StateError):  # closed or cancelled meanwhile
            await self._look()
            wait_s = self._due_in_s()  # another server may have been faster
            if wait_s is not None and wait_s <= 0:
                await self._commit(automatic_id(self._store.commits))
