"""A log of numbered objects, one an entry, from 1 without gaps.

The writer that creates the next number decides the next entry: a writer that finds it taken reads it and decides
again. Readers ask for the next number. Where it is missing they look for later ones: an entry that is missing before
others is damage, not the log's end, and whoever took it for the end would write it a second time.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from graft_server.store.objects.objects import ObjectMissingError, Objects, corrupt, decode_json

# Reads in flight while catching up: enough to hide a bucket's round trip.
_READERS = 16
_NAME = re.compile(r"(\d{20})\.json")

T = TypeVar("T")


class NumberedLog(Generic[T]):
    """One log, and how far it was read. Its owner ensures that one thread at a time uses it."""

    def __init__(self, objects: Objects, folder: str, kind: Any, first: int = 1) -> None:
        """Describes the log without reading it.

        Args:
            objects: The store.
            folder: The prefix of its keys, ending in "/".
            kind: The type of its entries, possibly a union.
            first: The number of the entry that is read first.
        """
        self._objects = objects
        self._folder = folder
        self._kind = kind
        self._ahead: dict[int, bytes] = {}
        self._ended: tuple[int, int | None] | None = None
        """The number that was last found to be the end, and the folder's mark then."""
        self.next_number = first
        """The number of the entry that is read or appended next."""

    def key(self, number: int) -> str:
        """Returns the key of an entry."""
        return f"{self._folder}{_name(number)}"

    def prefetch(self) -> None:
        """Reads the existing entries in parallel, for the calls of `read_next` that follow."""
        numbers = self._numbers_after(self.next_number - 1)

        def fetch(number: int) -> tuple[int, bytes] | None:
            try:
                return number, self._objects.get(self.key(number))
            except Exception:  # noqa: BLE001 -- read_next meets it again and reports it
                return None

        if numbers:
            with ThreadPoolExecutor(_READERS) as pool:
                self._ahead = dict(filter(None, pool.map(fetch, numbers)))

    def read(self, number: int) -> T | None:
        """Returns an entry, or None if the log ends before it.

        Raises:
            CorruptError: The entry is damaged, or it is missing while a later one is there.
        """
        data = self._ahead.pop(number, None) or self._found(number)
        return None if data is None else cast("T", decode_json(self.key(number), data, self._kind))

    def read_next(self) -> T | None:
        """Returns the next entry and moves on, or returns None if there is none yet; raises as `read` does."""
        entry = self.read(self.next_number)
        if entry is not None:
            self.next_number += 1
        return entry

    def skip(self) -> None:
        """Moves past an entry that cannot be read."""
        self.next_number += 1

    def append(self, entry: T) -> int:
        """Creates the next entry and moves past it, or raises ObjectExistsError if another writer has.

        `read_next` must have returned None since anybody else may have written: so it is known to be the next one.
        """
        number = self.next_number
        at_the_end = self._ended == (number, self._objects.mark(self._folder))
        self._objects.create_json(self.key(number), entry)
        self.next_number += 1
        if at_the_end:  # so the new entry is the only change, and the next read needs no look at the folder
            self._ended = self.next_number, self._objects.mark(self._folder)
        return number

    def _found(self, number: int) -> bytes | None:
        key, mark = self.key(number), self._objects.mark(self._folder)
        if mark is None and not self._numbers_after(number - 1):
            return None  # one request of a bucket tells the end, and that there is no gap
        with suppress(ObjectMissingError):
            return self._objects.get(key)
        if mark is not None and self._ended == (number, mark):
            return None
        later = self._numbers_after(number)
        if not later:
            self._ended = number, mark
            return None
        try:
            return self._objects.get(key)  # it may have been written since
        except ObjectMissingError:
            raise corrupt(key, f"it is missing, although entry {later[0]} is there") from None

    def _numbers_after(self, number: int) -> list[int]:
        """Returns the numbers of the entries that exist after a number, ascending."""
        names = map(_NAME.fullmatch, self._objects.names_after(self._folder, _name(number)))
        return [int(it[1]) for it in names if it]


def _name(number: int) -> str:
    return f"{number:020d}.json"
