"""Requests of any size, part by part: what a caller holds at once, and what waits outside."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import DeadlineError
from graft_server.domain.examples import Input
from graft_server.encoding.parts import PART_INPUTS, in_parts
from graft_server.encoding.queueing import Limits
from graft_server.encoding.windows import PARTS, Windows

LIMITS = Limits(100, 2)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(30):
            return await scenario

    return asyncio.run(main())


class Work:
    """Answers parts when it is told to; remembers what was at work."""

    def __init__(self) -> None:
        self.parts: list[Sequence[Input]] = []
        self.opened: list[bool] = []
        self.most = self.now = 0
        self.go_on = asyncio.Event()

    async def __call__(self, inputs: Sequence[Input], opens: bool) -> list[str]:
        self.parts.append(inputs)
        self.opened.append(opens)
        self.now += sum(it.size for it in inputs)
        self.most = max(self.most, self.now)
        await self.go_on.wait()
        self.now -= sum(it.size for it in inputs)
        return [it.text for it in inputs]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def inputs(count: int, size: int = 10) -> list[Input]:
    return [Input(f"{n:0{size + n % 3}}") for n in range(count)]


def ask(windows: Windows, caller: Caller, asked: Sequence[Input], work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(in_parts(windows, caller, asked, lambda it: it.size, work))


def test_a_small_request_is_one_part():
    async def scenario() -> None:
        work, asked = Work(), inputs(5)
        work.go_on.set()
        found = await in_parts(Windows(LIMITS), new_call(), asked, lambda it: it.size, work)
        assert found == [(list(range(5)), [it.text for it in asked])]
        assert work.opened == [True]

    run(scenario())


def test_a_large_request_enters_as_room_comes_and_every_input_is_answered_at_its_place():
    async def scenario() -> None:
        windows, work, asked, caller = Windows(LIMITS), Work(), inputs(2_000), new_call()
        task = ask(windows, caller, asked, work)
        await turns()
        held = sum(map(len, work.parts))
        assert 0 < held < 200, "the rest waits outside"
        assert windows.held(caller) <= windows.most
        work.go_on.set()
        answers = {place: it for places, part in await task for place, it in zip(places, part, strict=True)}
        assert [answers[place] for place in range(2_000)] == [it.text for it in asked]
        assert work.most <= windows.most
        assert work.opened == [True] + [False] * (len(work.parts) - 1)
        assert max(map(len, work.parts)) <= PART_INPUTS
        assert windows.callers == 0

    run(scenario())


def test_inputs_of_a_part_are_of_like_length():
    async def scenario() -> None:
        work = Work()
        work.go_on.set()
        asked = [Input("x" * (1 + 37 * n % 97)) for n in range(500)]
        await in_parts(Windows(LIMITS), new_call(), asked, lambda it: it.size, work)
        longest = [max(it.size for it in part) for part in work.parts]
        shortest = [min(it.size for it in part) for part in work.parts]
        assert all(longest[n] <= shortest[n + 1] for n in range(len(longest) - 1))

    run(scenario())


def test_an_input_larger_than_a_room_is_a_part_of_its_own():
    async def scenario() -> None:
        windows, work = Windows(LIMITS), Work()
        work.go_on.set()
        found = await in_parts(windows, new_call(), [Input("x" * 10_000)] * 3, lambda it: it.size, work)
        assert [places for places, _ in found] == [[0], [1], [2]]
        assert work.most == 10_000, "one at a time"

    run(scenario())


def test_of_many_callers_each_holds_less():
    async def scenario() -> None:
        limits = Limits(100, 2, queued_length=8_000)
        windows, work = Windows(limits), Work()
        many = [new_call() for _ in range(20)]
        tasks = [ask(windows, caller, inputs(1_000), work) for caller in many]
        await turns(100)
        assert windows.part < windows.held(many[0]) <= windows.most
        assert 0 < windows.held(many[-1]) <= windows.part
        assert sum(map(windows.held, many)) <= 1.5 * limits.queued_length
        work.go_on.set()
        await asyncio.gather(*tasks)
        assert windows.callers == 0

    run(scenario())


def test_requests_of_a_stream_wait_beyond_its_share_and_others_enter_meanwhile():
    async def scenario() -> None:
        limits = Limits(100, 2, queued_requests=8)
        windows, work, stream = Windows(limits), Work(), new_call()
        tasks = [ask(windows, stream, inputs(1), work) for _ in range(30)]
        await turns()
        assert len(work.parts) == limits.queued_requests // 2
        other = ask(windows, new_call(), inputs(1), work)
        await turns()
        assert len(work.parts) == limits.queued_requests // 2 + 1
        work.go_on.set()
        await asyncio.gather(other, *tasks)

    run(scenario())


def test_parts_of_one_caller_enter_in_the_order_in_which_they_came():
    async def scenario() -> None:
        windows, caller, entered = Windows(LIMITS), new_call(), []

        async def hold(number: int) -> None:
            async with windows.place(caller, windows.most):
                entered.append(number)
                await turns(3)

        await asyncio.gather(*(hold(number) for number in range(6)))
        assert entered == list(range(6))

    run(scenario())


@pytest.mark.parametrize("when", ["as it waits", "as it is let in"])
def test_who_leaves_as_it_waits_keeps_no_room(when):
    async def scenario() -> None:
        windows, caller = Windows(LIMITS), new_call()
        await windows.enter(caller, windows.most, opens=True)
        waiting = [asyncio.create_task(windows.enter(caller, windows.most, opens=True)) for _ in range(2)]
        await turns(2)
        if when == "as it waits":
            waiting[0].cancel()
            await turns(2)
            windows.leave(caller, windows.most, opens=True)
        else:
            windows.leave(caller, windows.most, opens=True)
            waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert waiting[0].cancelled()
        await waiting[1]
        windows.leave(caller, windows.most, opens=True)
        assert windows.callers == 0

    run(scenario())


def test_after_an_error_nothing_of_the_request_enters_and_its_room_is_given_back():
    async def scenario() -> None:
        windows, parts = Windows(LIMITS), 0

        async def work(_inputs: Sequence[Input], _opens: bool) -> None:
            nonlocal parts
            parts += 1
            await turns(2)
            if parts >= PARTS:
                raise DeadlineError

        with pytest.raises(DeadlineError):
            await in_parts(windows, new_call(), inputs(3_000), lambda it: it.size, work)
        assert parts <= 3 * PARTS
        assert windows.callers == 0

    run(scenario())


def test_a_caller_who_leaves_ends_all_parts_of_its_request():
    async def scenario() -> None:
        windows, work = Windows(LIMITS), Work()
        task = ask(windows, new_call(), inputs(3_000), work)
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert windows.callers == 0

    run(scenario())


@pytest.mark.parametrize("steps", range(4))
def test_a_caller_who_leaves_before_its_parts_have_begun_keeps_no_room(steps):
    async def scenario() -> None:
        windows, work, loop = Windows(LIMITS), Work(), asyncio.get_running_loop()

        def leave_after(left: int) -> None:
            if left:
                loop.call_soon(leave_after, left - 1)
            else:
                task.cancel()

        task = ask(windows, new_call(), inputs(60), work)
        leave_after(steps)
        await asyncio.gather(task, return_exceptions=True)
        await turns()
        assert task.cancelled()
        assert windows.callers == 0

    run(scenario())


def test_a_caller_whose_parts_have_ended_holds_nothing_whatever_their_lengths_were():
    windows, caller = Windows(LIMITS), new_call()

    async def scenario() -> None:
        for length in (0.1, 0.2, 0.3):
            await windows.enter(caller, length, opens=False)
        for length in (0.1, 0.2, 0.3):
            windows.leave(caller, length, opens=False)

    run(scenario())
    assert windows.callers == 0
