"""What the job that redacts is asked for, and what it answers: shared by the server and its workers."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.domain.model import ManifestRef
from graft_server.jobs.job import JobType


@dataclass(frozen=True, slots=True)
class Written:
    """A version as the catalogue has it."""

    manifest: ManifestRef
    redacted: bool
    """Whether that was done to it before."""


@dataclass(frozen=True, slots=True)
class Redacting:
    """Versions that may hold something of examples that were erased."""

    model: str
    adaptations: tuple[str, ...]
    """By the names that they are stored by."""
    versions: tuple[Written, ...]


@dataclass(frozen=True, slots=True)
class Redacted:
    """What was written anew."""

    versions: tuple[ManifestRef | None, ...]
    """For each version its new manifest, or None where it holds nothing of the examples."""


REDACT = JobType("graft_server.erasing.redact:redact", Redacting, Redacted)
"""Writes versions anew, without features and ids of examples that were erased and not yet swept away."""
