"""Works through long lists in slices, so that one large request does not delay all small ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

SLICE = 256
"""Items between two turns of the event loop: about a millisecond, at some microseconds each."""


def slices(count: int, size: int) -> Iterator[slice]:
    """Returns slices of that size, the last one shorter, of `count` items."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


async def in_slices(work: Callable[[T], U], items: Sequence[T], size: int = SLICE) -> list[U]:
    """Returns a quick function's results for the items, in order. The event loop turns between slices of that size."""
    results: list[U] = []
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        results.extend(map(work, items[start : start + size]))
    return results
