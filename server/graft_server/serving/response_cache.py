"""A cache of answers: off by default, since most traffic never repeats a request.

An answer depends on the version (whose manifest names encoder and head, and never changes), the input, and the
options; all of them are in the key, so an entry can be old but never wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class ResponseCache(Generic[V]):
    """The most recently used answers."""

    def __init__(self, entries: int) -> None:
        """Keeps at most `entries` answers; 0 keeps none."""
        self._size = entries
        self._entries: OrderedDict[Hashable, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def on(self) -> bool:
        """Whether the cache keeps anything."""
        return self._size > 0

    def get(self, key: Hashable) -> V | None:
        """Returns the cached answer, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Hashable, value: V) -> None:
        """Keeps an answer, and drops the least recently used one."""
        if not self.on:
            return
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
