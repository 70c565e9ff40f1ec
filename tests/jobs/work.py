"""Functions that the tests run as jobs. Worker processes import this file as `work`."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from graft_server.domain.errors import StateError
from graft_server.jobs.job import JobType, OnProgress, Place, Progress
from graft_server.store.objects.objects import ObjectMissingError


def work(name, **settings):
    """A kind of job that a function of this file does."""
    return JobType(f"work:{name}", Any, Any, **settings)


def job(function):
    return work(function.__name__).done_by(function)


def tell_pid(progress):
    progress(Progress(str(os.getpid())))


@job
def double(payload, place, progress):
    progress(Progress(fraction=0.5))
    return payload * 2


@job
def pid(payload, place, progress):
    return os.getpid()


@job
def modules(payload, place, progress):
    return sorted(sys.modules)


@job
def niceness(payload, place, progress):
    return os.nice(0)


@job
def autogroup(payload, place, progress):
    path = Path("/proc/self/autogroup")
    return path.read_text() if path.exists() else ""


@job
def stray_print(payload, place, progress):
    print("this must not reach the server's frames", flush=True)
    subprocess.run(["echo", "nor this"], check=True)
    return sys.stdin.read()


@job
def refuse(payload, place, progress):
    raise StateError("One class only.", reason="TOO_FEW_CLASSES", field="x", metadata={"n": "1"})


@job
def miss(payload, place, progress):
    raise ObjectMissingError("models/m/_/gone")


@job
def fail(payload, place, progress):
    raise ValueError("secret detail")


@job
def unsendable(payload, place, progress):
    return object()


@job
def exhaust(payload, place, progress):
    return len(bytearray(1 << 62))


@job
def crash_once(payload, place, progress):
    marker = Path(payload)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second attempt"


@job
def crash(payload, place, progress):
    with Path(payload).open("a") as file:
        file.write("attempt\n")
    os.kill(os.getpid(), signal.SIGSEGV)


@job
def kill(payload, place, progress):
    os.kill(os.getpid(), signal.SIGKILL)


@job
def leave(payload, place, progress):
    os._exit(7)


@job
def hang(payload, place, progress):
    tell_pid(progress)
    signal.pause()


@job
def hold(payload, place, progress):
    """Holds its worker until somebody writes to the pipe."""
    tell_pid(progress)
    return Path(payload).read_text()


@job
def note(payload, place, progress):
    path, name = payload
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


@job
def note_when_told(payload, place, progress):
    """Holds its worker until somebody writes to the pipe."""
    path, name, pipe = payload
    progress(Progress())
    Path(pipe).read_text()
    note((path, name), place, progress)


@job
def spin(payload, place, progress):
    """Computes for ever."""
    tell_pid(progress)
    while True:
        pass


@job
def told(payload, place, progress):
    """Where the worker runs, as it was told."""
    return [place.store, place.cache, place.backbones, place.threads]


@dataclass(frozen=True, slots=True)
class Pair:
    """A payload, and a result."""

    when: datetime
    raw: bytes


SWAP = JobType("work:swap", Pair, Pair)


@SWAP.done_by
def swap(payload: Pair, place: Place, progress: OnProgress) -> Pair:
    return Pair(payload.when + timedelta(days=1), payload.raw[::-1])


def unmarked(payload, place, progress):
    return "nobody should call this"


@job
def temporary(payload, place, progress):
    file, path = tempfile.mkstemp()
    os.close(file)
    if payload == "die":
        Path(place.cache, "left").write_text(path)
        os.kill(os.getpid(), signal.SIGKILL)
    return path


@job
def full(payload, place, progress):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/model.onnx")
