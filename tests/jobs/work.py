"""Functions that the tests run as jobs. Worker processes import this file as `work`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from graft_server.domain.errors import StateError
from graft_server.store.objects.objects import ObjectMissingError


def double(payload, progress):
    progress({"fraction": 0.5})
    return payload * 2


def pid(payload, progress):
    return os.getpid()


def modules(payload, progress):
    return sorted(sys.modules)


def niceness(payload, progress):
    return os.nice(0)


def autogroup(payload, progress):
    path = Path("/proc/self/autogroup")
    return path.read_text() if path.exists() else ""


def stray_print(payload, progress):
    print("this must not reach the server's frames", flush=True)
    subprocess.run(["echo", "nor this"], check=True)
    return sys.stdin.read()


def refuse(payload, progress):
    raise StateError("One class only.", reason="TOO_FEW_CLASSES", field="x", metadata={"n": "1"})


def miss(payload, progress):
    raise ObjectMissingError("models/m/_/gone")


def fail(payload, progress):
    raise ValueError("secret detail")


def unsendable(payload, progress):
    return object()


def exhaust(payload, progress):
    return len(bytearray(1 << 62))


def crash_once(payload, progress):
    marker = Path(payload)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second attempt"


def crash(payload, progress):
    with Path(payload).open("a") as file:
        file.write("attempt\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def kill(payload, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(payload, progress):
    os._exit(7)


def hang(payload, progress):
    progress({"pid": os.getpid()})
    signal.pause()


def hold(payload, progress):
    """Holds its worker until somebody writes to the pipe."""
    progress({"pid": os.getpid()})
    return Path(payload).read_text()


def note(payload, progress):
    path, name = payload
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


def note_when_told(payload, progress):
    """Holds its worker until somebody writes to the pipe."""
    path, name, pipe = payload
    progress({})
    Path(pipe).read_text()
    note((path, name), progress)


def spin(payload, progress):
    """Computes for ever."""
    progress({"pid": os.getpid()})
    while True:
        pass
