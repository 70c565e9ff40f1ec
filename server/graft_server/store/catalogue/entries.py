"""The entries of the catalogue's log, as they are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from graft_server.domain.model import HeldBack, ManifestRef
from graft_server.store.objects import formats


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """A version was published, and aliases moved to it."""

    time: datetime
    model: str
    version: int
    adaptation_id: str
    commit_id: str
    manifest: ManifestRef
    aliases: tuple[str, ...]
    summary: dict[str, Any]
    metadata: dict[str, str] = {}
    held_back: HeldBack | None = None
    """Why it did not move `live`; None: it did."""


class MoveAlias(msgspec.Struct, frozen=True, tag="move_alias"):
    """An alias was pointed at a version, or removed by version 0."""

    time: datetime
    model: str
    alias: str
    version: int
    pinned: bool = False
    """Whether publications do not move the alias, which is `live`, until it is moved again."""

    @property
    def format_number(self) -> int:
        """The format that it is stored in: releases that know the first one alone would move a pinned alias."""
        return formats.MATCHED if self.pinned else formats.FIRST


class DeleteVersion(msgspec.Struct, frozen=True, tag="delete_version"):
    """A version was deleted. Its number stays used."""

    time: datetime
    model: str
    version: int


class DeleteModel(msgspec.Struct, frozen=True, tag="delete_model"):
    """A model was deleted. A new one of the same name continues its version numbers."""

    time: datetime
    model: str


class CancelAdaptation(msgspec.Struct, frozen=True, tag="cancel_adaptation"):
    """An adaptation was cancelled: nothing of it is published after this."""

    time: datetime
    model: str
    adaptation_id: str


class EraseExamples(msgspec.Struct, frozen=True, tag="erase_examples"):
    """Examples of a model were erased: a version whose training read them is not published after this entry."""

    time: datetime
    model: str
    versions: tuple[int, ...]
    """The versions that may have been trained on the examples."""
    generations: dict[str, int]
    """Adaptation to the generation of its segments that erased them."""


class Redact(msgspec.Struct, frozen=True, tag="redact"):
    """A version's parts were rewritten without their traces of erased examples."""

    time: datetime
    model: str
    version: int
    manifest: ManifestRef


class SetMetadata(msgspec.Struct, frozen=True, tag="set_metadata"):
    """A model has other metadata."""

    time: datetime
    model: str
    metadata: dict[str, str]
    """All of it."""


Entry = (
    Publish
    | MoveAlias
    | DeleteVersion
    | DeleteModel
    | CancelAdaptation
    | EraseExamples
    | Redact
    | SetMetadata
)
