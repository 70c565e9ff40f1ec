"""Where tunings leave what can be made again, and how all of it goes.

Objects of the store (see `tuning_objects`), and files of the cache where a tuning ran (its checkpoint), lie by

    MODEL/ERASURE/COMMIT/

where ERASURE numbers the catalogue's entry that last erased examples of the model, or all of it: what was made before
an erasure is told from what was made after it.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from graft_server.jobs.job import Place
from graft_server.store.handover import Old
from graft_server.store.objects.objects import Objects

OLDEST = timedelta(days=7)
"""What nobody wrote to for so long belongs to a commit that never ended."""

_ROOT = "tunings/"
_FOLDER = "tuning"
_NUMBER_DIGITS = 12


@dataclass(frozen=True, slots=True)
class _Named:
    """Whose tuning something is."""

    model: str
    erasure: int
    commit: str

    @classmethod
    def of(cls, path: str) -> Self | None:
        """Reads what a key, or a path in the cache, begins with; None: no tuning has such a one."""
        match path.split("/"):
            case [model, erasure, commit, *_] if erasure.isascii() and erasure.isdigit():
                return cls(model, int(erasure), commit)
        return None


def tuning_folder(model: str, erasure: int, adaptation: str, commit_id: str) -> str:
    """The prefix of a commit's objects.

    Args:
        model: The model.
        erasure: The number of the catalogue's entry that last erased examples of the model, or all of it; 0: none did.
        adaptation: The name that the adaptation is stored by.
        commit_id: The commit.
    """
    return f"{_ROOT}{_digest(model)}/{erasure:0{_NUMBER_DIGITS}}/{_digest(adaptation, commit_id)}/"


class Tunings:
    """What all tunings of a store left, in the store and in one cache."""

    def __init__(self, objects: Objects, place: Place) -> None:
        self._objects = objects
        self._folders = Path(place.cache) / _FOLDER
        self._folder = self._folders / _digest(place.store)

    def local(self, folder: str, name: str) -> Path:
        """A folder of the cache, made if it is missing.

        Args:
            folder: The prefix of the commit's objects.
            name: Tells tunings of one commit apart.
        """
        path = self._folder / folder.removeprefix(_ROOT) / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def delete(self, folder: str) -> None:
        """Deletes what a commit left."""
        self._objects.delete(self._objects.keys(folder))
        shutil.rmtree(self._folder / folder.removeprefix(_ROOT), ignore_errors=True)

    def discard(self, model: str, adaptation: str, commits: Iterable[str]) -> None:
        """Deletes what commits left that were given up for good."""
        given_up = {_digest(adaptation, it) for it in commits}
        if given_up:
            self._delete(f"{_digest(model)}/", lambda it: it.commit in given_up)

    def forget(self, model: str, erasure: int) -> None:
        """Deletes what was made of a model's examples before an erasure."""
        self._delete(f"{_digest(model)}/", lambda it: it.erasure < erasure)

    def sweep(self, erasures: Mapping[str, int]) -> None:
        """Deletes what was made before an erasure, and from the cache what is so old that its commit never ended.

        Args:
            erasures: Model to the number of the catalogue's entry that last erased examples of it, or all of it.
        """
        last = {_digest(model): number for model, number in erasures.items()}
        self._delete("", lambda it: it.erasure < last.get(it.model, 0))
        self.sweep_cache()

    def old(self) -> Old:
        """Returns the objects that are so old that their commits may never have ended."""
        ages, times = self._objects.ages(_ROOT), self._objects.times(_ROOT)
        named = {it: _Named.of(it.removeprefix(_ROOT)) for it in times}
        return Old({it: times[it] for it in times if named[it] and ages.get(it, timedelta(0)) > OLDEST}, {})

    def sweep_old(self, old: Old) -> None:
        """Deletes objects that were old at an earlier look and are there as they were."""
        times = self._objects.times(_ROOT)
        self._objects.delete([key for key, time in old.objects.items() if times.get(key) == time])

    def sweep_cache(self) -> None:
        """Deletes from the cache what is so old that its commit never ended, also of stores that are gone."""
        for path in [*self._folders.glob("*/*/*/*/"), *self._folders.glob("*/*/")]:
            if _age(path) > OLDEST:
                shutil.rmtree(path, ignore_errors=True)

    def _delete(self, prefix: str, doomed: Callable[[_Named], bool]) -> None:
        named = {key: _Named.of(key.removeprefix(_ROOT)) for key in self._objects.keys(_ROOT + prefix)}
        self._objects.delete([key for key, it in named.items() if it is not None and doomed(it)])
        own = prefix.rstrip("/")
        self._delete_local(lambda it: own in ("", it.model) and doomed(it))

    def _delete_local(self, doomed: Callable[[_Named], bool]) -> None:
        for path in self._folder.glob("*/*/*"):
            named = _Named.of(path.relative_to(self._folder).as_posix())
            if named is not None and doomed(named):
                shutil.rmtree(path, ignore_errors=True)


def _age(folder: Path) -> timedelta:
    """How long ago something in a folder was last written to; 0, where a tuning makes and removes files meanwhile."""
    try:
        newest = max(it.stat().st_mtime for it in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return timedelta(0)
    return timedelta(seconds=time.time() - newest)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
