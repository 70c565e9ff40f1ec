"""Durable, atomic creation of files in a local folder.

A file is written and fsynced under a temporary name, hard-linked to its own (which fails if that exists),
and the folder is fsynced: a reader that sees the name sees the whole file, even after a power cut. Temporaries
live in one folder at the root, so that sweeping them does not walk the store, and are locked by the process
that writes them: a process id would mean nothing across containers, where every server may be process 1.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# obstore does not list names that end in "#" and digits, its own mark of a temporary.
_WRITING = ".writing"


def prepare(root: Path) -> None:
    """Makes the folder if there is none, and sweeps temporaries that a killed process left."""
    _make_folder(root / _WRITING)
    for temporary in (root / _WRITING).iterdir():
        with suppress(FileNotFoundError, BlockingIOError), temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def create(root: Path, key: str, data: Iterable[bytes], *, lasting: bool = True) -> None:
    """Creates the file `root/key`; it is durable when this returns.

    Args:
        root: The folder.
        key: The file within.
        data: What it consists of, piece by piece.
        lasting: If false, a power cut may still remove it, but never damage it; that saves half the time.

    Raises:
        FileExistsError: It exists already.
        OSError: It could not be written; nothing of it is visible.
    """
    target = root / key
    temporary, fd = _open_temporary(root / _WRITING)
    try:
        with os.fdopen(fd, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(fd)
            try:
                os.link(temporary, target)
            except FileNotFoundError:
                _make_folder(target.parent)
                os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if lasting:
        _sync_folder(target.parent)


def names(folder: Path) -> list[str]:
    """Returns the names below a folder; none if there is no such folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return [it.name for it in entries]
    return []


def mark(folder: Path) -> int:
    """Returns when names below a folder were last added or removed, in nanoseconds; 0 if there is no such folder."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns
    return 0


def sync_parents(root: Path, keys: Iterable[str]) -> None:
    """Makes deletions below the root survive a power cut."""
    for parent in {(root / key).parent for key in keys}:
        with suppress(FileNotFoundError):
            _sync_folder(parent)


def _open_temporary(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"#{secrets.randbits(63)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)  # swept between open and lock: try again


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
