"""A worker process: reads calls from standard input, one at a time, and answers them.

    python -m graft_server.jobs.local.worker PARENT_PID [MODULE ...]

The modules are imported before the first call. What it reads first is where it runs, its `Place`. It imports nothing
heavy itself: what a job needs is what the job's function imports.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from graft_server.domain.errors import DomainError, StoreFullError, WorkerError
from graft_server.jobs.job import TEMPORARY, Place, Progress, implementation
from graft_server.jobs.local import frames
from graft_server.sharing.owned_folders import scratch

PROGRESS_S = 0.1
"""Between two words on the same stage and count."""
_PR_SET_PDEATHSIG = 1
# Serving comes first: lower priority than the server, and the first to go where memory runs out.
_NICENESS = 10
_OOM_SCORE = 500
# The allocator of glibc would keep what is freed from blocks of up to 32 MiB once it has seen such a block, 180 MiB
# more of 15,000 examples than without; larger blocks than this go back to the system at once.
_M_MMAP_THRESHOLD, _KEPT_BYTES = -3, 1 << 20

_FULL = {errno.ENOSPC, errno.EDQUOT}

_log = logging.getLogger(__name__)

# Before torch is imported: its threads wait for each other by spinning, on the cores that serving needs. Beside other
# work, tuning a small BERT took 33 s instead of 13.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Serves calls until standard input ends."""
    calls, answers = _take_pipes()
    _settle(parent=int(sys.argv[1]))
    for module in sys.argv[2:]:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 -- a job that needs the module fails and says so
            _log.exception("worker: cannot import %s ahead of the first job", module)
    if (data := frames.read(calls)) is None:
        return
    place = msgspec.msgpack.decode(data, type=Place)
    _lead_temporary_files(place)
    while (data := frames.read(calls)) is not None:
        call = msgspec.msgpack.decode(data, type=frames.Call)
        answers.write(_answer(call, place, answers))
        answers.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keeps the pipes for frames, so that a function that prints or reads input does not disturb them."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return calls, answers


def _settle(parent: int) -> None:
    os.nice(_NICENESS)
    if sys.platform != "linux":
        return
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
    # Where the kernel shares the processor out by session first (autogroups), niceness counts only within one,
    # and a worker leads its own: without this it gets as much as the whole server.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(AttributeError):  # not glibc
        library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)


def _lead_temporary_files(place: Place) -> None:
    """Has libraries put their temporary files into the cache: who replaces this process removes them."""
    if not place.cache:
        return
    try:
        tempfile.tempdir = str(scratch(Path(place.cache) / TEMPORARY))
        os.environ["TMPDIR"] = tempfile.tempdir
    except OSError as error:
        _log.warning("worker: no folder for temporary files in the cache: %s", error)


def _answer(call: frames.Call, place: Place, answers: BinaryIO) -> bytes:
    progress = _Telling(answers)
    try:
        importlib.import_module(call.function.partition(":")[0])
        done_by = implementation(call.function)
        payload = msgspec.msgpack.decode(call.payload, type=done_by.of.payload)
        return frames.encode(frames.Done(frames.packed(done_by.function(payload, place, progress))))
    except DomainError as error:
        return frames.encode(frames.raised(error))
    except MemoryError:
        return frames.encode(frames.raised(_out_of_memory(), traceback.format_exc()))
    except OSError as error:
        if error.errno in _FULL:
            return frames.encode(frames.raised(_no_space(error), traceback.format_exc()))
        return frames.encode(frames.raised(_unexpected(error), traceback.format_exc()))
    except Exception as error:  # noqa: BLE001 -- whatever a job raises ends the job, not the worker
        return frames.encode(frames.raised(_unexpected(error), traceback.format_exc()))


class _Telling:
    """Sends what a job tells of its progress: each stage and count, and what lies between no more often than needed."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._last = -PROGRESS_S
        self._counted = ("", -1)

    def __call__(self, what: Progress) -> None:
        now, counted = time.monotonic(), (what.stage, what.done)
        with self._lock:
            if counted == self._counted and now - self._last < PROGRESS_S:
                return
            self._last, self._counted = now, counted
            self._answers.write(frames.encode(frames.Progress(what)))
            self._answers.flush()


def _out_of_memory() -> WorkerError:
    return WorkerError(
        "The job needed more memory than the machine has free: use fewer examples, or give the server more.",
        reason="WORKER_OUT_OF_MEMORY",
    )


def _no_space(error: OSError) -> StoreFullError:
    where = f" for {Path(str(error.filename)).name}" if error.filename else ""
    return StoreFullError(
        f"The disk where the job ran has no space left{where}: free or add some in the folder of the server's cache, "
        "or give it another one (--cache), then try again.",
        reason="CACHE_FULL",
    )


def _unexpected(error: Exception) -> WorkerError:
    return WorkerError(
        f"The job failed with an internal error ({type(error).__name__}): the server's log has the details. "
        "Commit again to retry; if it fails again, report it.",
        reason="WORKER_FAILED",
    )


if __name__ == "__main__":
    main()
