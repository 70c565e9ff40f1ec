"""Pauses jobs while predictions are being computed: both need the same processors, caches and memory bus.

Low priority is not enough: a prediction that finds a job on its processor waits for the scheduler, and one that
finds its weights gone from the cache reads 43 MB again. At half load a processor is idle a quarter of the time,
and in that time a job runs at full speed. A job is never starved: it always gets its least share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LEAST = 0.2
"""The part of one processor that a job gets, whatever the number of predictions."""
_EVERY_S = 0.25
_MOST_OWED_S = 1.0


@dataclass(slots=True, eq=False)
class _Process:
    """A job's process, which leads a session of its own."""

    pid: int
    stands: bool = False
    owed_s: float = 0.0
    """Processor time below its least share, in seconds; it does not stand still while that is above zero."""

    def stand(self) -> None:
        if not self.stands and self.owed_s <= 0.0:
            self._send(signal.SIGSTOP)
            self.stands = True

    def go_on(self) -> None:
        if self.stands:
            self._send(signal.SIGCONT)
            self.stands = False

    def _send(self, what: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, what)


class Preemption:
    """Decides when jobs are paused. Belongs to one event loop."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._predictions = 0
        self._processes: set[_Process] = set()

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Pauses jobs during the work on a prediction."""
        self._predictions += 1
        if self._predictions == 1:
            for process in self._processes:
                process.stand()
        try:
            yield
        finally:
            self._predictions -= 1
            if not self._predictions:
                for process in self._processes:
                    process.go_on()

    @contextmanager
    def working(self, pid: int) -> Iterator[None]:
        """Makes a job pausable, in a process that leads its session; the process is running when this ends.

        If the system does not end a stopped process with its parent, no job is paused.
        """
        if sys.platform != "linux":
            yield
            return
        process = _Process(pid)
        self._processes.add(process)
        if self._predictions:
            process.stand()
        fair = asyncio.create_task(self._keep_fair(process))
        try:
            yield
        finally:
            fair.cancel()
            self._processes.discard(process)
            process.go_on()

    async def _keep_fair(self, process: _Process) -> None:
        loop = asyncio.get_running_loop()
        moment, used_s = loop.time(), _used_s(process.pid)
        while True:
            await asyncio.sleep(_EVERY_S)
            now, used_now_s = loop.time(), _used_s(process.pid)
            owed_s = process.owed_s + LEAST * (now - moment) - (used_now_s - used_s)
            process.owed_s = min(max(owed_s, -_MOST_OWED_S), _MOST_OWED_S)
            moment, used_s = now, used_now_s
            if process.owed_s > 0.0:
                process.go_on()
            elif self._predictions:
                process.stand()


def _used_s(pid: int) -> float:
    """The processor time of a process, in seconds; 0 once it has ended."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
