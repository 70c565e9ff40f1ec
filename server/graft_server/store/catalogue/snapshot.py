"""The catalogue at one moment, computed from the log's entries alone, without the store."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

from graft_server.domain.errors import UPGRADE, MissingError, NewerError
from graft_server.domain.model import LIVE, ManifestRef, Model, Version
from graft_server.domain.names import shown
from graft_server.store.catalogue.entries import (
    CancelAdaptation,
    DeleteModel,
    DeleteVersion,
    Entry,
    EraseExamples,
    MoveAlias,
    Publish,
    Redact,
    SetMetadata,
)
from graft_server.store.catalogue.packed import PackedVersions, of_commit, pack, unpack


class Names:
    """The models' names. They are sorted when they are first asked for in order."""

    __slots__ = ("_models", "_sorted")

    def __init__(self, models: Mapping[str, Model]) -> None:
        """Holds the names of models that do not change."""
        self._models = models
        self._sorted: list[str] | None = None

    def beginning(self, prefix: str, first: str = "") -> Iterator[str]:
        """Yields the names that begin with a prefix, in order, from `first` on."""
        if self._sorted is None:
            self._sorted = sorted(self._models)
        for place in range(bisect_left(self._sorted, max(prefix, first)), len(self._sorted)):
            if not self._sorted[place].startswith(prefix):
                return
            yield self._sorted[place]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment. It never changes."""

    models: Mapping[str, Model]
    entries: int = 0
    """The number of the log's entries that it comprises."""
    damaged: tuple[str, ...] = ()
    """Entries that could not be read. Their content is missing here, and nothing more can be written."""
    deletions: Mapping[str, int] = field(default_factory=dict)
    """Model to the number of the entry that last deleted it."""
    erasures: Mapping[str, int] = field(default_factory=dict)
    """Model to the number of the entry that last erased examples of it."""
    erased: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model, adaptation) to the generation of its last erasure among the entries."""
    cancelled: frozenset[tuple[str, str]] = frozenset()
    """(model, adaptation) of each cancelled adaptation."""
    replaced: Mapping[str, tuple[ManifestRef, ...]] = field(default_factory=dict)
    """Model to the manifests that rewritten versions replaced: their remaining objects must be deleted."""
    names: Names = field(default_factory=lambda: Names({}), compare=False, repr=False)
    """The names of the models, in order."""
    newer: tuple[str, ...] = ()
    """Entries that a newer release wrote: as with damaged ones, but they are left for a server of that release."""

    @property
    def last_erasures(self) -> dict[str, int]:
        """Model to the number of the entry that last erased examples of it, or all of it."""
        names = self.erasures.keys() | self.deletions.keys()
        return {it: max(self.erasures.get(it, 0), self.deletions.get(it, 0)) for it in names}

    def require_known(self) -> None:
        """Raises NewerError if an entry is a newer release's: what it says of versions and deletions is unknown."""
        if self.newer:
            raise NewerError(
                f"The catalogue cannot be changed by this server: a newer release of Graft wrote its entry "
                f"{self.newer[0]}, and {len(self.newer):,} in all. What is known of models is served. To change it, "
                f"{UPGRADE}",
                reason="CATALOGUE_NEWER",
                metadata={"object": self.newer[0]},
            )

    def model(self, name: str) -> Model:
        """Returns a model, or raises MissingError."""
        if name not in self.models:
            raise MissingError(
                f"There is no model {shown(name)}: publish it through Adapt; ListModels lists what there is.",
                reason="MODEL_NOT_FOUND",
                field="model",
            )
        return self.models[name]


@dataclass(slots=True, eq=False)
class Replay:
    """The state of the log, built up entry by entry.

    It changes in place: a snapshot per entry would copy all models each time, which is slow for thousands.
    """

    models: dict[str, Model] = field(default_factory=dict)
    """The models; their versions are `PackedVersions`."""
    last_numbers: dict[str, int] = field(default_factory=dict)
    """Model to its last used version number, even of a deleted version or model."""
    withdrawn: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Model to its deleted versions, packed, by number: a repeated publication returns them."""
    deletions: dict[str, int] = field(default_factory=dict)
    erasures: dict[str, int] = field(default_factory=dict)
    erased: dict[tuple[str, str], int] = field(default_factory=dict)
    cancelled: set[tuple[str, str]] = field(default_factory=set)
    replaced: dict[str, tuple[ManifestRef, ...]] = field(default_factory=dict)
    _unshared: set[str] = field(default_factory=set)
    """The models whose versions no snapshot shows, so that they are changed in place."""
    _names: Names | None = None

    def snapshot(self, entries: int, damaged: Sequence[str]) -> Snapshot:
        """Returns the state after `entries` entries, of which `damaged` could not be read."""
        self._unshared.clear()
        models = MappingProxyType(dict(self.models))
        if self._names is None:
            self._names = Names(models)
        return Snapshot(
            models,
            entries,
            tuple(damaged),
            MappingProxyType(dict(self.deletions)),
            MappingProxyType(dict(self.erasures)),
            MappingProxyType(dict(self.erased)),
            frozenset(self.cancelled),
            MappingProxyType(dict(self.replaced)),
            self._names,
        )

    def packed(self, model: str) -> Mapping[int, bytes]:
        """Returns the packed versions of a model by number, ascending."""
        return _packed(self.models[model])

    def published(self, model: str, adaptation_id: str, commit_id: str) -> Version | None:
        """Returns the version that a commit became, even if it was deleted since; None if it was not published."""
        known = self.models.get(model)
        for packed in (_packed(known) if known else {}, self.withdrawn.get(model, {})):
            if version := of_commit(model, packed, adaptation_id, commit_id):
                return version
        return None

    def apply(self, entry: Entry, number: int) -> None:
        """Applies the log's entry of that number; called for each entry in order."""
        self._note(entry, number)
        model = self.models.get(entry.model)
        if isinstance(entry, Publish):
            self._apply_publish(entry, model)
        elif model is not None:  # else a damaged entry had it, or the model does not exist yet
            self._apply_change(entry, model)

    def _apply_change(self, entry: Entry, model: Model) -> None:
        """Applies an entry other than a publication to the model that it is about."""
        name = model.name
        if isinstance(entry, EraseExamples):
            versions = self._versions(model)
            for it in entry.versions:
                if it in versions:
                    versions[it] = pack(replace(unpack(name, versions[it]), erased=True))
        elif isinstance(entry, Redact):
            self._apply_redact(entry, model)
        elif isinstance(entry, MoveAlias):
            self.models[name] = _moved(model, entry)
        elif isinstance(entry, SetMetadata):
            self.models[name] = replace(model, metadata=MappingProxyType(dict(entry.metadata)))
        elif isinstance(entry, DeleteVersion):
            deleted = self._versions(model).pop(entry.version, None)
            if deleted is not None:
                self.withdrawn.setdefault(name, {})[entry.version] = pack(unpack(name, deleted), {})
        elif isinstance(entry, DeleteModel):
            del self.models[name]
            self._names = None

    def _note(self, entry: Entry, number: int) -> None:
        """Records facts about adaptations, including those of models without a version."""
        if isinstance(entry, CancelAdaptation):
            self.cancelled.add((entry.model, entry.adaptation_id))
        elif isinstance(entry, EraseExamples):
            self.erasures[entry.model] = number
            self.erased.update(((entry.model, it), last) for it, last in entry.generations.items())
        elif isinstance(entry, DeleteModel):
            self.deletions[entry.model] = number
            # Its adaptations go with it, so their ids are free for new ones.
            self.withdrawn.pop(entry.model, None)
            self.cancelled = {it for it in self.cancelled if it[0] != entry.model}
            self.erased = {key: it for key, it in self.erased.items() if key[0] != entry.model}

    def _apply_publish(self, entry: Publish, model: Model | None) -> None:
        if model is None:
            model = Model(entry.model, entry.time, PackedVersions(entry.model, {}), {})
            self.models[entry.model] = model
            self._unshared.add(entry.model)
            self._names = None
        version = Version(
            model=entry.model,
            number=entry.version,
            adaptation_id=entry.adaptation_id,
            commit_id=entry.commit_id,
            manifest=entry.manifest,
            summary=entry.summary,
            created=entry.time,
            metadata=entry.metadata,
            held_back=entry.held_back,
        )
        self.last_numbers[entry.model] = entry.version
        self._versions(model)[entry.version] = pack(version)
        aliases = {**model.aliases, **dict.fromkeys(entry.aliases, entry.version)}
        if aliases != model.aliases:
            self.models[entry.model] = replace(self.models[entry.model], aliases=MappingProxyType(aliases))

    def _apply_redact(self, entry: Redact, model: Model) -> None:
        if entry.version not in model.versions:
            return  # a damaged entry published it
        before = model.versions[entry.version]
        self.replaced[entry.model] = (*self.replaced.get(entry.model, ()), before.manifest)
        version = replace(before, manifest=entry.manifest, redacted=True)
        self._versions(model)[entry.version] = pack(version)

    def _versions(self, model: Model) -> dict[int, bytes]:
        """Returns a model's packed versions, to be changed in place: those that a snapshot shows are copied first."""
        if model.name in self._unshared:
            return _packed(self.models[model.name])
        versions = dict(_packed(model))
        self.models[model.name] = replace(model, versions=PackedVersions(model.name, versions))
        self._unshared.add(model.name)
        return versions


def _moved(model: Model, entry: MoveAlias) -> Model:
    """Returns a model after an alias was moved."""
    aliases = {alias: number for alias, number in model.aliases.items() if alias != entry.alias}
    if entry.version:
        aliases[entry.alias] = entry.version
    pinned = model.live_pinned
    if entry.alias == LIVE:
        pinned = entry.time if entry.pinned else None
    return replace(model, aliases=MappingProxyType(aliases), live_pinned=pinned)


def _packed(model: Model) -> dict[int, bytes]:
    return cast("PackedVersions", model.versions).packed
