"""A log of numbered objects, one an entry, from 1 without gaps.

The writer that creates the next number decides the next entry: a writer that finds it taken reads it and decides
again. Readers only ever ask for the next number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

from graft_server.store.objects.objects import ObjectMissingError, Objects, decode_json

# Reads in flight while catching up: enough to hide a bucket's round trip.
_READERS = 16

T = TypeVar("T")


class NumberedLog(Generic[T]):
    """One log, and how far it was read. Its owner ensures that one thread at a time uses it."""

    def __init__(self, objects: Objects, folder: str, kind: Any) -> None:
        """Describes the log without reading it.

        Args:
            objects: The store.
            folder: The prefix of its keys, ending in "/".
            kind: The type of its entries, possibly a union.
        """
        self._objects = objects
        self._folder = folder
        self._kind = kind
        self._ahead: dict[int, bytes] = {}
        self.next_number = 1
        """The number of the entry that is read or appended next."""

    def key(self, number: int) -> str:
        """Returns the key of an entry."""
        return f"{self._folder}{number:020d}.json"

    def prefetch(self) -> None:
        """Reads the existing entries in parallel, for the calls of `read_next` that follow."""
        numbers = range(self.next_number, len(self._objects.keys(self._folder)) + 1)

        def fetch(number: int) -> tuple[int, bytes] | None:
            try:
                return number, self._objects.get(self.key(number))
            except Exception:  # noqa: BLE001 -- read_next meets it again and reports it
                return None

        if numbers:
            with ThreadPoolExecutor(_READERS) as pool:
                self._ahead = dict(filter(None, pool.map(fetch, numbers)))

    def read(self, number: int) -> T | None:
        """Returns an entry, None if there is none yet, or raises CorruptError."""
        key = self.key(number)
        try:
            data = self._ahead.pop(number, None) or self._objects.get(key)
        except ObjectMissingError:
            return None
        return cast("T", decode_json(key, data, self._kind))

    def read_next(self) -> T | None:
        """Returns the next entry and moves on, or returns None if there is none yet."""
        entry = self.read(self.next_number)
        if entry is not None:
            self.next_number += 1
        return entry

    def skip(self) -> None:
        """Moves past an entry that cannot be read."""
        self.next_number += 1

    def append(self, entry: T) -> int:
        """Creates the next entry and moves past it, or raises ObjectExistsError if another writer has."""
        number = self.next_number
        self._objects.create_json(self.key(number), entry)
        self.next_number += 1
        return number
