"""What of one stream of predictions is processed at once: so many requests, and so many bytes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from graft_server.api.predictions import STREAM_BYTES, STREAM_REQUESTS, StreamRoom


@pytest.mark.parametrize(
    ("sizes", "at_once"),
    [
        ([100] * 200, STREAM_REQUESTS),
        ([STREAM_BYTES // 4] * 20, 4),
        ([3 * STREAM_BYTES] * 5, 1),
        ([10, 3 * STREAM_BYTES, 10], 1),
    ],
)
def test_a_stream_takes_in_as_many_requests_and_bytes_as_it_may_and_all_in_the_end(
    sizes: Sequence[int], at_once: int
) -> None:
    working = most = answered = 0

    async def answer(room: StreamRoom, size: int) -> None:
        nonlocal working, most, answered
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        working -= 1
        answered += 1
        room.end(size)

    async def main() -> None:
        room = StreamRoom()
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            for size in sizes:
                await room.begin(size)
                group.create_task(answer(room, size))

    asyncio.run(main())
    assert (most, answered) == (at_once, len(sizes))
