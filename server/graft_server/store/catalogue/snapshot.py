"""The catalogue at one moment, computed from the log's entries alone, without the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from graft_server.domain.errors import UPGRADE, MissingError, NewerError
from graft_server.domain.model import ManifestRef, Model, Version
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
)


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
    last_numbers: dict[str, int] = field(default_factory=dict)
    """Model to its last used version number, even of a deleted version or model."""
    published: dict[tuple[str, str, str], Version] = field(default_factory=dict)
    """(model, adaptation, commit) to the resulting version, even if deleted since."""
    deletions: dict[str, int] = field(default_factory=dict)
    erasures: dict[str, int] = field(default_factory=dict)
    erased: dict[tuple[str, str], int] = field(default_factory=dict)
    cancelled: set[tuple[str, str]] = field(default_factory=set)
    replaced: dict[str, tuple[ManifestRef, ...]] = field(default_factory=dict)

    def snapshot(self, entries: int, damaged: Sequence[str]) -> Snapshot:
        """Returns the state after `entries` entries, of which `damaged` could not be read."""
        return Snapshot(
            MappingProxyType(dict(self.models)),
            entries,
            tuple(damaged),
            MappingProxyType(dict(self.deletions)),
            MappingProxyType(dict(self.erasures)),
            MappingProxyType(dict(self.erased)),
            frozenset(self.cancelled),
            MappingProxyType(dict(self.replaced)),
        )

    def apply(self, entry: Entry, number: int) -> None:
        """Applies the log's entry of that number; called for each entry in order."""
        self._note(entry, number)
        name = entry.model
        model = self.models.get(name)
        if isinstance(entry, Publish):
            self._apply_publish(entry, model or Model(name, entry.time, {}, {}))
        elif model is None or isinstance(entry, CancelAdaptation):
            return  # a damaged entry had it, or the model does not exist yet
        elif isinstance(entry, EraseExamples):
            versions = {
                number: replace(it, erased=it.erased or number in entry.versions)
                for number, it in model.versions.items()
            }
            self.models[name] = replace(model, versions=MappingProxyType(versions))
        elif isinstance(entry, Redact):
            self._apply_redact(entry, model)
        elif isinstance(entry, MoveAlias):
            aliases = {alias: number for alias, number in model.aliases.items() if alias != entry.alias}
            if entry.version:
                aliases[entry.alias] = entry.version
            self.models[name] = replace(model, aliases=MappingProxyType(aliases))
        elif isinstance(entry, DeleteVersion):
            versions = {number: it for number, it in model.versions.items() if number != entry.version}
            self.models[name] = replace(model, versions=MappingProxyType(versions))
        else:
            del self.models[name]
            # Its adaptations go with it, so their ids are free for new ones.
            self.published = {key: it for key, it in self.published.items() if key[0] != name}

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
            self.cancelled = {it for it in self.cancelled if it[0] != entry.model}
            self.erased = {key: it for key, it in self.erased.items() if key[0] != entry.model}

    def _apply_publish(self, entry: Publish, model: Model) -> None:
        version = Version(
            model=entry.model,
            number=entry.version,
            adaptation_id=entry.adaptation_id,
            commit_id=entry.commit_id,
            manifest=entry.manifest,
            summary=MappingProxyType(entry.summary),
            created=entry.time,
        )
        self.published[entry.model, entry.adaptation_id, entry.commit_id] = version
        self.last_numbers[entry.model] = entry.version
        self.models[entry.model] = replace(
            model,
            versions=MappingProxyType({**model.versions, entry.version: version}),
            aliases=MappingProxyType({**model.aliases, **dict.fromkeys(entry.aliases, entry.version)}),
        )

    def _apply_redact(self, entry: Redact, model: Model) -> None:
        before = model.versions.get(entry.version)
        if before is None:
            return  # a damaged entry published it
        self.replaced[entry.model] = (*self.replaced.get(entry.model, ()), before.manifest)
        version = replace(before, manifest=entry.manifest, redacted=True)
        self.published[entry.model, before.adaptation_id, before.commit_id] = version
        self.models[entry.model] = replace(
            model, versions=MappingProxyType({**model.versions, entry.version: version})
        )
