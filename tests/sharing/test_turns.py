"""Turns, where things happen in the same moment."""

import asyncio

import pytest

from graft_server.sharing.turns import Turns


def test_a_waiter_that_is_cancelled_as_a_place_becomes_free_is_cancelled():
    async def scenario():
        turns = Turns(1)

        async def hold():
            async with turns.place("a"):
                pass

        async with turns.place("a"):
            waiting = asyncio.create_task(hold())
            await asyncio.sleep(0)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert turns.waiting == 0
        await hold()  # the place is free

    asyncio.run(scenario())
