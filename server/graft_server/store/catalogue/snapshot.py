"""The catalogue at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graft_server.domain.errors import MissingError
from graft_server.domain.model import ManifestRef, Model
from graft_server.domain.names import shown


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment. It never changes."""

    models: Mapping[str, Model]
    entries: int = 0
    """How many entries of the log it comprises."""
    damaged: tuple[str, ...] = ()
    """Entries that could not be read. What they said is missing here, and nothing more can be written."""
    deletions: Mapping[str, int] = field(default_factory=dict)
    """Model to the number of the entry that last deleted it."""
    erasures: Mapping[str, int] = field(default_factory=dict)
    """Model to the number of the entry that last erased examples of it."""
    erased: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model, adaptation) to the generation of its last erasure that is among the entries."""
    cancelled: frozenset[tuple[str, str]] = frozenset()
    """(model, adaptation) of the cancelled ones."""
    replaced: Mapping[str, tuple[ManifestRef, ...]] = field(default_factory=dict)
    """Model to manifests of versions that were written anew: what is left of these must go."""

    def model(self, name: str) -> Model:
        """Returns a model, or raises MissingError."""
        if name not in self.models:
            raise MissingError(
                f"There is no model {shown(name)}: publish it through Adapt; ListModels lists what there is.",
                reason="MODEL_NOT_FOUND",
                field="model",
            )
        return self.models[name]
