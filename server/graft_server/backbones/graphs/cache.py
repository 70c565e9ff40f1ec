"""Exported encoders on disk, by encoder_id: made once, then loaded by every start.

An entry appears whole or not at all: it is written elsewhere in the cache and renamed. Two processes that export the
same encoder at once make the same entry; the second rename loses, harmlessly. Who was killed meanwhile leaves a folder
that the next start sweeps.

Beside each graph FILE lies FILE.digest, by which a damaged one is told before it is used. A graph of an older release
has none; it gets its digest at its first use.

Who lacks a graph that another cache has gets it by way of the store, where graphs lie by

    encoders/ENCODER_ID/FILE

Nothing is put there as long as all who work with an encoder share one cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graft_server.domain.errors import BackboneError, CorruptError, NewerError, StoreError
from graft_server.jobs.job import TEMPORARY, Place
from graft_server.sharing.owned_folders import make_folders, scratch, share, sweep
from graft_server.store.handover import cache_identity
from graft_server.store.objects.objects import ObjectExistsError, Objects

_log = logging.getLogger(__name__)

GRAPH = "encoder.onnx"
NAMES = "names.onnx"
"""The text encoder of a backbone whose images share a space with texts."""
PARITY_RECORD = "parity.json"
"""What the export measured: `parity`, the largest relative difference to torch."""
NOTE = "encoder.json"
"""What the encoder is; see `former`."""
HIDDEN = "hidden"
"""What the tensor at a cut is called in both parts of a graph; see `cutting`."""


NOT_CACHED = "ENCODER_NOT_CACHED"
"""The reason of the error where a graph is neither in the cache nor in the store; metadata["encoder_id"] says whose."""

ENCODERS = "encoders"
"""The folder of the cache for entries, and that of the store."""
_DIGEST = ".digest"
_INTACT: dict[Path, tuple[int, int, int]] = {}
"""Graphs that this process found intact, and their state then."""
_TICK_NS = 2_000_000_000
_ON_ITS_WAY = ".temporary"
_HALF_MADE = re.compile(r"\..+|.+\.[0-9]+")
"""What older releases called what they had not finished."""
_ABANDONED_S = 3600.0
_CUT = re.compile(r"(?:above|below|adapted)-[0-9]+\.onnx")
_ABOVE, _BELOW, _ADAPTED = "above-{}.onnx", "below-{}.onnx", "adapted-{}.onnx"


class EncoderCache:
    """A folder of exported encoders, and what the store has of others."""

    def __init__(self, folder: Path, objects: Objects | None = None) -> None:
        """Makes it.

        Args:
            folder: The cache.
            objects: The store; None: there is none.
        """
        self._folder = folder
        self._objects = objects

    @classmethod
    def at(cls, place: Place) -> EncoderCache:
        """The cache where a job runs."""
        return cls(Path(place.cache), Objects.open(place.store) if place.store else None)

    @property
    def identity(self) -> str:
        """What tells this cache from others."""
        return cache_identity(self._folder)

    def graph(self, encoder_id: str) -> Path:
        """Where the encoder's graph is, or would be."""
        return self._folder / ENCODERS / encoder_id / GRAPH

    def names(self, encoder_id: str) -> Path:
        """Where the graph is that encodes names of classes, for backbones that have one."""
        return self.graph(encoder_id).with_name(NAMES)

    def below(self, encoder_id: str, layer: int) -> Path:
        """Where the part of the graph below a cut after so many layers is, or would be."""
        return self.graph(encoder_id).with_name(_BELOW.format(layer))

    def above(self, encoder_id: str, layer: int) -> Path:
        """Where the part above it is, or would be."""
        return self.graph(encoder_id).with_name(_ABOVE.format(layer))

    def adapted(self, encoder_id: str, layer: int) -> Path:
        """Where the part above it, or for layer 0 the whole, with room for adapters is, or would be."""
        return self.graph(encoder_id).with_name(_ADAPTED.format(layer))

    def note(self, encoder_id: str) -> Path:
        """Where it is noted what the encoder is; see `former`."""
        return self.graph(encoder_id).with_name(NOTE)

    def has(self, encoder_id: str) -> bool:
        """Whether the encoder has been exported."""
        return self.graph(encoder_id).is_file()

    def parity(self, encoder_id: str) -> float:
        """What was measured when it was exported; 0: not known."""
        try:
            return float(json.loads((self.graph(encoder_id).parent / PARITY_RECORD).read_bytes())["parity"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def require(self, path: Path) -> Path:
        """A file of an entry, from the store if this cache lacks it.

        Args:
            path: Where it would be: what `graph`, `names`, `below` or `above` gives.

        Raises:
            BackboneError: It is in neither (ENCODER_NOT_CACHED), or is damaged here and not there.
            StoreError: The store failed.
        """
        encoder_id = path.parent.name
        if not self.usable(path):
            self.fetch(encoder_id)
        if not path.is_file():
            raise BackboneError(
                f"The encoder {encoder_id} is not in the server's cache: restart the server, which exports it anew.",
                reason=NOT_CACHED,
                metadata={"encoder_id": encoder_id},
            )
        return path

    def usable(self, path: Path) -> bool:
        """Whether a graph is here and as it was written; one that is damaged is removed."""
        if not path.is_file():
            return False
        if self.intact(path):
            return True
        with suppress(OSError):
            path.unlink()
        return False

    def intact(self, path: Path) -> bool:
        """Whether a graph is as it was written; a damaged one is logged.

        One that this process found intact is read again only if it was written to since.
        """
        state = _state(path)
        if _INTACT.get(path) == state:
            return True
        found = _digest(path)
        record = path.with_name(path.name + _DIGEST)
        try:
            written = record.read_text("ascii").strip()
        except FileNotFoundError:
            with suppress(OSError):
                self._put(record, found.encode())
            written = found
        except (OSError, UnicodeDecodeError):
            written = ""
        if found != written:
            _log.error("encoder %s: %s in the cache is damaged", path.parent.name, path.name)
            _INTACT.pop(path, None)
            return False
        # What was written just now may be written to once more within the same tick of the file system's clock.
        if time.time_ns() - state[0] > _TICK_NS:
            _INTACT[path] = state
        return True

    def fetch(self, encoder_id: str) -> bool:
        """Gets what the store has of an entry and this cache lacks; returns whether the encoder is here then.

        Raises:
            StoreError: The store failed.
        """
        if self._objects is None:
            return self.has(encoder_id)
        keys = self._objects.keys(_prefix(encoder_id))
        try:
            if self.has(encoder_id):
                self._fetch_into(self.graph(encoder_id).parent, keys)
            elif _prefix(encoder_id) + GRAPH in keys:
                with self.new_entry(encoder_id) as entry:
                    self._fetch_into(entry, keys)
        except CorruptError as error:
            _log.error("encoder %s: it is made anew: %s", encoder_id, error.message)
            self._objects.delete(keys)
        except NewerError as error:
            _log.error("encoder %s: it is made here: %s", encoder_id, error.message)
        return self.has(encoder_id)

    def _fetch_into(self, folder: Path, keys: Iterable[str]) -> None:
        assert self._objects is not None  # noqa: S101 - there are no keys otherwise
        for key in keys:
            path = folder / key.rpartition("/")[2]
            if not path.is_file():
                fetched = self._temporary() / secrets.token_hex(8)
                self._objects.fetch(key, fetched)
                self._place(fetched, path)

    def share(self, encoder_id: str) -> bool:
        """Puts what this cache has of an entry into the store, for other caches; returns whether that is something.

        Raises:
            StoreError: The store failed.
        """
        if self._objects is None or not self.has(encoder_id):
            return False
        graph = self.graph(encoder_id)
        if not self.intact(graph):
            self.discard(encoder_id)
            return False
        files = [it for it in graph.parent.iterdir() if it != graph and _is_shared(it)]
        for path in (*files, graph):  # whoever sees the graph sees all
            with suppress(ObjectExistsError):
                self._objects.create_of_file(_prefix(encoder_id) + path.name, path)
        return True

    def give(self, encoder_id: str, *, cache: str) -> None:
        """Sees to it that an entry that was made here can be had where it is wanted.

        Args:
            encoder_id: The encoder.
            cache: The identity of the cache that it is wanted in.
        """
        if cache != self.identity:
            self.share(encoder_id)

    def discard(self, encoder_id: str) -> None:
        """Removes an entry that turned out to be unusable, here and in the store."""
        shutil.rmtree(self.graph(encoder_id).parent, ignore_errors=True)
        if self._objects is not None:
            with suppress(StoreError):  # then it is found out again
                self._objects.delete(self._objects.keys(_prefix(encoder_id)))

    def add(self, path: Path, data: bytes) -> None:
        """Puts a file beside an encoder's graph; two processes that do so at once put the same one."""
        temporary = self._temporary() / secrets.token_hex(8)
        temporary.write_bytes(data)
        self._place(temporary, path)

    @contextmanager
    def new_entry(self, encoder_id: str) -> Iterator[Path]:
        """Gives a folder to write the entry's files to; it becomes the entry if the block succeeds."""
        place = self.graph(encoder_id).parent
        make_folders(place.parent)
        temporary = self._temporary() / secrets.token_hex(8)
        temporary.mkdir()
        try:
            yield temporary
            for path in list(temporary.iterdir()):
                if path.suffix == ".onnx":
                    path.with_name(path.name + _DIGEST).write_text(_digest(path), "ascii")
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            self._let_in(place, temporary)
            with suppress(OSError):  # somebody else was faster
                temporary.rename(place)
                share(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what processes that are no more have left half-made."""
        sweep(self._folder / TEMPORARY)
        sweep(self._folder / ENCODERS / _ON_ITS_WAY)
        for path in [*(self._folder / ENCODERS).glob("*"), *(self._folder / ENCODERS).glob("*/*")]:
            with suppress(OSError):
                if _ON_ITS_WAY in (path.name, path.parent.name):
                    continue
                if _HALF_MADE.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def _let_in(self, place: Path, entry: Path) -> None:
        """Gives an entry's files to who may use the cache, and makes room for it where a broken one lies."""
        above = place.parent.stat().st_mode
        entry.chmod(entry.stat().st_mode & 0o7777 | above & 0o2070)
        for path in entry.iterdir():
            share(path)
        if place.is_dir() and not (place / GRAPH).exists():
            shutil.rmtree(place, ignore_errors=True)

    def _place(self, temporary: Path, path: Path) -> None:
        """Moves a file beside a graph, and its digest before it."""
        if path.suffix == ".onnx":
            self._put(path.with_name(path.name + _DIGEST), _digest(temporary).encode())
        temporary.replace(path)
        share(path)

    def _put(self, path: Path, data: bytes) -> None:
        temporary = self._temporary() / secrets.token_hex(8)
        temporary.write_bytes(data)
        temporary.replace(path)
        share(path)

    def _temporary(self) -> Path:
        # Beside the entries, which may be a volume of their own: nothing is renamed from one to another.
        return scratch(self._folder / ENCODERS / _ON_ITS_WAY)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return max(found.st_mtime_ns, found.st_ctime_ns), found.st_size, found.st_ino


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _prefix(encoder_id: str) -> str:
    return f"{ENCODERS}/{encoder_id}/"


def _is_shared(path: Path) -> bool:
    """Whether a file is part of an entry wherever it is: how to drive it is measured where it runs."""
    return path.name in (NAMES, PARITY_RECORD, NOTE) or bool(_CUT.fullmatch(path.name))
