"""A backbone as callers know it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from graft_server.domain.examples import Kind, Modality


class BackboneState(StrEnum):
    """Whether a backbone can be used."""

    UNLOADED = "unloaded"
    """It is described, and will be loaded on its first use."""
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """What a backbone is."""

    encoder_id: str
    """A digest that identifies the encoder: equal digests mean equal features."""
    modality: Modality
    dimension: int
    """The length of a feature vector."""
    max_tokens: int
    """The most tokens of a text that it reads; 0 if it does not read text."""
    architecture: str
    layers: int
    parity: float
    """The largest difference of exported features from torch's, relative to the largest component; 0: not known."""
    memory_bytes: int
    """How much the server's memory grew when the encoder was loaded and first run; 0: not loaded."""
    kinds: tuple[Kind, ...]
    """The kinds of input that it reads, sorted."""
    warnings: tuple[str, ...] = ()
    """What users of its files should know, in sentences."""


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """A backbone of this server."""

    name: str
    state: BackboneState
    is_default: bool
    error: str = ""
    """The reason if it is FAILED."""
    description: BackboneDescription | None = None
    """None if the backbone could not be described."""
