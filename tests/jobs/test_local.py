"""Jobs in real worker processes: results, failures, crashes, cancellation, turns."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from graft_server.domain.errors import DrainingError, StateError, StoreError, StoreFullError, WorkerError
from graft_server.jobs.job import JobType, Place, Progress
from graft_server.jobs.local.pool import Limits, LocalJobs

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _work_is_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@asynccontextmanager
async def running(**settings):
    jobs = LocalJobs(**settings)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.close()


def ignore(progress):
    pass


def work(name, payload=None, key="", **settings):
    return JobType(f"work:{name}", Any, Any, **settings).job(payload, key)


async def gone(pid):
    """Waits until a process that is not ours to wait for has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await asyncio.to_thread(select.select, [fd], [], [])
    finally:
        os.close(fd)


async def started(job, jobs):
    """Runs a job until its first progress; returns its task and that progress."""
    progress = asyncio.Queue()
    task = asyncio.create_task(jobs.run(job, progress.put_nowait))
    return task, await progress.get()


async def until_waiting(jobs, count):
    while jobs.waiting < count:  # noqa: ASYNC110 -- nothing tells it
        await asyncio.sleep(0)


def test_result_and_progress_come_back():
    async def scenario():
        seen = []
        async with running() as jobs:
            assert await jobs.run(work("double", b"ab"), seen.append) == b"abab"
        assert seen == [Progress(fraction=0.5)]

    asyncio.run(scenario())


def test_payloads_and_results_arrive_as_the_types_that_the_kind_of_job_names():
    # In a process of its own, as those of a server: `work` is importable by its name.
    code = """
import asyncio
from datetime import UTC, datetime
from graft_server.jobs.local.pool import LocalJobs
from work import SWAP, Pair

async def main():
    jobs = LocalJobs()
    await jobs.start()
    print(await jobs.run(SWAP.job(Pair(datetime(2026, 1, 2, tzinfo=UTC), b"ab")), print))
    await jobs.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout
        == "Pair(when=datetime.datetime(2026, 1, 3, 0, 0, tzinfo=datetime.timezone.utc), raw=b'ba')\n"
    )


def test_a_worker_knows_where_it_runs_and_a_payload_need_not_say():
    place = Place(store="s3://bucket", cache="/cache", backbones={"mine": "package:some"}, threads=3)

    async def scenario():
        async with running(place=place) as jobs:
            for kind in (work("told"), work("told", fresh=True)):
                assert await jobs.run(kind, ignore) == ["s3://bucket", "/cache", {"mine": "package:some"}, 3]

    asyncio.run(scenario())


def test_a_function_that_does_no_job_is_not_called(caplog):
    async def scenario():
        async with running() as jobs:
            with pytest.raises(WorkerError):
                await jobs.run(work("unmarked"), ignore)

    asyncio.run(scenario())
    assert "work:unmarked does no job" in caplog.text


def test_large_payloads_pass():
    async def scenario():
        async with running() as jobs:
            assert await jobs.run(work("double", b"x" * 20_000_000), ignore) == b"x" * 40_000_000

    asyncio.run(scenario())


def test_workers_are_used_again_and_fresh_jobs_have_their_own():
    async def scenario():
        async with running() as jobs:
            first = await jobs.run(work("pid"), ignore)
            fresh = await jobs.run(work("pid", fresh=True), ignore)
            assert await jobs.run(work("pid"), ignore) == first
            assert fresh != first
            await gone(fresh)

    asyncio.run(scenario())


def test_a_fresh_process_is_passed_on_to_jobs_of_its_function_that_wait_and_ends_after_them():
    async def scenario():
        async with running() as jobs:
            asked = [
                asyncio.create_task(jobs.run(work("pid", fresh=True, passed_on=True), ignore))
                for _ in range(3)
            ]
            other = asyncio.create_task(jobs.run(work("pid"), ignore))
            pids = {await it for it in asked}
            assert len(pids) == 1
            assert await other not in pids
            await gone(pids.pop())

    asyncio.run(scenario())


def test_a_process_whose_next_job_gives_up_ends(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = work("hold", str(pipe), fresh=True, passed_on=True)

    async def scenario():
        async with running() as jobs:
            first, progress = await started(held, jobs)
            between = asyncio.create_task(jobs.run(work("hang"), ignore))
            await until_waiting(jobs, 1)
            following = asyncio.create_task(jobs.run(held, ignore))
            await until_waiting(jobs, 2)
            await asyncio.to_thread(pipe.write_text, "go")
            assert await first == "go"
            following.cancel()
            await gone(int(progress.stage))
            between.cancel()
            await asyncio.wait([between, following])

    asyncio.run(scenario())


@pytest.mark.parametrize("limits", [Limits(jobs=1), Limits(resident_bytes=1)])
def test_a_worn_worker_is_replaced(limits):
    async def scenario():
        async with running(limits=limits) as jobs:
            first = await jobs.run(work("pid"), ignore)
            assert await jobs.run(work("pid"), ignore) != first
            await gone(first)

    asyncio.run(scenario())


def test_a_worker_imports_what_it_is_told_and_nothing_heavy():
    async def scenario():
        async with running(preload=["colorsys", "no_such_module"]) as jobs:
            modules = await jobs.run(work("modules"), ignore)
        assert "colorsys" in modules
        assert not {"torch", "grpc", "numpy.testing", "google.protobuf"} & set(modules)

    asyncio.run(scenario())


def test_a_worker_gives_way_to_the_server():
    async def scenario():
        async with running() as jobs:
            assert await jobs.run(work("niceness"), ignore) >= min(19, os.nice(0) + 10)

    asyncio.run(scenario())


def test_a_worker_gives_way_also_where_the_kernel_groups_processes_by_session():
    enabled = Path("/proc/sys/kernel/sched_autogroup_enabled")
    if not enabled.exists() or enabled.read_text().strip() != "1":
        pytest.skip("this kernel does not group processes by session")

    async def scenario():
        async with running() as jobs:
            assert (await jobs.run(work("autogroup"), ignore)).split()[1:] == ["nice", "10"]

    asyncio.run(scenario())


def test_stray_output_and_input_do_not_disturb_frames(capfd):
    async def scenario():
        async with running() as jobs:
            assert await jobs.run(work("stray_print"), ignore) == ""
            assert await jobs.run(work("double", 2), ignore) == 4

    asyncio.run(scenario())
    assert "nor this" in capfd.readouterr().err


def test_domain_errors_travel_as_themselves():
    async def scenario():
        async with running() as jobs:
            with pytest.raises(StateError) as caught:
                await jobs.run(work("refuse"), ignore)
            with pytest.raises(StoreError) as derived:
                await jobs.run(work("miss"), ignore)
        error = caught.value
        assert (error.message, error.reason) == ("One class only.", "TOO_FEW_CLASSES")
        assert (error.field, error.metadata) == ("x", {"n": "1"})
        assert derived.value.metadata == {"object": "models/m/_/gone"}

    asyncio.run(scenario())


def test_other_errors_are_logged_and_tell_nothing_of_the_inside(caplog):
    async def scenario():
        async with running() as jobs:
            first = await jobs.run(work("pid"), ignore)
            for name in ("fail", "unsendable"):
                with pytest.raises(WorkerError) as caught:
                    await jobs.run(work(name), ignore)
                assert caught.value.reason == "WORKER_FAILED"
                assert "secret detail" not in caught.value.message
            assert await jobs.run(work("pid"), ignore) == first

    asyncio.run(scenario())
    assert "ValueError: secret detail" in caplog.text


def test_running_out_of_memory_says_so():
    async def scenario():
        async with running() as jobs:
            with pytest.raises(WorkerError) as caught:
                await jobs.run(work("exhaust"), ignore)
        assert caught.value.reason == "WORKER_OUT_OF_MEMORY"

    asyncio.run(scenario())


def test_a_crash_is_retried_once(tmp_path):
    async def scenario():
        async with running() as jobs:
            assert await jobs.run(work("crash_once", str(tmp_path / "x")), ignore) == "second attempt"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("function", "said"), [("crash", "SIGSEGV"), ("kill", "memory"), ("leave", "exit status 7")]
)
def test_a_second_crash_fails_the_job_alone(tmp_path, function, said):
    async def scenario():
        async with running() as jobs:
            with pytest.raises(WorkerError) as caught:
                await jobs.run(work(function, str(tmp_path / "x")), ignore)
            assert caught.value.reason == "WORKER_DIED"
            assert said in caught.value.message
            assert await jobs.run(work("double", 1), ignore) == 2

    asyncio.run(scenario())
    if function == "crash":
        assert (tmp_path / "x").read_text() == "attempt\n" * 2


def test_a_worker_killed_while_idle_costs_nothing():
    async def scenario():
        async with running() as jobs:
            first = await jobs.run(work("pid"), ignore)
            os.kill(first, signal.SIGKILL)
            assert await jobs.run(work("pid"), ignore) != first

    asyncio.run(scenario())


def test_cancelling_kills_the_worker_and_the_next_job_runs():
    async def scenario():
        async with running() as jobs:
            task, progress = await started(work("hang"), jobs)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(int(progress.stage))
            assert await jobs.run(work("double", 1), ignore) == 2

    asyncio.run(scenario())


def test_cancelling_a_waiting_job_leaves_the_running_one_alone():
    async def scenario():
        async with running() as jobs:
            hanging, _ = await started(work("hang"), jobs)
            waiting = asyncio.create_task(jobs.run(work("double", 1), ignore))
            await until_waiting(jobs, 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert jobs.waiting == 0
            assert not hanging.done()
            hanging.cancel()
            await asyncio.wait([hanging])

    asyncio.run(scenario())


def test_models_take_turns(tmp_path):
    pipe, log = tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(pipe)

    async def scenario():
        async with running() as jobs:
            first, _ = await started(work("note_when_told", [str(log), "first", str(pipe)], key="a"), jobs)
            names = ["a1", "a2", "a3", "b1", "c1", "b2"]
            others = []
            for count, name in enumerate(names, 1):
                job = work("note", [str(log), name], key=name[0])
                others.append(asyncio.create_task(jobs.run(job, ignore)))
                await until_waiting(jobs, count)
            await asyncio.to_thread(pipe.write_text, "go")
            await asyncio.gather(first, *others)

    asyncio.run(scenario())
    assert log.read_text().split() == ["first", "b1", "c1", "a1", "b2", "a2", "a3"]


def test_as_many_jobs_run_at_once_as_there_are_workers(tmp_path):
    async def scenario():
        async with running(workers=2) as jobs:
            one, first = await started(work("hang"), jobs)
            two, second = await started(work("hang"), jobs)
            assert first.stage != second.stage
            one.cancel()
            two.cancel()
            await asyncio.wait([one, two])

    asyncio.run(scenario())


def test_closing_ends_running_and_waiting_jobs():
    async def scenario():
        async with running() as jobs:
            hanging, progress = await started(work("hang"), jobs)
            waiting = asyncio.create_task(jobs.run(work("double", 1), ignore))
            await until_waiting(jobs, 1)
            await jobs.close()
            for task in (hanging, waiting):
                with pytest.raises(DrainingError):
                    await task
            await gone(int(progress.stage))

    asyncio.run(scenario())


PARENT = """
import asyncio
from work import work
from graft_server.jobs.local.pool import LocalJobs

async def main():
    jobs = LocalJobs(workers=2)
    await jobs.start()
    print(await jobs.run(work("pid").job(None), print), flush=True)
    await jobs.run(work("hang").job(None), lambda progress: print(progress.stage, flush=True))

asyncio.run(main())
"""


def test_workers_die_with_a_killed_server():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        workers = {int(parent.stdout.readline()), int(parent.stdout.readline())}
        parent.kill()
    for pid in workers:
        asyncio.run(gone(pid))


def test_temporary_files_lie_in_the_cache_and_go_with_their_worker(tmp_path):
    async def scenario():
        async with running(place=Place(cache=str(tmp_path))) as jobs:
            path = await jobs.run(work("temporary"), ignore)
            with pytest.raises(WorkerError):
                await jobs.run(work("temporary", "die"), ignore)
            await jobs.run(work("temporary"), ignore)
            return Path(path)

    path = asyncio.run(scenario())
    assert path.is_relative_to(tmp_path / "temporary")
    assert Path((tmp_path / "left").read_text()).is_relative_to(tmp_path / "temporary")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_disk_is_named():
    async def scenario():
        async with running() as jobs:
            with pytest.raises(StoreFullError) as raised:
                await jobs.run(work("full"), ignore)
            assert raised.value.reason == "CACHE_FULL"
            assert "no space left for model.onnx" in raised.value.message

    asyncio.run(scenario())
