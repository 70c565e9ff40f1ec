"""How much of each caller's work is prepared, queued and encoded at once: the rest of a large request waits outside.

A caller that holds nothing always enters, so a request of any size is answered, part by part. What a caller may hold
shrinks as callers become more: as their parts are answered they come to hold half the queue together, and the other
half is for newcomers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from graft_server.domain.caller import Caller
from graft_server.encoding.queueing import LOOKAHEAD, Limits

PARTS = 4
"""The least number of parts of what a caller may hold: one is encoded while others are prepared."""
_HALF = 2


@dataclass(slots=True, eq=False)
class _Window:
    """What one caller holds, and what waits until it holds less."""

    length: float = 0.0
    parts: int = 0
    requests: int = 0
    waiting: deque[tuple[asyncio.Future[None], float, bool]] = field(default_factory=deque)


class Windows:
    """A window for each caller, as in flow control. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._windows: dict[Caller, _Window] = {}
        # What is being encoded, what the next batches are chosen from, and as much again that is being prepared.
        self.most = min(
            2.0 * (limits.workers + LOOKAHEAD) * limits.budget, limits.queued_length / (_HALF * PARTS)
        )
        """The most length that a caller holds."""
        self.part = self.most / PARTS
        """The most length of a part."""

    @property
    def callers(self) -> int:
        """The number of callers that hold something."""
        return len(self._windows)

    def held(self, caller: Caller) -> float:
        """Returns the length that a caller holds."""
        window = self._windows.get(caller)
        return window.length if window else 0.0

    @asynccontextmanager
    async def place(self, caller: Caller, length: float, *, opens: bool = True) -> AsyncIterator[None]:
        """Waits until there is room for a part, first come, first served within the caller; then holds it.

        Args:
            caller: Whose part it is.
            length: The length of its items, as far as it is known.
            opens: Whether it is the first part of a request.
        """
        await self.enter(caller, length, opens=opens)
        try:
            yield
        finally:
            self.leave(caller, length, opens=opens)

    async def enter(self, caller: Caller, length: float, *, opens: bool) -> None:
        """Waits for room, and takes it; see `place`."""
        window = self._windows.setdefault(caller, _Window())
        if not window.waiting and self._fits(window, length, opens=opens):
            _take(window, length, opens=opens)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, length, opens)
        window.waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if entry in window.waiting:
                    window.waiting.remove(entry)
                self._admit(caller, window)
            else:  # it was let in in the same moment
                self.leave(caller, length, opens=opens)
            raise

    def leave(self, caller: Caller, length: float, *, opens: bool) -> None:
        """Gives room back."""
        window = self._windows[caller]
        window.parts -= 1
        window.requests -= opens
        # Sums of fractions do not come back to 0.
        window.length = window.length - length if window.parts else 0.0
        self._admit(caller, window)

    def _admit(self, caller: Caller, window: _Window) -> None:
        while window.waiting:
            turn, length, opens = window.waiting[0]
            if not turn.cancelled():
                if not self._fits(window, length, opens=opens):
                    return
                _take(window, length, opens=opens)
                turn.set_result(None)
            window.waiting.popleft()
        if not window.parts:
            self._windows.pop(caller, None)

    def _fits(self, window: _Window, length: float, *, opens: bool) -> bool:
        if not window.parts:
            return True
        limits, share = self._limits, _HALF * len(self._windows)
        if window.length + length > min(self.most, limits.queued_length / share):
            return False
        return not opens or window.requests < max(1, limits.queued_requests // share)


def _take(window: _Window, length: float, *, opens: bool) -> None:
    window.length += length
    window.parts += 1
    window.requests += opens
