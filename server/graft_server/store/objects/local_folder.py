"""Durable, atomic creation of files in a local folder.

A file is written and fsynced under a temporary name, hard-linked to its own (which fails if that exists),
and the folder is fsynced: a reader that sees the name sees the whole file, even after a power cut. Where there are no
hard links, it is renamed, as long as the system can refuse to replace (see `naming`). Temporaries
live in one folder at the root, so that sweeping them does not walk the store, and are locked by the process
that writes them: a process id would mean nothing across containers, where every server may be process 1.

Files and folders are for the user of the server alone, unless the root says that its group shares the store: it
can be written by the group and hands the group on (setgid), as Kubernetes' fsGroup leaves a volume.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from graft_server.sharing.file_locks import NOT_SUPPORTED, lock
from graft_server.store.objects.naming import give_name, require_naming

# obstore does not list names that end in "#" and digits, its own mark of a temporary.
_WRITING = ".writing"
_ABANDONED_S = 24 * 3600.0
"""Where files cannot be locked, what nobody wrote to for so long belongs to nobody."""
_NAMING_ATTEMPTS = 10


def prepare(root: Path) -> None:
    """Makes the folder if there is none, and sweeps temporaries that a killed process left.

    Raises:
        OSError: The folder cannot be used, or can neither link files nor rename them without replacing others.
    """
    writing = root / _WRITING
    _make_folder(writing, root)
    for temporary in writing.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), temporary.open("rb") as file:
            if lock(file.fileno(), wait=False) or _is_abandoned(temporary, writing):
                temporary.unlink()
    if os.access(writing, os.W_OK):
        require_naming(writing)


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
            _give_name(temporary, target, root)
    finally:
        temporary.unlink(missing_ok=True)
    if lasting:
        _sync_folder(target.parent)


def _give_name(temporary: Path, target: Path, root: Path) -> None:
    """Names a file, and makes the folders above it: several times, if somebody removes them as they are empty."""
    for _ in range(_NAMING_ATTEMPTS):
        with suppress(FileNotFoundError):
            give_name(temporary, target)
            return
        with suppress(FileNotFoundError):
            _make_folder(target.parent, root)
    give_name(temporary, target)


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
    """Makes deletions below the root survive a power cut, and removes the folders that they have emptied."""
    for parent in {(root / key).parent for key in keys}:
        with suppress(FileNotFoundError):
            _sync_folder(parent)
        with suppress(OSError):  # something is in it
            for folder in takewhile(lambda it: it != root, (parent, *parent.parents)):
                folder.rmdir()


def _open_temporary(folder: Path) -> tuple[Path, int]:
    shared = _is_shared(folder.parent)
    while True:
        path = folder / f"#{secrets.randbits(63)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if shared:
            os.fchmod(fd, 0o660)
        lock(fd, wait=True)
        if os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)  # swept between open and lock: try again


def _is_shared(root: Path) -> bool:
    """Whether the root's group shares what is in it."""
    asked = stat.S_ISGID | stat.S_IWGRP
    return root.stat().st_mode & asked == asked


def _is_abandoned(path: Path, writing: Path) -> bool:
    """Whether nobody has written to a file for long, by the time of the file system: another server's clock made it."""
    newest, fd = _open_temporary(writing)
    try:
        return os.fstat(fd).st_mtime - path.stat().st_mtime > _ABANDONED_S
    finally:
        newest.unlink(missing_ok=True)
        os.close(fd)


def _make_folder(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, root)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if root in folder.parents and _is_shared(root):
            folder.chmod(0o2770)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Shares of other systems sync a name with its file.
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(fd)
