"""The messages between a writer of an adaptation and the server, and the events that watchers receive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from graft_server.domain.adaptation import AdaptationState, Failure, StartRequest
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Change, Kind, Rejection
from graft_server.domain.extension import Extension
from graft_server.domain.model import LiveThen
from graft_server.domain.report import Report

# ---------------------------------------------------------------------------------------------- the writer's


@dataclass(frozen=True, slots=True)
class StartMessage:
    """Begins a call."""

    request: StartRequest
    validate_only: bool = False
    """Whether examples and commits are only checked: nothing is stored."""
    keep_alive_s: float | None = None
    """After how much silence, in seconds, the writer wants to hear that the server is at work; None: as usual."""


@dataclass(frozen=True, slots=True)
class SentChange:
    """A change as its writer sent it, not yet checked."""

    change: Change | InvalidError
    """The change, or the error if it cannot be read."""
    content: bytes
    """Equal for equal changes: it identifies a change that is sent again."""
    subject: str = ""
    """If the change cannot be read: the subject of its data, if that can be read."""
    kind: Kind | None = None
    """If the change cannot be read: the kind of its input, if that can be read."""
    weighted: bool = False
    """Whether it is an example that has a weight."""


@dataclass(frozen=True, slots=True)
class ExamplesMessage:
    """Carries changes with consecutive sequence numbers."""

    first_sequence: int
    """The sequence number of the first change."""
    changes: Sequence[SentChange]
    """The changes. They may be converted one by one as they are read: their number is known at once."""


@dataclass(frozen=True, slots=True)
class CommitMessage:
    """Asks for a version."""

    commit_id: str = ""
    """"": the server picks one."""
    next_sequence: int | None = None
    """The sequence number below which the writer's changes are part of the version; None: all so far."""
    close: bool = False
    """Whether the adaptation takes no more changes after it."""


@dataclass(frozen=True, slots=True)
class EmptyMessage:
    """Says nothing, which is an error of its writer."""


WriterMessage = StartMessage | ExamplesMessage | CommitMessage | EmptyMessage

# ---------------------------------------------------------------------------------------------- the server's


@dataclass(frozen=True, slots=True)
class Started:
    """Answers the start."""

    adaptation_id: str
    writer_id: str
    backbone: str
    """The backbone's name; "" until the first example decides it."""
    next_sequence: int
    """Every change of the writer below this number is durable or rejected."""
    extension: Extension | None = None
    """What it goes on from; None: it began empty."""
    live: LiveVersion | None = None


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """The version that answers where a request selects none."""

    version: int
    examples: int
    """How many it was trained on, those for validation included."""


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
    extension: Extension | None = None
    """What the examples of a check would come to; None: it is none, or there is no base."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version is being served."""

    commit_id: str
    model: str
    version: int
    report: Report | None
    """None if the version has been deleted since."""
    live: LiveThen | None = None
    """Where `live` pointed then; None if the version has been deleted since."""
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class PublicationFailed:
    """A commit did not lead to a version."""

    commit_id: str
    failure: Failure
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Work is being done."""

    commit_id: str = ""
    stage: str = ""
    fraction: float = 0.0
    """How much of the commit's work is done, 0 to 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    eta_s: float | None = None
    """The time that the rest will take, in seconds; None if unknown."""
    done: int = 0
    """How much of the stage is done, in units."""
    total: int = 0
    """How much there is to do in the stage; 0: nothing is counted."""
    unit: str = ""
    """What is counted, in the plural; "": nothing is."""
    elapsed_s: float | None = None
    """How long the commit is being worked on, or the stream open, in seconds; None: that is not told."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What is being done before there is an answer."""

    stage: str = ""
    """For people, for example "loading the backbone minilm"; "": something."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The server is about to end the call."""

    next_sequence: int


Message = Started | Accepted | Committed | Published | PublicationFailed | Progress | Reconnect

# ------------------------------------------------------------------------------------------------ to watchers


@dataclass(frozen=True, slots=True)
class Rejections:
    """Some changes were refused."""

    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """A numbered event, with everything that a watcher receives about it."""

    number: int
    """From 1, without gaps."""
    time: datetime
    what: Rejections | Committed | Published | PublicationFailed | AdaptationState
    """The event. The next_sequence of a commit counts the changes of all writers that are part of it."""
