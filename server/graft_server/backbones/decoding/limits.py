"""Bounds for images and clips, so that decoding cannot exhaust a server's memory: settings, for all backbones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from graft_server.backbones.decoding.audio import AudioLimits
from graft_server.backbones.decoding.images import ImageLimits


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds of what is decoded."""

    image: ImageLimits = field(default_factory=ImageLimits)
    audio: AudioLimits = field(default_factory=AudioLimits)


@runtime_checkable
class Bounded(Protocol):
    """A preprocessor that decodes files."""

    def within(self, limits: MediaLimits) -> Self:
        """The same, with other limits."""
