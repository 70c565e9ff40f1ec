"""How far ahead of sending the examples of a stream are looked at."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Final

_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_S: Final = 0.05


class LookAhead:
    """The limits of a look: a number of items, their size, and a source that is slow, which is not waited for twice."""

    def __init__(self, most: int) -> None:
        """Begins to look; `most` is the largest number of items."""
        self.count = 0
        """How many have been looked at."""
        self._most = most
        self._bytes = 0
        self._since = time.monotonic()
        self._slow = False

    @property
    def within(self) -> bool:
        """Whether another item may be looked at."""
        return self.count < self._most and self._bytes < _MOST_BYTES and not self._slow

    def at(self, values: Iterable[Any]) -> None:
        """Takes note of an item that has come, with its values."""
        now = time.monotonic()
        self._slow = now - self._since > _MOST_S
        self._since = now
        self.count += 1
        self._bytes += sum(map(sys.getsizeof, values))
