"""A model as callers and the store know it: its versions, their manifests, and its aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from graft_server.domain.errors import MissingError
from graft_server.domain.examples import Label, Task
from graft_server.domain.names import shown
from graft_server.domain.report import Report


@dataclass(frozen=True, slots=True)
class Source:
    """Examples that a version was trained on: those of one adaptation, up to some point."""

    adaptation_id: str
    """The name that it is stored by; see `adaptations.stored_name`."""
    watermarks: dict[str, int]
    """Writer to the sequence number below which its changes are meant."""
    generation: int = 0
    """Of the adaptation's segments, when the version was trained: what was erased later was still there."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version is. It never changes."""

    model: str
    adaptation_id: str
    commit_id: str
    backbone: str
    """The backbone's name on the server that trained the version."""
    encoder_id: str
    labels: tuple[Label, ...]
    """In output order; none for a regression."""
    sources: tuple[Source, ...]
    """The lineage, oldest adaptation first."""
    seed: int
    created: datetime
    """With a time zone."""
    below: int = 0
    """Where there is a part TOP: how many layers of the backbone stay as they are, and come before it."""
    parts: dict[str, str] = field(default_factory=dict)
    """Name of each part to its SHA-256; filled in by `write_version`."""
    task: Task = Task.DEFAULT


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """Where a manifest is, and the SHA-256 that it must have."""

    key: str
    sha256: str


LIVE = "live"
"""The alias that serves where a request selects nothing."""


@dataclass(frozen=True, slots=True)
class Version:
    """A published version."""

    model: str
    number: int
    adaptation_id: str
    commit_id: str
    manifest: ManifestRef
    summary: Mapping[str, Any]
    """Figures of its report, enough to list it without reading it."""
    created: datetime
    erased: bool = False
    """Whether it may have been trained on examples that were erased since."""
    redacted: bool = False
    """Whether its parts were written anew, without what they held of those."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model at one moment."""

    name: str
    created: datetime
    """When its first version was published."""
    versions: Mapping[int, Version]
    """By number, ascending."""
    aliases: Mapping[str, int]

    @property
    def latest_version(self) -> int:
        """The highest number that still exists, or 0."""
        return max(self.versions, default=0)

    def version(self, number: int) -> Version:
        """Returns a version, or raises MissingError."""
        if number not in self.versions:
            have = f"its newest is {self.latest_version}" if self.versions else "it has none"
            raise MissingError(
                f"Model {shown(self.name)} has no version {number}: {have}; ListVersions lists them.",
                reason="VERSION_NOT_FOUND",
                field="version",
            )
        return self.versions[number]

    def aliases_of(self, number: int) -> tuple[str, ...]:
        """Returns the aliases that point at a version, sorted."""
        return tuple(sorted(alias for alias, version in self.aliases.items() if version == number))

    def alias(self, alias: str = LIVE) -> Version:
        """Returns the version that an alias points at, or raises MissingError."""
        if alias not in self.aliases:
            raise no_alias(self.name, alias)
        return self.version(self.aliases[alias])


def no_alias(model: str, alias: str) -> MissingError:
    """Returns the error where a model has no such alias."""
    return MissingError(
        f"Model {shown(model)} has no alias {shown(alias)}: point it at a version with SetAlias, or select a "
        "version by its number.",
        reason="ALIAS_NOT_FOUND",
        field="alias",
    )


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version as callers see it."""

    version: Version
    aliases: tuple[str, ...]
    """Those that point at it, sorted."""
    report: Report | None = None
    """The whole report; None in lists, where `version.summary` has its figures."""
    labels: tuple[Label, ...] = ()
    """In output order; empty in lists, and for a regression."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle."""

    path: str
    """Within the bundle, with "/" between its parts."""
    size: int
    """In bytes."""
    sha256: str
    """In lower-case hexadecimal digits."""
    place: Path
    """Where it is now."""


@dataclass(frozen=True, slots=True)
class BundleChunk:
    """A piece of a file of a bundle. An empty file has one empty chunk."""

    path: str
    """The file's, within the bundle, with "/" between its parts."""
    size: int
    """The whole file's, in bytes."""
    sha256: str
    """The whole file's, in lower-case hexadecimal digits."""
    chunk: bytes
    """The next bytes of the file."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a wish to erase examples."""

    examples: int
    """How many records of them were erased, over all adaptations."""
    affected: tuple[int, ...] = ()
    """The versions that may have been trained on examples erased now or before, and are still there."""
    deleted: tuple[int, ...] = ()
    """Those of them that were deleted."""
