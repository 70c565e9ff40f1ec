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


@pytest.mark.parametrize("places", [1, 2])
def test_who_comes_new_has_its_turn_before_those_that_hold_places_and_want_more(places):
    async def scenario():
        turns, order, go_on = Turns(places), [], asyncio.Event()

        async def hold(key):
            async with turns.place(key):
                order.append(key)
                await go_on.wait()

        large = [asyncio.create_task(hold("large")) for _ in range(10)]
        await asyncio.sleep(0)
        small = [asyncio.create_task(hold(key)) for key in ("small", "other", "small")]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*large, *small)
        assert order[places : places + 3] == ["small", "other", "large"]
        assert order.count("small") == 2
        assert order.index("small", places + 1) == places + 3
        assert not turns.waiting

    asyncio.run(scenario())
