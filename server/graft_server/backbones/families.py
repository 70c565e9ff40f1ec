"""Which architectures there are, and who knows what about each.

An architecture (`model_type` of a checkpoint's configuration) belongs to a family: those whose graphs are made
alike. What a family's inputs become is said here, without torch; how its graph is made, by a module of
`backbones.torch`, which workers load by its name. To add one: docs/adding-a-backbone.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graft_server.backbones import text
from graft_server.backbones.checkpoint import Checkpoint, Described
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.errors import BackboneError
from graft_server.examples import Modality

if TYPE_CHECKING:
    from graft_server.backbones.source import Backbone


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures whose graphs are made alike."""

    modality: Modality
    module: str
    """The module of `backbones.torch` that loads and exports it; see `backbones.torch.family`."""
    describe: Callable[[Checkpoint], Described]
    """Raises BackboneError for a checkpoint that lacks something."""
    preprocessor: Callable[[Backbone], Preprocessor]
    """Raises BackboneError if a file that it reads is damaged."""


_PACKED_TEXT = Family(Modality.TEXT, "packed_text", text.describe, text.preprocessor)

FAMILIES: Mapping[str, Family] = {
    "bert": _PACKED_TEXT,
}
"""By architecture."""


def family_of(checkpoint: Checkpoint) -> Family:
    """Returns the family of a checkpoint's architecture.

    Raises:
        BackboneError: It is not supported; the message lists what is.
    """
    family = FAMILIES.get(checkpoint.architecture)
    if family is None:
        by_modality = "; ".join(
            f"{modality}: {', '.join(sorted(name for name, it in FAMILIES.items() if it.modality is modality))}"
            for modality in Modality
            if any(it.modality is modality for it in FAMILIES.values())
        )
        raise BackboneError(
            f"Backbone {checkpoint.name}: the architecture {checkpoint.architecture or 'of its config.json'!r} is "
            f"not supported. These are: {by_modality}.",
            reason="BACKBONE_ARCHITECTURE_UNSUPPORTED",
        )
    return family
