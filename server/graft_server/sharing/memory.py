"""Limits the memory that changes from all streams together may take.

The share that holds least goes first, so that many large streams cannot keep a small one out, and all end up with equal
shares if there is not enough for all. A stream that waits here does not read from its client, and the
transport's flow control makes the client wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    share: Share
    size: int
    admitted: asyncio.Future[None]


class Intake:
    """Room for the changes that wait for the disk and the encoder. Belongs to one event loop."""

    def __init__(self, capacity: int = 256 << 20, most_of_one: int = 8 << 20) -> None:
        """Makes an empty one.

        Args:
            capacity: The bytes for all shares together. A single larger batch is let in alone.
            most_of_one: The bytes that one share may hold: some seconds of the encoder's work.
        """
        self._capacity = capacity
        self._most_of_one = min(most_of_one, capacity)
        self._held = 0
        self._waiting: list[_Waiter] = []

    @property
    def held(self) -> int:
        """The bytes that all shares hold."""
        return self._held

    def share(self) -> Share:
        """Returns a share for one adaptation."""
        return Share(self)

    async def take(self, share: Share, size: int) -> None:
        """Waits until there is room for `size` more bytes of a share, and counts them in."""
        waiter = _Waiter(share, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._admit()  # others may have waited behind it
            else:
                self.give_back(share, size)
            raise

    def give_back(self, share: Share, size: int) -> None:
        """Counts bytes of a share out again."""
        share.held -= size
        self._held -= size
        self._admit()

    def _admit(self) -> None:
        while candidates := self._candidates():
            # Among equals, the one that has waited longest. Nothing overtakes it, or large batches would wait for ever.
            first = min(candidates, key=lambda it: it.share.held)
            if self._held and self._held + first.size > self._capacity:
                return
            self._waiting.remove(first)
            first.share.held += first.size
            self._held += first.size
            first.admitted.set_result(None)

    def _candidates(self) -> list[_Waiter]:
        """Returns the oldest waiter of each share that may hold its batch."""
        oldest: dict[Share, _Waiter] = {}
        for it in self._waiting:
            if not it.admitted.cancelled():  # a cancelled waiter is about to leave
                oldest.setdefault(it.share, it)
        most = self._most_of_one
        return [it for it in oldest.values() if not it.share.held or it.share.held + it.size <= most]


class Share:
    """One adaptation's part of an intake.

    Attributes:
        held: The bytes that it holds.
    """

    def __init__(self, intake: Intake) -> None:
        self.held = 0
        self._intake = intake

    async def take(self, size: int) -> None:
        """Waits until there is room for `size` more bytes, and counts them in."""
        await self._intake.take(self, size)

    def give_back(self, size: int) -> None:
        """Counts bytes out again."""
        self._intake.give_back(self, size)
