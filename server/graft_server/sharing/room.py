"""Room for what calls keep in memory, or on disk, until they end: taken at once, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graft_server.domain.errors import DomainError


class Room:
    """Room for all calls of one kind together. Belongs to one event loop."""

    def __init__(self, capacity: int, most_of_one: int = 0) -> None:
        """Makes an empty one.

        Args:
            capacity: What all calls together may hold.
            most_of_one: What one call may hold; 0: all of it.
        """
        self.capacity = capacity
        self.most_of_one = min(most_of_one or capacity, capacity)
        self.held = 0
        """What all calls hold."""

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One call's share, which is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held


class Share:
    """What one call holds.

    Attributes:
        held: How much that is.
    """

    def __init__(self, room: Room) -> None:
        self.held = 0
        self._room = room

    def take(self, size: int, too_large: Callable[[], DomainError], full: Callable[[], DomainError]) -> None:
        """Takes more room.

        Raises:
            DomainError: `too_large` where the call would hold more than one may, `full` where there is no room now.
        """
        if self.held + size > self._room.most_of_one:
            raise too_large()
        if self._room.held + size > self._room.capacity:
            raise full()
        self.held += size
        self._room.held += size
