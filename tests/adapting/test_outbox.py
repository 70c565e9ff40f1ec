"""What waits for one caller of Adapt: it coalesces, keeps its order, and ends as it should."""

from __future__ import annotations

import asyncio

import pytest

from graft_server.adapting.outbox import MOST_UNREAD, REJECTIONS_AT_ONCE, Outbox
from graft_server.domain.errors import DrainingError
from graft_server.domain.examples import Rejection
from graft_server.domain.stream import Accepted, Committed, Message, Progress, Published, Reconnect


def rejection(sequence: int) -> Rejection:
    return Rejection(sequence, "TEST", "field", "detail", "w")


def read(box: Outbox, count: int) -> list[Message | None]:
    async def main() -> list[Message | None]:
        async with asyncio.timeout(30):
            return [await box.get() for _ in range(count)]

    return asyncio.run(main())


def test_unread_acknowledgements_coalesce_with_all_their_rejections():
    box = Outbox()
    for sequence in range(10):
        box.accept(sequence + 1, [rejection(sequence)] if sequence % 2 else [])
    box.end()
    accepted, end = read(box, 2)
    assert accepted == Accepted(10, tuple(rejection(it) for it in (1, 3, 5, 7, 9)))
    assert end is None


def test_many_rejections_come_in_several_acknowledgements():
    box = Outbox()
    box.accept(2 * REJECTIONS_AT_ONCE + 1, [rejection(it) for it in range(2 * REJECTIONS_AT_ONCE + 1)])
    box.end()
    *messages, end = read(box, 4)
    assert [len(it.rejected) for it in messages if isinstance(it, Accepted)] == [
        REJECTIONS_AT_ONCE,
        REJECTIONS_AT_ONCE,
        1,
    ]
    assert end is None


def test_an_acknowledgement_is_not_overtaken_by_its_commit_and_progress_comes_last():
    box = Outbox()
    box.put(Progress("c", "encoding"))
    box.put(Committed("c", 1))
    box.accept(1, [])
    box.put(Progress("c", "selecting"))
    assert read(box, 3) == [Accepted(1), Committed("c", 1), Progress("c", "selecting")]


def test_progress_that_was_not_read_before_the_outcome_is_dropped():
    box = Outbox()
    box.put(Progress("c", "publishing"))
    box.put(Published("c", "m", 1, None))
    box.end()
    assert read(box, 2) == [Published("c", "m", 1, None), None]


def test_a_failure_comes_at_once_and_the_first_one_stays():
    box = Outbox()
    box.accept(1, [])
    box.fail(KeyError("first"))
    box.fail(KeyError("second"))
    with pytest.raises(KeyError, match="first"):
        read(box, 1)


def test_an_end_with_an_error_comes_after_what_is_unread():
    box = Outbox()
    box.accept(1, [])
    box.put(Reconnect(1))
    box.end(DrainingError())
    assert read(box, 2) == [Accepted(1), Reconnect(1)]
    with pytest.raises(DrainingError):
        read(box, 1)


def test_whoever_waits_is_woken_by_the_next_message():
    async def main() -> Message | None:
        box = Outbox()
        waiting = asyncio.create_task(box.get())
        await asyncio.sleep(0)
        box.accept(1, [])
        async with asyncio.timeout(30):
            return await waiting

    assert asyncio.run(main()) == Accepted(1)


def test_there_is_room_once_some_messages_are_read_or_no_more_will_be():
    async def main() -> None:
        for end in ("read", "fail", "end"):
            box = Outbox()
            for number in range(MOST_UNREAD):
                await box.room()
                box.put(Committed(str(number), 0))
            waiting = asyncio.create_task(box.room())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            if end == "read":
                await box.get()
            elif end == "fail":
                box.fail(DrainingError())
            else:
                box.end()
            async with asyncio.timeout(30):
                await waiting

    asyncio.run(main())
