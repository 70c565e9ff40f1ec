"""Publication by time: by a clock that nobody sets, whatever the wall clock says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from graft_server.adapting.publishing.continuous import ContinuousPublishing
from graft_server.domain.adaptation import AdaptationSettings, PublishPolicy, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.store.adaptations.segments import Record
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

EVERY_S = 3600.0
WALL = [timedelta(hours=-1), timedelta(0), timedelta(days=1)]


class Bench:
    """An adaptation that publishes every hour, and a clock that the test moves."""

    def __init__(self, folder: Path, wall: timedelta) -> None:
        self.objects = Objects.open(folder)
        settings = AdaptationSettings("minilm", publish=PublishPolicy(every_s=EVERY_S))
        # The wall clock was set since: the start is of another time than it says now.
        started = Start(settings, datetime.now(UTC) - wall)
        self.store = AdaptationStore.create(self.objects, "m", "a", started)
        self.seconds = 1e6
        self.committed: asyncio.Queue[str] = asyncio.Queue()
        self.continuous = self.publishing()

    def publishing(self) -> ContinuousPublishing:
        return ContinuousPublishing(
            self.store, self.look, lambda: True, lambda: False, self.commit, clock=lambda: self.seconds
        )

    def append(self, number: int) -> None:
        change = Change(upsert=Example(str(number), Input(f"text {number}"), "a"))
        self.store.writer("w").append([Record(number + 1, change)])

    async def look(self) -> None:
        self.store.refresh()

    async def commit(self, commit_id: str) -> None:
        self.store.commit(commit_id, self.store.read_positions())
        self.committed.put_nowait(commit_id)

    async def wake(self) -> None:
        """Says that something came in, and returns once that was looked at."""
        self.continuous.wake()
        while self.continuous._since is None:  # noqa: ASYNC110 - it asks the store on a thread
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture(params=WALL, ids=str)
def wall(request: pytest.FixtureRequest) -> timedelta:
    """What was added to the wall clock since the adaptation began."""
    found: timedelta = request.param
    return found


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


def test_a_commit_is_due_after_the_interval_whatever_the_wall_clock_says(tmp_path, wall):
    async def scenario() -> None:
        it = Bench(tmp_path, wall)
        for number in range(3):
            it.append(number)
            await it.wake()
            it.seconds += EVERY_S - 1
            await it.wake()
            assert it.committed.empty()
            it.seconds += 1
            it.continuous.wake()
            assert await it.committed.get() == f"auto:{number + 1}"
        await it.continuous.close()

    run(scenario)


@pytest.mark.parametrize(
    ("age", "left_s"),
    [
        (timedelta(0), EVERY_S),
        (timedelta(minutes=50), EVERY_S / 6),
        (timedelta(hours=-1), EVERY_S),  # the clock was set back meanwhile
        (timedelta(days=400), 0.0),  # it was set forward, or the server was away for long
    ],
    ids=str,
)
def test_after_a_restart_the_store_says_how_long_ago_the_last_commit_was(tmp_path, age, left_s):
    async def scenario() -> None:
        it = Bench(tmp_path, timedelta(0))
        it.append(0)
        it.store.commit("c", {"w": 1})
        it.append(1)
        (key,) = it.objects.keys(f"{it.store.folder}commits/")
        written = (datetime.now(UTC) - age).timestamp()
        os.utime(tmp_path / key, (written, written))
        it.store = AdaptationStore.load(it.objects, "m", "a")
        it.store.writer("w")
        it.continuous = it.publishing()
        if left_s:
            await it.wake()
            it.seconds += left_s - 60
            await it.wake()
            assert it.committed.empty()
        it.seconds += 61 if left_s else 0
        it.continuous.wake()
        assert await it.committed.get() == "auto:2"
        await it.continuous.close()

    run(scenario)
