"""Signs of life: what a caller who waits is told while what it asked for is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from graft_server.domain.stream import Activity

T = TypeVar("T")

Doing = Callable[[], str]
"""Says what is being done at this moment, for people; "" where there is nothing to say."""


async def waiting(
    work: Awaitable[object], every_s: float, doing: Doing, *, first_s: float
) -> AsyncGenerator[Activity, None]:
    """Yields what is being done until the work is; cancels the work if the caller leaves.

    Args:
        work: What is waited for.
        every_s: How often to say so, in seconds.
        doing: What is being done.
        first_s: When to say so first, in seconds, if that is before.

    Raises:
        DomainError: The error of the work.
    """
    task = asyncio.ensure_future(work)
    try:
        silence_s = min(first_s, every_s)
        while True:
            await asyncio.wait({task}, timeout=silence_s)
            silence_s = every_s
            if task.done():
                task.result()
                return
            yield Activity(doing())
    finally:
        await _ended(task)


async def alive(
    stream: AsyncGenerator[T, None], every_s: float | None, doing: Doing
) -> AsyncGenerator[T | Activity, None]:
    """Yields what a stream yields, and what is being done after each silence.

    Args:
        stream: The stream; closed at the end. What it holds across its items may not be bound to a task.
        every_s: The silence, in seconds; None: nothing is added.
        doing: What is being done.
    """
    following: asyncio.Future[T | None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream, None))
            while not following.done():
                await asyncio.wait({following}, timeout=every_s)
                if not following.done():
                    yield Activity(doing())
            if (item := following.result()) is None:
                return
            yield item
    finally:
        if following is not None:
            await _ended(following)
        await stream.aclose()


async def _ended(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
