"""Doing something no more often than it is worth."""

from __future__ import annotations

import asyncio

from graft_server.sharing.pacing import Paced


def test_many_wishes_become_one_call_and_one_after_the_last():
    async def scenario() -> None:
        called: list[int] = []
        wanted, done = 0, asyncio.Event()

        def call() -> None:
            called.append(wanted)
            if wanted == 50:
                done.set()

        paced = Paced(call, 0.02)
        for _ in range(50):
            wanted += 1
            paced()
        assert called == [1]
        async with asyncio.timeout(10):
            await done.wait()
        assert called == [1, 50]

    asyncio.run(scenario())


def test_what_was_to_come_is_forgotten_at_the_end():
    async def scenario() -> None:
        called: list[int] = []
        paced = Paced(lambda: called.append(1), 3600.0)
        paced()
        paced()
        paced.close()
        assert called == [1]

    asyncio.run(scenario())
