"""A fixed number of places and a fair queue for them: keys take turns, each first come, first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """Places for up to `places` holders at once. Belongs to one event loop."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        """In the order of the keys' turns."""
        self._holding: dict[Hashable, int] = {}
        """How many places each key holds."""

    @property
    def waiting(self) -> int:
        """The number of callers that wait for a place."""
        return sum(map(len, self._waiting.values()))

    @property
    def full(self) -> bool:
        """Whether a caller that comes has to wait."""
        return not self._free

    @asynccontextmanager
    async def place(self, key: Hashable) -> AsyncIterator[None]:
        """Waits for this caller's turn, then holds a place."""
        await self._acquire(key)
        try:
            yield
        finally:
            self._release(key)

    async def _acquire(self, key: Hashable) -> None:
        if self._free:
            self._free -= 1
            self._hold(key)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if key not in self._waiting:
            self._waiting[key] = deque()
            if key not in self._holding:
                self._before_holders(key)
        self._waiting[key].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(key, turn)
            else:  # it received the place in the same moment
                self._release(key)
            raise

    def _before_holders(self, key: Hashable) -> None:
        """Gives a key that comes new its turn before the keys at the end that hold a place and had theirs."""
        behind = []
        for other in reversed(self._waiting):
            if other == key:
                continue
            if other not in self._holding:
                break
            behind.append(other)
        for other in reversed(behind):
            self._waiting.move_to_end(other)

    def _leave(self, key: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is None or turn not in queue:
            return  # it was passed over already, by a holder that released its place in the same moment
        queue.remove(turn)
        if not queue:
            del self._waiting[key]

    def _hold(self, key: Hashable) -> None:
        self._holding[key] = self._holding.get(key, 0) + 1

    def _release(self, key: Hashable) -> None:
        self._holding[key] -= 1
        if not self._holding[key]:
            del self._holding[key]
        while self._waiting:
            key, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[key] = queue  # behind all other keys
            if not turn.cancelled():
                self._hold(key)
                turn.set_result(None)
                return
        self._free += 1
