"""A backbone as callers know it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from graft_server.domain.examples import Kind, Modality


class BackboneState(StrEnum):
    """Whether a backbone can be used."""

    UNLOADED = "unloaded"
    """It is described, and loaded when it is first used."""
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """What a backbone is."""

    encoder_id: str
    """The digest that identifies what it computes."""
    modality: Modality
    dimension: int
    """The length of its features."""
    max_tokens: int
    """How many tokens of a text it reads; 0 where it does not read text."""
    architecture: str
    layers: int
    parity: float
    """The largest difference of exported features from torch's, relative to the largest component; 0: not known."""
    memory_bytes: int
    """By how much the server grew as its encoder was loaded and first run; 0: not loaded."""
    kinds: tuple[Kind, ...]
    """The kinds of input that it takes, sorted."""


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """A backbone of this server."""

    name: str
    state: BackboneState
    is_default: bool
    error: str = ""
    """Why it is FAILED."""
    description: BackboneDescription | None = None
    """None where what it is could not be found out."""
