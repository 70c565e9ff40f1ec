"""What the server says to a writer of an adaptation, message by message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graft_server.domain.adaptation import Failure
from graft_server.domain.examples import Rejection
from graft_server.domain.report import Report


@dataclass(frozen=True, slots=True)
class Accepted:
    """Everything below next_sequence is durable or rejected."""

    next_sequence: int
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit is durable."""

    commit_id: str
    next_sequence: int


@dataclass(frozen=True, slots=True)
class Published:
    """A version is being served."""

    commit_id: str
    model: str
    version: int
    report: Report | None
    """None if the version has been deleted since."""


@dataclass(frozen=True, slots=True)
class PublicationFailed:
    """A commit did not lead to a version."""

    commit_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Progress:
    """Work is being done."""

    commit_id: str = ""
    stage: str = ""
    fraction: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    eta_s: float | None = None
    """How long the rest will take; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The server is about to end the call."""

    next_sequence: int


Message = Accepted | Committed | Published | PublicationFailed | Progress | Reconnect
