"""The state of the catalogue as an object of the store, so that a start reads it and the few entries after it.

The log stays the source: a state is derived from it, and one that is damaged, or of another release's format, is passed
over. Models are stored with their versions packed, so that ten thousand of them are read back in some hundredths of a
second. Whatever changes what `Replay` makes of the same entries has to raise FORMAT: each release reads only states of
its own format, and deletes no others.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType

import msgspec

from graft_server.domain.errors import StoreError
from graft_server.domain.model import ManifestRef, Model
from graft_server.store.catalogue.packed import PackedVersions
from graft_server.store.catalogue.snapshot import Replay
from graft_server.store.objects.objects import ObjectExistsError, Objects

FORMAT = 2
FOLDER = "catalogue-states/"
KEPT = 2
"""The newest states that are kept: one that is being read may be deleted, and the next is read then."""
EVERY = 256
"""The least number of entries between two states: as many are read at start in about 20 ms."""
SHARE = 32
"""Between two states there is at least an entry for so many models, so that states cost little beside entries."""

_NAME = re.compile(rf"(\d{{20}})-{FORMAT}\.msgpack")
_log = logging.getLogger(__name__)


class _StoredModel(msgspec.Struct, frozen=True, array_like=True):
    name: str
    created: datetime
    versions: dict[int, bytes]
    aliases: dict[str, int]
    live_pinned: datetime | None
    metadata: dict[str, str]


class _StoredState(msgspec.Struct, frozen=True):
    entries: int
    last_entry: bytes
    """The digest of the last entry that the state comprises."""
    models: list[_StoredModel]
    last_numbers: dict[str, int]
    withdrawn: dict[str, dict[int, bytes]]
    deletions: dict[str, int]
    erasures: dict[str, int]
    erased: list[tuple[str, str, int]]
    cancelled: list[tuple[str, str]]
    replaced: dict[str, list[tuple[str, str]]]


def entry_digest(data: bytes) -> bytes:
    """Returns what a state knows its last entry by."""
    return hashlib.blake2b(data, digest_size=16).digest()


def due(replay: Replay, entries: int) -> bool:
    """Whether so many entries after a state are worth another one."""
    return entries >= max(EVERY, len(replay.models) // SHARE)


def encode(replay: Replay, entries: int, last_entry: bytes) -> bytes:
    """Returns the state after a number of entries as bytes."""
    models = [
        _StoredModel(
            name, it.created, dict(replay.packed(name)), dict(it.aliases), it.live_pinned, dict(it.metadata)
        )
        for name, it in replay.models.items()
    ]
    stored = _StoredState(
        entries=entries,
        last_entry=last_entry,
        models=models,
        last_numbers=replay.last_numbers,
        withdrawn=replay.withdrawn,
        deletions=replay.deletions,
        erasures=replay.erasures,
        erased=[(*key, generation) for key, generation in replay.erased.items()],
        cancelled=sorted(replay.cancelled),
        replaced={name: [(it.key, it.sha256) for it in them] for name, them in replay.replaced.items()},
    )
    return msgspec.msgpack.encode(stored)


def decode(data: bytes) -> tuple[Replay, int, bytes]:
    """Reverses `encode`; raises MsgspecError for other bytes."""
    stored = msgspec.msgpack.decode(data, type=_StoredState)
    replay = Replay(
        models={
            it.name: Model(
                it.name,
                it.created,
                PackedVersions(it.name, it.versions),
                MappingProxyType(it.aliases),
                live_pinned=it.live_pinned,
                metadata=MappingProxyType(it.metadata),
            )
            for it in stored.models
        },
        last_numbers=stored.last_numbers,
        withdrawn=stored.withdrawn,
        deletions=stored.deletions,
        erasures=stored.erasures,
        erased={(model, name): generation for model, name, generation in stored.erased},
        cancelled=set(stored.cancelled),
        replaced={
            name: tuple(ManifestRef(key, sha256) for key, sha256 in them)
            for name, them in stored.replaced.items()
        },
    )
    return replay, stored.entries, stored.last_entry


def read_newest(objects: Objects) -> Iterator[tuple[Replay, int, bytes]]:
    """Yields the stored states that can be read: the state, its number of entries, the digest of the last one."""
    try:
        found = stored(objects)
    except StoreError as error:
        _log.warning("the stored states of the catalogue are passed over: %s", error.message)
        return
    for entries in reversed(found):
        key = _key(entries)
        try:
            yield decode(objects.get(key))
        except (StoreError, msgspec.MsgspecError) as error:
            _log.warning("the stored state %s of the catalogue is passed over: %s", key, error)


def stored(objects: Objects) -> list[int]:
    """Returns the numbers of entries of the stored states, ascending."""
    names = map(_NAME.fullmatch, objects.names_after(FOLDER, ""))
    return [int(it[1]) for it in names if it]


def write(objects: Objects, entries: int, data: bytes) -> None:
    """Stores a state and deletes all but the newest; raises StoreError if that fails."""
    with suppress(ObjectExistsError):
        objects.create(_key(entries), data, lasting=False)
    objects.delete([_key(it) for it in stored(objects)[:-KEPT]])


def _key(entries: int) -> str:
    return f"{FOLDER}{entries:020d}-{FORMAT}.msgpack"
