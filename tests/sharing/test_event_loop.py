from __future__ import annotations

import asyncio

import pytest

from graft_server.sharing.event_loop import SLICE, in_slices


def test_others_have_the_event_loop_between_the_slices_of_a_long_list() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> list[int]:
        busy = asyncio.create_task(other())
        doubled = await in_slices(lambda it: 2 * it, range(10 * SLICE + 1))
        busy.cancel()
        return doubled

    assert asyncio.run(main()) == [2 * it for it in range(10 * SLICE + 1)]
    assert turns >= 10


def test_a_short_list_is_worked_through_at_once() -> None:
    with pytest.raises(StopIteration) as finished:  # at its first step: it never waits
        in_slices(str, [1, 2]).send(None)
    assert finished.value.value == ["1", "2"]
