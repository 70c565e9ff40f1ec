"""The heads in memory, within a bound: the versions that were asked for least recently leave first.

What a version takes is counted, not estimated: its arrays with the memory that they are views of, its labels, and what
else hangs on it. The backbone and tuned layers are not part of it: they are shared, and have bounds of their own.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class HeadCache(Generic[T]):
    """Values by key within a bound of bytes. Belongs to one event loop."""

    def __init__(self, most_bytes: int) -> None:
        """Holds nothing yet, and at most so many bytes, or a single larger value."""
        self._most = most_bytes
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.bytes = 0
        """The bytes that all values take."""

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def full(self) -> bool:
        """Whether another value of the mean size would make one leave."""
        return self.bytes * (len(self._values) + 1) > self._most * max(1, len(self._values))

    def get(self, key: str) -> T | None:
        """Returns a value, which then was the last one asked for; None if it is not held."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: str, value: T, size: int) -> list[T]:
        """Holds a value of so many bytes, and returns those that leave for it, oldest first."""
        self.drop(key)
        self._values[key] = value, size
        self.bytes += size
        left: list[T] = []
        while self.bytes > self._most and len(self._values) > 1:
            _, (value, size) = self._values.popitem(last=False)
            self.bytes -= size
            left.append(value)
        return left

    def drop(self, key: str) -> T | None:
        """Lets go of a value, and returns it if it was held."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self.bytes -= found[1]
        return found[0]

    def values(self) -> list[T]:
        """Returns all values; the one asked for last comes last."""
        return [value for value, _ in self._values.values()]


def bytes_of(*roots: Any) -> int:
    """Returns the bytes that plain data take: arrays, structures, containers and what they hold, each object once."""
    seen: set[int] = set()
    unvisited = list(roots)
    total = 0
    while unvisited:
        it = unvisited.pop()
        if id(it) in seen or it is None or isinstance(it, type | Enum):
            continue
        seen.add(id(it))
        total += sys.getsizeof(it)
        unvisited += _parts(it)
    return total


def _parts(it: Any) -> Collection[Any]:
    """Returns the objects that an object holds."""
    match it:
        case np.ndarray():
            return [it.base]
        case memoryview():
            return [it.obj]
        case str() | bytes():
            return []
        case Mapping():
            return [*it.keys(), *it.values()]
        case Collection():
            return it
    names = getattr(it, "__struct_fields__", ()) or getattr(it, "__dataclass_fields__", ())
    return [getattr(it, name) for name in names]
