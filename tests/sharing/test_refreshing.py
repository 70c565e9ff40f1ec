"""Reads that are shared, and waited for only as long as they are worth it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from graft_server.sharing.refreshing import Refreshing
from graft_server.sharing.threads import Threads


def test_a_read_that_hangs_takes_one_thread_and_nobody_waits_for_it_for_long():
    answers, reads = threading.Event(), []

    def read() -> int:
        reads.append(threading.current_thread())
        answers.wait()
        return len(reads)

    async def scenario() -> None:
        threads = Threads("reading", 8)
        refreshing = Refreshing(read, threads)
        assert not refreshing.late
        assert await asyncio.gather(*(refreshing(0.01) for _ in range(50))) == [None] * 50
        assert refreshing.late
        assert len(reads) == 1
        answers.set()
        # The read that was running may have begun too early for them: they share the next one.
        assert await asyncio.gather(*(refreshing(60.0) for _ in range(50))) == [2] * 50
        assert not refreshing.late
        threads.close()

    asyncio.run(scenario())


def test_what_a_read_raises_in_time_is_raised():
    def read() -> int:
        raise OSError("gone")

    async def scenario() -> None:
        threads = Threads("reading", 1)
        with pytest.raises(OSError, match="gone"):
            await Refreshing(read, threads)(60.0)
        threads.close()

    asyncio.run(scenario())
