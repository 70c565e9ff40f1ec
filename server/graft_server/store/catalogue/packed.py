"""Versions as the catalogue holds them in memory: packed, some hundred bytes each, and unpacked when asked for.

A catalogue may know a hundred thousand versions, of which few are asked for. The packed form is also the one that the
stored state of the catalogue consists of, so that reading it back builds no version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from graft_server.domain.model import HeldBack, ManifestRef, Version


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    number: int
    adaptation_id: str
    commit_id: str
    key: str
    sha256: str
    created: datetime
    summary: dict[str, Any]
    erased: bool = False
    redacted: bool = False
    metadata: dict[str, str] = {}
    held_back: tuple[int, datetime | None] | None = None
    """The fields of HeldBack."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def pack(version: Version, summary: Mapping[str, Any] | None = None) -> bytes:
    """Returns a version without its model's name as bytes; with another summary if one is given."""
    return _encoder.encode(
        _Packed(
            version.number,
            version.adaptation_id,
            version.commit_id,
            version.manifest.key,
            version.manifest.sha256,
            version.created,
            dict(version.summary if summary is None else summary),
            version.erased,
            version.redacted,
            dict(version.metadata),
            None if version.held_back is None else (version.held_back.live, version.held_back.pinned),
        )
    )


def unpack(model: str, packed: bytes) -> Version:
    """Reverses `pack`."""
    it = _decoder.decode(packed)
    return Version(
        model=model,
        number=it.number,
        adaptation_id=it.adaptation_id,
        commit_id=it.commit_id,
        manifest=ManifestRef(it.key, it.sha256),
        summary=it.summary,
        created=it.created,
        erased=it.erased,
        redacted=it.redacted,
        metadata=it.metadata,
        held_back=None if it.held_back is None else HeldBack(*it.held_back),
    )


def of_commit(model: str, packed: Mapping[int, bytes], adaptation_id: str, commit_id: str) -> Version | None:
    """Returns the version that a commit of an adaptation became, or None."""
    sought = commit_id.encode()
    for it in packed.values():
        # The ids stand in the bytes as they are, and a search costs less than unpacking.
        if sought in it:
            version = unpack(model, it)
            if (version.adaptation_id, version.commit_id) == (adaptation_id, commit_id):
                return version
    return None


class PackedVersions(Mapping[int, Version]):
    """A model's versions by number, ascending. Each access unpacks one, in a few microseconds."""

    __slots__ = ("_model", "packed")

    def __init__(self, model: str, packed: dict[int, bytes]) -> None:
        """Shows packed versions of a model, which must not be changed once others see the mapping."""
        self._model = model
        self.packed = packed

    def __getitem__(self, number: int) -> Version:
        return unpack(self._model, self.packed[number])

    def __contains__(self, number: object) -> bool:
        return number in self.packed

    def __iter__(self) -> Iterator[int]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def __repr__(self) -> str:
        return repr(dict(self))
