"""Bounds the exports that are carried out at once: each keeps a bundle on disk until its caller has read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from graft_server.domain.errors import OverloadError

MOST = 4
"""The most exports at once: a bundle of the default backbone has 90 MB."""
STALLED_S = 60.0
"""An export whose caller has taken nothing for so long, in seconds, gives way to another."""
RETRY_S = 10.0
"""The wait for an export that is one too many: composing a bundle takes seconds, reading it too."""


class Export:
    """One export, which runs in the task that made it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.task = asyncio.current_task()
        self._clock = clock
        self._sent: float | None = None

    def sent(self) -> None:
        """Notes that the caller has taken what was sent before, and that the next piece is sent."""
        self._sent = self._clock()

    @property
    def waits_s(self) -> float:
        """How long its caller has taken nothing, in seconds; 0 while the bundle is composed."""
        return 0.0 if self._sent is None else self._clock() - self._sent


class Exports:
    """The exports of a server. Belongs to one event loop."""

    def __init__(
        self, most: int = MOST, stalled_s: float = STALLED_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes room for `most` exports; one that has stalled for `stalled_s` gives way."""
        self._most = most
        self._stalled_s = stalled_s
        self._clock = clock
        self._running: set[Export] = set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Export]:
        """One export, for as long as the block runs.

        Raises:
            OverloadError: There are as many as are carried out at once.
        """
        if len(self._running) >= self._most:
            self._make_room()
        export = Export(self._clock)
        self._running.add(export)
        try:
            yield export
        finally:
            self._running.discard(export)

    def _make_room(self) -> None:
        idlest = max(self._running, key=lambda it: it.waits_s)
        if idlest.waits_s < self._stalled_s or idlest.task is None:
            raise OverloadError(
                f"{len(self._running)} exports are carried out, and at most {self._most} are at once: try again later.",
                reason="TOO_MANY_EXPORTS",
                retry_after_s=RETRY_S,
            )
        self._running.discard(idlest)
        idlest.task.cancel()
