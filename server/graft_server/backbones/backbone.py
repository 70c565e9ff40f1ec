"""A backbone, and the common facts of a family of architectures, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft_server.backbones.checkpoint import Checkpoint, Described
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.domain.examples import Modality


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures whose graphs are made in the same way."""

    modality: Modality
    module: str
    """The module of `backbones.torch` that loads and exports it; see `backbones.torch.family`."""
    describe: Callable[[Checkpoint], Described]
    """Raises BackboneError for a checkpoint that lacks something."""
    preprocessor: Callable[[Backbone], Preprocessor]
    """Raises BackboneError if a file that it reads is damaged."""
    names: bool = False
    """Whether a text encoder beside it reads the names of classes; see `backbones.image.class_names`."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone on disk, described without loading it."""

    name: str
    """Its name on this server."""
    folder: Path
    """Where its files are."""
    architecture: str
    """`model_type` of its configuration, for example "bert"."""
    family: Family
    """The family of its graph and preprocessing."""
    layers: int
    """The number of layers; fine-tuning can unfreeze any number of them from the top."""
    dimension: int
    """The length of its feature vectors."""
    max_tokens: int
    """The most tokens of a text that it reads, special tokens included; the rest is cut. 0: it reads no text."""
    pooling: str
    """The reduction of the last layer's output to one vector; for texts "mean", "cls" or "last"."""
    encoder_id: str
    """32 hexadecimal digits: the digest of weights, preprocessing, graph recipe and precision."""
    precision: str = "fp32"
    """One of PRECISIONS."""
    reference_id: str = ""
    """The `encoder_id` of the same backbone in float32."""
    identity: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """All that decides its features: what `encoder_id` is the digest of."""

    @property
    def modality(self) -> Modality:
        """What it reads."""
        return self.family.modality

    @property
    def middle_layer(self) -> int:
        """The layer whose mean is the encoder's second view."""
        return max(1, self.layers // 2)

    def preprocessor(self) -> Preprocessor:
        """Returns the preprocessor of its inputs. Raises BackboneError if a file is damaged."""
        return self.family.preprocessor(self)
