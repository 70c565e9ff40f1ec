"""Files that a job hands over: by key, in the store, with a cache in front.

Whoever asks for files names its cache by what identifies it. A worker that has the same cache leaves the files there,
and nothing goes through the store; any other worker puts them into the store, whence they are fetched.

In the cache of the process that asks they lie in a folder of its own, so that they go with it.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from graft_server.sharing.owned_folders import OwnedFolder, make_folders, share, sweep
from graft_server.store.objects.naming import give_name
from graft_server.store.objects.objects import Objects

OLDEST = timedelta(days=1)
"""What is so old belongs to somebody who is no more."""

_ROOT = "handed-over/"
_IDENTITY = "identity"
_HEXADECIMAL = re.compile("[0-9a-f]{32}")


def cache_identity(cache: Path) -> str:
    """What tells a cache from others; made when it is first asked for, and anew where it is nonsense."""
    path = cache / _ROOT / _IDENTITY
    if (found := _identity_in(path)) is not None:
        return found
    path.unlink(missing_ok=True)
    make_folders(path.parent)
    temporary = path.with_name(f".{_IDENTITY}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(secrets.token_hex(16), "ascii")
        share(temporary)
        with suppress(FileExistsError):
            give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return _identity_in(path) or ""


def _identity_in(path: Path) -> str | None:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        found = path.read_text("ascii")
        return found if _HEXADECIMAL.fullmatch(found) else None
    return None


@dataclass(frozen=True, slots=True)
class Old:
    """What looks old: a second look, after `LOOKS_APART_S` by no clock that can be set, shows what is left for good.

    By one look alone a clock that was set forward makes everything old.
    """

    objects: Mapping[str, datetime]
    """The objects, and when each was written."""
    folders: Mapping[Path, float]
    """Folders of the cache, and when each was last written to."""


LOOKS_APART_S = 3600.0
"""The seconds between two looks at what is old: whoever works with it takes it, or writes to it, within that time."""


class Handover:
    """Files by key, in one cache and in the store.

    Attributes:
        cache: The folder of the cache.
    """

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self.cache = cache
        self._own: OwnedFolder | None = None

    def new_folder(self) -> str:
        """The prefix for the keys of files that belong together, which are wanted in this cache by this process."""
        if self._own is None:
            self._own = OwnedFolder(self.cache / _ROOT)
        return f"{_ROOT}{self._own.path.name}/{secrets.token_hex(8)}/"

    def close(self) -> None:
        """Removes from this cache what is wanted by this process; nobody reads it any more."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def identity(self) -> str:
        """What tells this cache from others."""
        return cache_identity(self.cache)

    def local(self, folder: str) -> Path:
        """Where the files of a prefix lie in this cache."""
        return self.cache / folder

    def give(self, folder: str, names: Iterable[str], *, cache: str) -> None:
        """Hands files over that lie in this cache.

        Args:
            folder: Their prefix.
            names: Their names within.
            cache: The identity of the cache that they are wanted in.
        """
        if cache == cache_identity(self.cache):
            return
        for name in names:
            self._objects.delete([folder + name])  # of an attempt whose process died
            self._objects.create_of_file(folder + name, self.local(folder) / name)
        shutil.rmtree(self.local(folder), ignore_errors=True)

    def take(self, folder: str, names: Iterable[str]) -> None:
        """Sees to it that files that were handed over lie in this cache. Raises StoreError where they cannot be got."""
        for name in names:
            path = self.local(folder) / name
            if not path.is_file():
                self._objects.fetch(folder + name, path)
                self._objects.delete([folder + name])

    def drop(self, folder: str) -> None:
        """Removes the files of a prefix from this cache."""
        shutil.rmtree(self.local(folder), ignore_errors=True)

    def sweep_ended(self) -> None:
        """Removes from this cache what was wanted by processes that are no more."""
        sweep(self.cache / _ROOT)

    def old(self) -> Old:
        """Returns what was handed over so long ago that it may be for somebody who is no more."""
        ages, times = self._objects.ages(_ROOT), self._objects.times(_ROOT)
        oldest = time.time() - OLDEST.total_seconds()
        return Old(
            {key: time for key, time in times.items() if ages.get(key, timedelta(0)) > OLDEST},
            {path: written for path, written in self._folders().items() if written < oldest},
        )

    def sweep(self, old: Old) -> None:
        """Deletes what was old at an earlier look and is there as it was."""
        times, folders = self._objects.times(_ROOT), self._folders()
        self._objects.delete([key for key, time in old.objects.items() if times.get(key) == time])
        for path, written in old.folders.items():
            if folders.get(path) == written:
                shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> dict[Path, float]:
        """Returns the folders of this cache, and when each was last written to."""
        found = {}
        for path in (*(self.cache / _ROOT).glob("*/"), *(self.cache / _ROOT).glob("*/*/")):
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime
        return found
