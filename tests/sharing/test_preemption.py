"""Jobs in real processes stand still while predictions are in the works, and are never starved."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.jobs.test_local import gone, ignore, running, started, work

from graft_server.sharing.preemption import Preemption

HERE = Path(__file__).parents[1] / "jobs"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing stands still elsewhere")


@pytest.fixture(autouse=True)
def _work_is_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@asynccontextmanager
async def spinning(preemption):
    """A job that computes until it is cancelled: its process."""
    async with running(preemption=preemption) as jobs:
        task, progress = await started(work("spin"), jobs)
        pid = int(progress.stage)
        # Jobs come last where others compute, and one that gets less than its share never stands still again.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, -10)
        yield pid
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def stands(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def used_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- nothing tells it
            await asyncio.sleep(0.01)


def test_a_job_stands_still_while_there_are_predictions():
    async def scenario():
        preemption = Preemption()
        async with spinning(preemption) as pid:
            assert not stands(pid)
            with preemption.predicting():
                with preemption.predicting():
                    await until(lambda: stands(pid))
                await until(lambda: stands(pid))
            await until(lambda: not stands(pid))

    asyncio.run(scenario())


def test_a_job_that_begins_among_predictions_goes_on_and_is_done():
    async def scenario():
        preemption = Preemption()
        async with running(preemption=preemption) as jobs:
            with preemption.predicting():
                assert await jobs.run(work("double", b"ab"), ignore) == b"abab"

    asyncio.run(scenario())


def test_a_job_gets_its_least_share_however_long_predictions_last():
    async def scenario():
        preemption = Preemption()
        async with spinning(preemption) as pid:
            with preemption.predicting():
                await until(lambda: stands(pid))
                before = used_ticks(pid)
                await until(lambda: used_ticks(pid) > before + 20)
                await until(lambda: stands(pid))

    asyncio.run(scenario())


def test_a_job_that_stands_still_can_be_cancelled_and_the_next_one_runs():
    async def scenario():
        preemption = Preemption()
        async with running(preemption=preemption) as jobs:
            task, progress = await started(work("spin"), jobs)
            with preemption.predicting():
                await until(lambda: stands(int(progress.stage)))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await gone(int(progress.stage))
            assert await jobs.run(work("double", b"ab"), ignore) == b"abab"

    asyncio.run(scenario())


PARENT = """
import asyncio
from pathlib import Path
from graft_server.sharing.preemption import Preemption
from work import work
from graft_server.jobs.local.pool import LocalJobs

def stands(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

async def main():
    preemption, begun = Preemption(), asyncio.Queue()
    jobs = LocalJobs(preemption=preemption)
    await jobs.start()
    job = asyncio.create_task(jobs.run(work("spin").job(None), begun.put_nowait))
    pid = int((await begun.get()).stage)
    with preemption.predicting():
        while not stands(pid):
            await asyncio.sleep(0.01)
        print(pid, flush=True)
        await job

asyncio.run(main())
"""


def test_a_job_that_stands_still_dies_with_a_killed_server():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    asyncio.run(gone(pid))
