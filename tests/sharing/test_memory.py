"""Room for what streams bring: never more than there is, in equal parts, and in the end for everybody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from graft_server.sharing.memory import Intake, Share


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


async def waiting(share: Share, size: int) -> asyncio.Task[None]:
    """Asks for room that is not there."""
    task = asyncio.create_task(share.take(size))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def test_who_asks_for_more_than_there_is_waits_until_some_is_given_back():
    async def scenario() -> None:
        intake = Intake(100)
        one, two = intake.share(), intake.share()
        await one.take(60)
        task = await waiting(two, 50)
        one.give_back(10)
        await task
        assert (one.held, two.held, intake.held) == (50, 50, 100)

    run(scenario)


def test_one_share_holds_no_more_than_its_part_though_there_is_room():
    async def scenario() -> None:
        intake = Intake(100, most_of_one=40)
        one, two = intake.share(), intake.share()
        await one.take(30)
        task = await waiting(one, 20)
        await two.take(40)
        one.give_back(30)
        await task
        assert (one.held, two.held) == (20, 40)

    run(scenario)


def test_who_holds_least_goes_first():
    async def scenario() -> None:
        intake = Intake(100)
        full, half, empty = (intake.share() for _ in range(3))
        await full.take(80)
        await half.take(20)
        order: list[str] = []
        tasks = []
        for name, share in (("full", full), ("half", half), ("empty", empty)):
            tasks.append(await waiting(share, 20))
            tasks[-1].add_done_callback(lambda _, name=name: order.append(name))
        for _ in range(3):
            full.give_back(20)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == ["empty", "half", "full"]

    run(scenario)


def test_small_batches_do_not_overtake_a_large_one_for_ever():
    async def scenario() -> None:
        intake = Intake(100)
        busy, patient = intake.share(), intake.share()
        await busy.take(50)
        await busy.take(50)
        large = await waiting(patient, 90)
        small = await waiting(busy, 1)
        busy.give_back(50)
        await asyncio.sleep(0)
        assert not small.done()
        busy.give_back(50)
        await asyncio.gather(large, small)

    run(scenario)


def test_writers_of_one_share_are_served_in_their_order():
    async def scenario() -> None:
        intake = Intake(100, most_of_one=50)
        share = intake.share()
        await share.take(50)
        large, small = await waiting(share, 50), await waiting(share, 1)
        share.give_back(20)
        await asyncio.sleep(0)
        assert not small.done()
        share.give_back(30)
        await large
        share.give_back(50)
        await small

    run(scenario)


def test_more_than_all_room_is_let_in_alone():
    async def scenario() -> None:
        intake = Intake(100)
        one, two = intake.share(), intake.share()
        await one.take(1)
        task = await waiting(two, 1_000)
        one.give_back(1)
        await task
        another = await waiting(one, 1)
        two.give_back(1_000)
        await another

    run(scenario)


def test_who_leaves_while_waiting_holds_nothing_and_holds_nobody_up():
    async def scenario() -> None:
        intake = Intake(100)
        one, two, three = (intake.share() for _ in range(3))
        await one.take(60)
        large = await waiting(two, 90)
        small = await waiting(three, 40)
        large.cancel()
        await small
        assert (two.held, intake.held) == (0, 100)

    run(scenario)


def test_who_is_let_in_and_leaves_in_the_same_moment_holds_nothing():
    async def scenario() -> None:
        intake = Intake(100)
        one, two, three = (intake.share() for _ in range(3))
        await one.take(100)
        tasks = [await waiting(two, 100), await waiting(three, 100)]
        one.give_back(100)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (two.held, three.held, intake.held) == (0, 100, 100)
        last = await waiting(one, 100)
        last.cancel()
        three.give_back(100)
        await asyncio.gather(last, return_exceptions=True)
        assert intake.held == 0

    run(scenario)


def test_whatever_comes_and_goes_the_bounds_hold_and_nobody_is_left_waiting():
    async def scenario() -> None:
        rng = random.Random(0)  # noqa: S311 - seeded on purpose
        intake = Intake(1_000, most_of_one=300)

        async def stream(share: Share) -> None:
            for _ in range(100):
                size = rng.randint(1, 300)
                task = asyncio.create_task(share.take(size))
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
                    task.cancel()
                (result,) = await asyncio.gather(task, return_exceptions=True)
                if result is not None:
                    continue
                assert share.held <= 300
                assert intake.held <= 1_000
                await asyncio.sleep(0)
                share.give_back(size)

        shares = [intake.share() for _ in range(20)]
        await asyncio.gather(*map(stream, shares))
        assert [it.held for it in shares] == [0] * 20
        assert intake.held == 0

    run(scenario)
