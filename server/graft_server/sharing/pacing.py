"""Doing something no more often than it is worth, and once more after the last time that it was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Paced:
    """Calls a function when asked, at once or as soon as the last call is old enough. Belongs to one event loop."""

    def __init__(self, function: Callable[[], None], every_s: float) -> None:
        """Calls `function` no more often than once in `every_s`."""
        self._function = function
        self._every_s = every_s
        self._called = -every_s
        self._later: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        """Asks for a call."""
        if self._later is not None:
            return
        wait_s = self._called + self._every_s - time.monotonic()
        if wait_s <= 0:
            self._call()
        else:
            self._later = asyncio.get_running_loop().call_later(wait_s, self._call)

    def close(self) -> None:
        """Forgets a call that is still to come."""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _call(self) -> None:
        self._later = None
        self._called = time.monotonic()
        self._function()
