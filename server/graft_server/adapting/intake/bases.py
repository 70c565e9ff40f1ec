"""Room for the examples of the bases that open adaptations match with: one caller's many must not take all memory."""

from __future__ import annotations

import threading
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from graft_server.domain.errors import OverloadError

MOST_EXAMPLES: Final = 2_500_000
"""Of all bases together: about 500 MB."""
RETRY_S: Final = 10.0
"""The wait for an adaptation whose base finds no room: the calls of others end in some seconds to minutes."""


class HeldBase(Protocol):
    """A base in memory. It is read anew when it is needed."""

    def make_way(self) -> bool:
        """Lets go of the base if no call needs it now, and returns whether it did; does not wait."""


class Bases:
    """How many examples of bases are in memory. Thread-safe."""

    def __init__(self, most_examples: int = MOST_EXAMPLES) -> None:
        """Holds none yet."""
        self._most = most_examples
        self._lock = threading.Lock()
        self._held: WeakKeyDictionary[HeldBase, int] = WeakKeyDictionary()
        """Those read longest ago first."""

    @property
    def held(self) -> int:
        """How many examples are held."""
        with self._lock:
            return sum(self._held.values())

    def take(self, base: HeldBase, examples: int) -> None:
        """Takes room for a base; others that no call needs make way. A base that is alone always finds room.

        Raises:
            OverloadError: The bases that calls need leave no room for it (BASES_TOO_LARGE).
        """
        with self._lock:
            self._held.pop(base, None)
            for other in list(self._held):
                if sum(self._held.values()) + examples <= self._most:
                    break
                if other.make_way():
                    del self._held[other]
            held = sum(self._held.values())
            if held and held + examples > self._most:
                raise OverloadError(
                    f"The adaptations that are open match with {held:,} examples of the versions "
                    f"that they go on from, and at most {self._most:,} are kept at once: try again later.",
                    reason="BASES_TOO_LARGE",
                    retry_after_s=RETRY_S,
                )
            self._held[base] = examples

    def give_back(self, base: HeldBase) -> None:
        """Gives a base's room back, if it has some."""
        with self._lock:
            self._held.pop(base, None)
