"""The folder of the cache, wherever it was made and by whom.

A user who may not write to it, as of an image that runs under another user id or with a read-only root, gets one of
their own in the folder for temporary files: its encoders are links to those that can be read, and what is made anew
lies there until the server ends.
"""

from __future__ import annotations

import errno
import logging
import os
import pwd
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from graft_server.backbones.graphs.cache import ENCODERS, GRAPH
from graft_server.domain.errors import StoreError, StoreFullError
from graft_server.jobs.job import TEMPORARY
from graft_server.sharing.owned_folders import OwnedFolder, make_folders, scratch, sweep

_log = logging.getLogger(__name__)

_PARTS = ("", ENCODERS, TEMPORARY, "handed-over", "tuning")
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A cache that can be written."""

    path: Path
    temporary: Path
    """A folder in it that goes with this process."""
    own: OwnedFolder | None = field(default=None)
    """The folder that it lies in, if it goes with this process too."""

    def close(self) -> None:
        """Removes what goes with this process."""
        if self.own is not None:
            self.own.close()


def open_cache(folder: Path, *, lasting: bool = False) -> CacheFolder:
    """Makes a cache that can be written of a folder that perhaps cannot.

    Args:
        folder: The cache.
        lasting: Whether what is made has to stay there: a folder that cannot be written is refused then.

    Raises:
        StoreFullError: There is no space left for it.
        StoreError: It cannot be used, and there is no folder for temporary files either.
    """
    try:
        return _opened(folder)
    except OSError as error:
        why = f"{_named(error, folder)}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StoreFullError(
                f"The cache's folder {folder} has no space left: free or add some, or give another one (--cache).",
                reason="CACHE_FULL",
            ) from error
        if lasting:
            raise _unusable(folder, why) from error
    return _beside(folder, why)


def private_temporary() -> Path:
    """A folder for temporary files that belongs to this user alone, the same from start to start.

    Raises:
        OSError: There is none.
    """
    folder = Path(tempfile.gettempdir()) / f"graft-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        # Somebody else has put it there, and could put encoders into it.
        return Path(tempfile.mkdtemp(prefix="graft-"))
    return folder


def _opened(folder: Path) -> CacheFolder:
    for part in _PARTS:
        path = folder / part
        make_folders(path)
        if not _may(path, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    for entry in (folder / ENCODERS).iterdir():
        if entry.is_dir() and not _may(entry, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(entry))
    temporary = scratch(folder / TEMPORARY)
    (temporary / "probe").write_bytes(b"0" * 4096)
    (temporary / "probe").unlink()
    return CacheFolder(folder, temporary)


def _beside(folder: Path, why: str) -> CacheFolder:
    """A cache for as long as this process runs, with what can be read of another."""
    try:
        place = private_temporary() / "caches"
        sweep(place)
        own = OwnedFolder(place)
        _link_encoders(folder, own.path)
        cache = _opened(own.path)
    except OSError as error:
        raise _unusable(
            folder, f"{why}; nor is there a folder for temporary files ({error.strerror})"
        ) from error
    _log.warning(
        "the cache's folder %s cannot be written by user id %d (%s): it is read, and what is made anew lies in %s "
        "until this server ends. %s",
        folder,
        os.geteuid(),
        why,
        own.path,
        _remedy(folder),
    )
    return CacheFolder(cache.path, cache.temporary, own)


def _link_encoders(folder: Path, to: Path) -> None:
    with suppress(OSError):
        for entry in (folder / ENCODERS).iterdir():
            if entry.name.startswith(".") or not _may(entry / GRAPH, os.R_OK):
                continue
            (to / ENCODERS / entry.name).mkdir(parents=True)
            for file in entry.iterdir():
                if _may(file, os.R_OK):
                    (to / ENCODERS / entry.name / file.name).symlink_to(file)


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _named(error: OSError, folder: Path) -> str:
    return str(error.filename or folder)


def _unusable(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"The cache's folder {folder} cannot be used by user id {os.geteuid()} ({why}). {_remedy(folder)}",
        reason="CACHE_UNUSABLE",
    )


def _remedy(folder: Path) -> str:
    groups = ", ".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    owner = ""
    with suppress(OSError, KeyError):
        owner = f", which belongs to {pwd.getpwuid(folder.stat().st_uid).pw_name},"
    return (
        f"Let this user's group ({groups}) write to it{owner} and to what is in it (chgrp -R, chmod -R g+rwX), or give "
        "another folder (--cache, GRAFT_CACHE)."
    )
