"""Background work, which must continue when one round of it fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from graft_server.domain.errors import DomainError

T = TypeVar("T")


async def survived(work: Awaitable[object], doing: str, log: logging.Logger) -> bool:
    """Awaits one round of work, logs what it raises, and returns whether it raised nothing.

    A domain error is logged by its message, any other exception with its traceback: a task that ended because of it
    would leave the server without its work until the next restart. Cancellation passes through.

    Args:
        work: One round.
        doing: What the round does, for the log: "following the catalogue".
        log: The logger of the module whose work it is.
    """
    try:
        await work
    except DomainError as error:
        log.warning("%s failed, and is tried again: %s", doing, error.message)
    except Exception:
        log.exception("%s failed, and is tried again", doing)
    else:
        return True
    return False


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields items to work on, and waits after each for as long as it took: half of the time is left to requests."""
    for item in items:
        began = time.monotonic()
        yield item
        await asyncio.sleep(time.monotonic() - began)


STALE_S = 30.0
"""The seconds without a round that succeeds after which a watchdog barks."""
LOOK_S = 5.0
"""The seconds between two looks of a watchdog."""


class Watchdog:
    """Tells when no round of some work has succeeded for long: rounds fail, hang, or are not begun any more."""

    def __init__(
        self,
        doing: str,
        log: logging.Logger,
        on_turn: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Counts from now on.

        Args:
            doing: What a round does, for the log.
            log: The logger of the module whose work it is.
            on_turn: Called with False when no round has succeeded for STALE_S, and with True when one does again.
            clock: Returns seconds.
        """
        self._doing = doing
        self._log = log
        self._on_turn = on_turn
        self._clock = clock
        self._last = clock()
        self._stale = False

    @property
    def since_s(self) -> float:
        """The seconds since the last round that succeeded."""
        return self._clock() - self._last

    def succeeded(self) -> None:
        """Notes that a round has succeeded."""
        if self._stale:
            self._log.warning("%s succeeds again, after %.0f s", self._doing, self.since_s)
            self._stale = False
            self._on_turn(True)
        self._last = self._clock()

    def look(self) -> None:
        """Tells if no round has succeeded for long: `on_turn` once, the log at each look."""
        if self.since_s < STALE_S:
            return
        self._log.error("%s last succeeded %.0f s ago", self._doing, self.since_s)
        if not self._stale:
            self._stale = True
            self._on_turn(False)

    async def watch(self) -> None:
        """Looks again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
