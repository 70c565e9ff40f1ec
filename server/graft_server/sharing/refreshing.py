"""Reading anew, for as long as it is worth waiting: what is known is better than no answer while a store hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from graft_server.sharing.threads import Threads

T = TypeVar("T")

WORTH_S = 2.0
"""How long a call waits for what other servers wrote, in seconds, before it answers by what is known."""


class Refreshing(Generic[T]):
    """One read that many ask for: they share the one that runs, so a store that hangs takes one thread of the pool."""

    def __init__(self, read: Callable[[], T], threads: Threads) -> None:
        """Reads nothing yet."""
        self._read = read
        self._threads = threads
        self._running: asyncio.Task[T] | None = None

    @property
    def late(self) -> bool:
        """Whether the last read took longer than it was worth, and goes on."""
        return self._running is not None and not self._running.done()

    async def __call__(self, worth_s: float = WORTH_S) -> T | None:
        """Returns what is read, or None if that takes longer than it is worth; the read goes on.

        Raises:
            Exception: What the read raised in time.
        """
        begun = asyncio.get_running_loop().time()
        earlier = self._running
        if earlier is not None:
            # It may have begun before what the caller wants to see: another one follows it.
            await asyncio.wait({earlier}, timeout=worth_s)
            if not earlier.done():
                return None
        running = self._begin()
        left_s = max(0.0, worth_s - (asyncio.get_running_loop().time() - begun))
        await asyncio.wait({running}, timeout=left_s)
        return running.result() if running.done() else None

    def _begin(self) -> asyncio.Task[T]:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._threads.run(self._read))
            # An exception that comes too late is nobody's.
            self._running.add_done_callback(lambda it: it.cancelled() or it.exception())
        return self._running
