"""Calls that may last for ever and can go on in another call end at the age at which their connection is renewed.

gRPC would let them keep an old connection for ever, or break calls that cannot go on elsewhere, as an evaluation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from graft_server.domain.errors import AgedError

T = TypeVar("T")


async def until_age(
    stream: AsyncGenerator[T, None], age_s: float, ends: Callable[[], bool] = lambda: True
) -> AsyncGenerator[T, None]:
    """Yields what a stream yields until it has lasted for so long. The stream is closed.

    Args:
        stream: The stream. What it holds across its items may not be bound to a task.
        age_s: The age, in seconds; 0: to the stream's end.
        ends: Whether it ends at that age; asked then.

    Raises:
        AgedError: The age was reached; the caller is to call again.
    """
    if not age_s:
        async with aclosing(stream):
            async for each in stream:
                yield each
        return
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + age_s
    following: asyncio.Future[T | None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream, None))
            while not following.done():
                left_s = ends_at - loop.time()
                await asyncio.wait({following}, timeout=None if left_s == math.inf else max(0.0, left_s))
                if not following.done():
                    if ends():
                        raise AgedError
                    ends_at = math.inf
            if (item := following.result()) is None:
                return
            yield item
    finally:
        if following is not None and not following.done():
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await stream.aclose()


class RequestsUntilAge(AsyncIterator[T]):
    """The requests of a stream until it has lasted for so long: those that were taken can still be answered then."""

    def __init__(self, requests: AsyncIterator[T], age_s: float) -> None:
        """Counts from now; an age of 0 s ends nothing. At the age the iteration raises AgedError."""
        self._requests = requests
        self._ends_at = asyncio.get_running_loop().time() + age_s if age_s else None

    async def __anext__(self) -> T:
        try:
            async with asyncio.timeout_at(self._ends_at):
                return await anext(self._requests)
        except TimeoutError:
            raise AgedError from None
