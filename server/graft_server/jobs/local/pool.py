"""Jobs in worker processes beside the server, started ahead of need and used again.

A worker that dies takes nothing with it but its job, which is tried once more in a fresh one. Workers are
spawned, never forked; they die with the server, also if that is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from graft_server.domain.errors import DrainingError, WorkerError
from graft_server.jobs.job import NOWHERE, TEMPORARY, WAITING, Job, OnProgress, P, Place, Progress, R
from graft_server.jobs.local import frames
from graft_server.sharing.owned_folders import sweep
from graft_server.sharing.preemption import Preemption
from graft_server.sharing.turns import Turns

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is replaced, whether or not it leaks."""

    jobs: int = 100
    """After this many jobs."""
    resident_bytes: int = 1 << 30
    """When it holds more memory than this after a job."""


class LocalJobs:
    """A pool of worker processes. Implements `job.Jobs`; belongs to one event loop."""

    def __init__(
        self,
        workers: int = 1,
        preload: Sequence[str] = (),
        limits: Limits = Limits(),
        preemption: Preemption | None = None,
        place: Place = NOWHERE,
    ) -> None:
        """Describes the pool; `start` starts it.

        Args:
            workers: How many jobs run at once.
            preload: Modules that workers import before their first job.
            limits: When a worker is replaced.
            preemption: What jobs wait for; None: nothing.
            place: What workers know of where they run.
        """
        self._size = workers
        self._place = place
        self._preemption = preemption or Preemption()
        self._preload = tuple(preload)
        self._limits = limits
        self._turns = Turns(workers)
        self._idle: list[_Worker] = []
        self._next: Counter[str] = Counter()
        """How many jobs wait for a process that another of their function may pass on."""
        self._passed: defaultdict[str, list[_Worker]] = defaultdict(list)
        """Such processes, by function, never more than jobs that wait for one."""
        self._all: set[_Worker] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return self._turns.waiting

    async def start(self) -> None:
        """Starts the workers. Jobs may be run at once: they wait for the imports."""
        for _ in range(self._size):
            self._idle.append(await self._spawn(self._preload))

    async def run(self, job: Job[P, R], on_progress: OnProgress) -> R:
        """Runs a job, when it is its turn; see `job.Jobs.run`."""
        if self._turns.full:
            on_progress(Progress(WAITING))
        async with self._turn(job):
            try:
                return await self._attempt(job, on_progress)
            except _DiedError as death:
                self._raise_if_closed()
                _log.warning("jobs: a worker died in %s, which is tried again: %s", job.of.function, death)
            try:
                return await self._attempt(job, on_progress)
            except _DiedError as death:
                self._raise_if_closed()
                _log.error("jobs: a worker died in %s again: %s", job.of.function, death)
                raise WorkerError(
                    f"The job's process {death}, twice: {death.advice}", reason="WORKER_DIED"
                ) from None

    async def close(self) -> None:
        """Ends all workers. Jobs that still run or wait raise DrainingError."""
        self._closed = True
        for worker in self._all:
            worker.kill()
        while self._chores or self._all:
            chores = [*self._chores, *(asyncio.ensure_future(it.ended()) for it in self._all)]
            await asyncio.gather(*chores, return_exceptions=True)
            self._all = {it for it in self._all if it.alive}
        await self._sweep()

    @asynccontextmanager
    async def _turn(self, job: Job[Any, Any]) -> AsyncIterator[None]:
        """A place among those that run, and until then one among those that a process may be passed on to."""
        self._next[job.of.function] += job.of.passed_on
        waits = job.of.passed_on
        try:
            async with self._turns.place(job.key):
                self._next[job.of.function] -= waits
                waits = False
                yield
        finally:
            if waits:  # it gave up
                self._next[job.of.function] -= 1
                passed = self._passed[job.of.function]
                while len(passed) > self._next[job.of.function]:
                    self._end(passed.pop())

    async def _attempt(self, job: Job[P, R], on_progress: OnProgress) -> R:
        worker = await self._take(job)
        try:
            with self._preemption.working(worker.pid):
                return await worker.call(job, on_progress)
        finally:
            self._give_back(worker, job)

    async def _take(self, job: Job[Any, Any]) -> _Worker:
        self._raise_if_closed()
        if job.of.fresh:
            passed = self._passed[job.of.function]
            while job.of.passed_on and passed:
                worker = passed.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
            return await self._spawn(preload=())
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            self._all.discard(worker)
        return await self._spawn(self._preload)

    def _give_back(self, worker: _Worker, job: Job[Any, Any]) -> None:
        if self._closed:
            worker.kill()
        elif worker.busy or worker.is_worn(self._limits):
            self._end(worker, fresh=job.of.fresh)
        elif job.of.fresh:
            passed = self._passed[job.of.function]
            if job.of.passed_on and len(passed) < self._next[job.of.function]:
                passed.append(worker)
            else:
                self._end(worker)
        elif len(self._idle) >= self._size:
            self._end(worker, fresh=False)
        else:
            self._idle.append(worker)

    def _end(self, worker: _Worker, *, fresh: bool = True) -> None:
        worker.kill()
        self._start_chore(self._replace(worker, fresh=fresh))

    async def _sweep(self) -> None:
        """Removes the temporary files of workers that have ended."""
        if self._place.cache:
            await asyncio.to_thread(sweep, Path(self._place.cache) / TEMPORARY)

    async def _replace(self, worker: _Worker, *, fresh: bool) -> None:
        await worker.ended()
        await self._sweep()
        self._all.discard(worker)
        if fresh or self._closed or self._turns.waiting or len(self._all) >= self._size:
            return  # where jobs wait, the next one starts its own
        try:
            self._idle.append(await self._spawn(self._preload))
        except WorkerError as error:  # the next job tries again, and reports it
            _log.error("jobs: %s", error.message)

    async def _spawn(self, preload: Sequence[str]) -> _Worker:
        command = [sys.executable, "-P", "-m", "graft_server.jobs.local.worker", str(os.getpid()), *preload]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the server; and killing reaches its children too
            )
        except OSError as error:
            _log.error("jobs: cannot start a worker: %s", error)
            raise WorkerError(
                "No process could be started for the job: the machine is out of processes or memory.",
                reason="WORKER_NOT_STARTED",
            ) from error
        worker = _Worker(process)
        worker.tell(self._place)
        self._all.add(worker)
        if self._closed:
            worker.kill()
        return worker

    def _start_chore(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise DrainingError


class _DiedError(Exception):
    """A worker's process ended in the middle of a job. Reads on after "The job's process"."""

    def __init__(self, returncode: int) -> None:
        self.advice = "the server's log may say why; commit again to retry."
        if returncode == -signal.SIGKILL:
            super().__init__("was killed (SIGKILL)")
            self.advice = (
                "most often that means that the machine ran out of memory. Use fewer examples, or give the "
                "server more memory."
            )
        elif returncode < 0:
            super().__init__(f"crashed ({signal.Signals(-returncode).name})")
        else:
            super().__init__(f"ended by itself (exit status {returncode})")


class _Worker:
    """One worker process, seen from the server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._calls = cast("asyncio.StreamWriter", process.stdin)
        self._answers = cast("asyncio.StreamReader", process.stdout)
        self._jobs = 0
        self.busy = False
        """Whether it is in a job: also if the caller gave up on that."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def is_worn(self, limits: Limits) -> bool:
        return self._jobs >= limits.jobs or _resident_bytes(self._process.pid) > limits.resident_bytes

    def tell(self, place: Place) -> None:
        """Tells it where it runs, before its first job."""
        self._calls.write(frames.encode(place))

    async def call(self, job: Job[P, R], on_progress: OnProgress) -> R:
        frame = frames.encode(frames.Call(job.of.function, frames.packed(job.payload)))
        self.busy = True
        self._jobs += 1
        try:
            await self._write(frame)
            while isinstance(answer := await self._read(), frames.Progress):
                on_progress(answer.progress)
        except (ConnectionError, asyncio.IncompleteReadError, msgspec.DecodeError):
            self.kill()
            raise _DiedError(await self.ended()) from None
        self.busy = False
        if isinstance(answer, frames.Raised):
            if answer.traceback:
                _log.error("jobs: %s failed:\n%s", job.of.function, answer.traceback)
            raise frames.rebuilt(answer)
        return msgspec.msgpack.decode(answer.result, type=job.of.result)

    def kill(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> int:
        return await self._process.wait()

    async def _write(self, frame: bytes) -> None:
        self._calls.write(frame)
        await self._calls.drain()

    async def _read(self) -> frames.Answer:
        head = await self._answers.readexactly(frames.LENGTH_BYTES)
        data = await self._answers.readexactly(int.from_bytes(head, "big"))
        answer: frames.Answer = msgspec.msgpack.decode(data, type=frames.Answer)
        return answer


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
