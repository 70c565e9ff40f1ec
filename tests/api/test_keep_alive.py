"""What a caller who waits is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from graft_server.api.keep_alive import alive, waiting
from graft_server.domain.stream import Activity

SOON = 0.001
NEVER = 3600.0


def test_what_is_being_done_is_said_until_it_is_done() -> None:
    async def told() -> list[str]:
        done = asyncio.Event()
        stages = iter(["exporting", "loading", ""])
        said = []
        async for it in waiting(done.wait(), SOON, lambda: next(stages), first_s=NEVER):
            said.append(it.stage)
            if not it.stage:
                done.set()
        return said

    assert asyncio.run(told()) == ["exporting", "loading", ""]


def test_the_first_sign_may_come_before_the_others() -> None:
    async def told() -> Activity:
        async with aclosing(waiting(asyncio.Event().wait(), NEVER, lambda: "", first_s=SOON)) as signs:
            return await anext(signs)

    assert asyncio.run(told()) == Activity()


def test_an_error_of_the_work_is_raised() -> None:
    async def fails() -> None:
        raise KeyError("why")

    async def told() -> list[Activity]:
        return [it async for it in waiting(fails(), NEVER, lambda: "", first_s=NEVER)]

    with pytest.raises(KeyError, match="why"):
        asyncio.run(told())


def test_the_work_of_a_caller_who_leaves_is_cancelled() -> None:
    async def left() -> bool:
        task = asyncio.ensure_future(asyncio.Event().wait())
        async with aclosing(waiting(task, SOON, lambda: "", first_s=SOON)) as signs:
            await anext(signs)
        return task.cancelled()

    assert asyncio.run(left())


@pytest.mark.parametrize("every_s", [None, SOON, NEVER])
def test_a_stream_keeps_its_items_and_their_order(every_s: float | None) -> None:
    closed = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            for number in range(5):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(True)

    async def read() -> list[Any]:
        async with aclosing(alive(items(), every_s, lambda: "")) as stream:
            return [it async for it in stream if not isinstance(it, Activity)]

    assert asyncio.run(read()) == list(range(5))
    assert closed == [True]


def test_a_silent_stream_says_what_is_being_done_and_ends_with_its_reader() -> None:
    closed = []

    async def silent() -> AsyncGenerator[int, None]:
        try:
            await asyncio.Event().wait()
            yield 0
        finally:
            closed.append(True)

    async def read() -> Any:
        async with aclosing(alive(silent(), SOON, lambda: "composing")) as stream:
            return await anext(stream)

    assert asyncio.run(read()) == Activity("composing")
    assert closed == [True]
