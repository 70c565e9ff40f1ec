"""A model as callers and the store know it: its versions, their manifests, and its aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from graft_server.domain.errors import MissingError
from graft_server.domain.examples import Label, Task
from graft_server.domain.extension import Extension
from graft_server.domain.names import shown
from graft_server.domain.report import Report


@dataclass(frozen=True, slots=True)
class Source:
    """The examples of one adaptation, up to some point, that a version was trained on."""

    adaptation_id: str
    """The name under which the adaptation is stored; see `adaptations.stored_name`."""
    watermarks: dict[str, int]
    """Writer to the sequence number below which its changes were read."""
    generation: int = 0
    """The generation of the adaptation's segments that was read: examples erased later were still there."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a version. It never changes."""

    model: str
    adaptation_id: str
    commit_id: str
    backbone: str
    """The backbone's name on the server that trained the version."""
    encoder_id: str
    labels: tuple[Label, ...]
    """The labels in output order; none for a regression."""
    sources: tuple[Source, ...]
    """The lineage, oldest adaptation first."""
    seed: int
    created: datetime
    """The time of training, with a time zone."""
    below: int = 0
    """If there is a part TOP or ADAPTER: the number of the backbone's layers below it, which stay as they are."""
    parts: dict[str, str] = field(default_factory=dict)
    """Part name to SHA-256; filled in by `write_version`."""
    task: Task = Task.DEFAULT
    extension: Extension | None = None
    """What came of the examples of its adaptation beside those of the version that it extends; None: it extends none,
    or a release trained it that did not note it."""


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """The place of a manifest, and the SHA-256 that it must have."""

    key: str
    sha256: str


LIVE = "live"
"""The alias that answers a request that selects no version."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Why a publication did not move the alias `live`."""

    live: int
    """The version that `live` pointed at, and stayed at; 0: it pointed nowhere."""
    pinned: datetime | None = None
    """The time at which `live` was pinned there; None: the adaptation's policy does not promote."""


@dataclass(frozen=True, slots=True)
class LiveThen:
    """Where the alias `live` pointed once a version was published."""

    version: int
    """The version itself, or the one that `live` stayed at; 0: it pointed nowhere."""
    pinned: datetime | None = None
    """The time at which `live` was pinned there, if that is why it did not move."""


@dataclass(frozen=True, slots=True)
class Version:
    """A published version."""

    model: str
    number: int
    adaptation_id: str
    commit_id: str
    manifest: ManifestRef
    summary: Mapping[str, Any]
    """Figures of the report, enough to list the version without reading the report."""
    created: datetime
    erased: bool = False
    """Whether it may have been trained on examples that have since been erased."""
    redacted: bool = False
    """Whether its parts were rewritten without their traces of erased examples."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The metadata of the adaptation that it came from."""
    held_back: HeldBack | None = None
    """Why its publication did not move `live`; None: it did."""

    @property
    def live_then(self) -> LiveThen:
        """Where `live` pointed once it was published."""
        held_back = self.held_back
        return LiveThen(self.number) if held_back is None else LiveThen(held_back.live, held_back.pinned)


class RenewalState(StrEnum):
    """How far the server is with adapting a model anew for another encoder."""

    WAITING = "waiting"
    RUNNING = "running"
    FAILED = "failed"
    """It cannot be done, and the version stays as it is."""


@dataclass(frozen=True, slots=True)
class ModelRenewal:
    """What the server does about a newest version that was trained on another encoder than its backbone is."""

    state: RenewalState
    detail: str = ""
    """Why it is FAILED, or WAITING after it was tried."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model at one moment."""

    name: str
    created: datetime
    """When its first version was published."""
    versions: Mapping[int, Version]
    """The versions by number, ascending."""
    aliases: Mapping[str, int]
    renewal: ModelRenewal | None = None
    """As this server knows it; None in the catalogue, and where there is nothing to do."""
    live_pinned: datetime | None = None
    """The time at which `live` was pointed at another version than the newest, so that publications do not move it."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def latest_version(self) -> int:
        """The highest number that still exists, or 0."""
        return max(self.versions, default=0)

    def newest(self) -> Version:
        """Returns the version with the highest number, or raises MissingError."""
        if not self.versions:
            raise MissingError(
                f"Model {shown(self.name)} has no version: publish one through Adapt.",
                reason="VERSION_MISSING",
                field="model",
            )
        return self.versions[self.latest_version]

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
    """Returns the error for an alias that a model does not have."""
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
    """The aliases that point at it, sorted."""
    report: Report | None = None
    """The whole report; None in lists, which have its figures in `version.summary`."""
    labels: tuple[Label, ...] = ()
    """The labels in output order; empty in lists, and for a regression."""
    extension: Extension | None = None
    """See `Manifest`; None in lists."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle."""

    path: str
    """The file's path within the bundle, with "/" between its parts."""
    size: int
    """The file's size in bytes."""
    sha256: str
    """The file's SHA-256 in lower-case hexadecimal digits."""
    place: Path
    """The place of the file on this machine."""


@dataclass(frozen=True, slots=True)
class BundleChunk:
    """A piece of a file of a bundle. An empty file has one empty chunk."""

    path: str
    """The path of the file within the bundle, with "/" between its parts."""
    size: int
    """The size of the whole file in bytes."""
    sha256: str
    """The SHA-256 of the whole file in lower-case hexadecimal digits."""
    chunk: bytes
    """The next bytes of the file."""
    offset: int = 0
    """Where in the file they begin."""
    version: int = 0
    """The version that the bundle is of."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """What a caller has of a file of a bundle."""

    sha256: str
    """The SHA-256 of the whole file in lower-case hexadecimal digits."""
    size: int
    """How many bytes from its beginning the caller has."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The result of a request to erase examples."""

    examples: int
    """How many records of the examples were erased, over all adaptations."""
    affected: tuple[int, ...] = ()
    """The versions, not deleted, that may have been trained on examples erased now or before."""
    deleted: tuple[int, ...] = ()
    """The affected versions that were deleted."""
