"""The moment in which a version gets its number."""

import asyncio

from graft_server.sharing.shielding import uncancelled


def test_a_cancellation_comes_too_late_for_work_that_has_begun():
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def enter() -> str:
            await go_on.wait()
            return "version 1"

        entering = asyncio.create_task(uncancelled(enter()))
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.sleep(0)
        assert not entering.done()
        go_on.set()
        assert await entering == "version 1"

    asyncio.run(scenario())
