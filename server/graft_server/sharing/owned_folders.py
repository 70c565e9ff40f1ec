"""Folders that belong to a process: they go with it, or, if it was killed, when another one sweeps.

A folder NAME has a file NAME.lock beside it, which its process holds locked: a process id would mean nothing across
containers, where every server may be process 1.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

from graft_server.sharing.file_locks import lock

_LOCK = ".lock"
_ABANDONED_S = 24 * 3600.0
"""What nobody has locked and nobody wrote to for so long belongs to nobody."""


class OwnedFolder:
    """A folder of this process.

    Attributes:
        path: Where it is.
    """

    def __init__(self, parent: Path) -> None:
        """Makes it.

        Args:
            parent: Where, made if it is missing; the group that may write there may write to the folder too.

        Raises:
            OSError: It cannot be made.
        """
        make_folders(parent)
        self._process = os.getpid()
        name = secrets.token_hex(8)
        self.path = parent / name
        self._lock_path = parent / (name + _LOCK)
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            lock(self._lock, wait=True)
            share(self._lock_path)
            self.path.mkdir()
            share(self.path)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Removes it with all that is in it; a fork leaves it to the process that made it."""
        if self._process != os.getpid():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self._lock_path.unlink()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


@functools.lru_cache(maxsize=64)
def _scratch(parent: Path, process: int) -> OwnedFolder:  # noqa: ARG001 - a fork has its own
    folder = OwnedFolder(parent)
    atexit.register(folder.close)
    return folder


def scratch(parent: Path) -> Path:
    """This process's folder for what it makes below a parent, the same for as long as it runs. Raises OSError."""
    folder = _scratch(parent, os.getpid())
    folder.path.mkdir(exist_ok=True)  # somebody may have emptied the cache
    return folder.path


def sweep(parent: Path) -> None:
    """Removes the folders of processes that are no more."""
    with suppress(OSError):
        for path in list(parent.iterdir()):
            if path.suffix == _LOCK:
                _sweep_locked(path)
            elif path.is_dir() and not path.with_name(path.name + _LOCK).exists() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)


def make_folders(folder: Path) -> None:
    """Makes a folder and those above it that are missing, each for the group that the one above it is for.

    Raises:
        OSError: It cannot be made.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        share(folder)


def share(path: Path) -> None:
    """Gives a file or folder to the group that its folder is for: who may write there may replace it."""
    above = path.parent.stat().st_mode
    if above & stat.S_ISVTX:
        return  # /tmp and its like, which belong to nobody
    mode = path.stat().st_mode
    wanted = mode | above & (stat.S_IRGRP | stat.S_IWGRP)
    if stat.S_ISDIR(mode):
        wanted |= above & (stat.S_ISGID | stat.S_IXGRP)
    if wanted != mode:
        with suppress(PermissionError):
            path.chmod(stat.S_IMODE(wanted))


def _sweep_locked(path: Path) -> None:
    folder = path.with_name(path.name.removesuffix(_LOCK))
    with suppress(OSError), path.open("rb") as file:
        if lock(file.fileno(), wait=False) or _is_abandoned(folder if folder.exists() else path):
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink()


def _is_abandoned(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _ABANDONED_S
