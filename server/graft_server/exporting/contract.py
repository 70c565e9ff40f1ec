"""What the job that composes a bundle is asked for, and what it answers: shared by the server and its workers."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.domain.model import ManifestRef
from graft_server.jobs.job import JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class Composing:
    """The version of which a bundle is wanted."""

    model: str
    version: int
    manifest: ManifestRef
    backbone: str
    """The backbone's name."""
    encoder_id: str
    folder: str
    """The prefix of the bundle's files; see `store.handover`."""
    cache: str
    """The identity of the cache that they are wanted in."""


@dataclass(frozen=True, slots=True)
class ComposedFile:
    """A file of the bundle."""

    path: str
    """Within the bundle."""
    size: int
    """In bytes."""
    sha256: str
    """In lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Composed:
    """The bundle, handed over."""

    files: tuple[ComposedFile, ...]


COMPOSE = JobType("graft_server.exporting.bundle:compose", Composing, Composed)
"""Writes a version's bundle and checks that it answers as the server does."""
