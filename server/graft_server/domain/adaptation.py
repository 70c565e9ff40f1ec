"""An adaptation as callers and the store know it: what it was asked for, its commits, outcomes and events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from graft_server.domain.errors import DomainError
from graft_server.domain.examples import Label, Task
from graft_server.domain.extension import Extension
from graft_server.domain.method import Method
from graft_server.domain.model import LiveThen, Source


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """When the server commits without being asked: whichever limit is reached first."""

    every_examples: int = 0
    """The number of changes that brings a commit; 0: no number does."""
    every_s: float = 0.0
    """The time in seconds that brings a commit; 0: no time does."""
    promote: bool = True
    """Whether the versions become live as they are published, where `live` is not pinned."""

    @property
    def automatic(self) -> bool:
        """Whether the server ever commits without being asked."""
        return bool(self.every_examples or self.every_s)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How the layers of a backbone are tuned; the server chooses every setting that is 0."""

    unfrozen_layers: int = 0
    epochs: int = 0
    learning_rate: float = 0.0
    """The learning rate of the uppermost layer."""
    layer_decay: float = 0.0
    """The learning rate of each layer over that of the one above it."""


@dataclass(frozen=True, slots=True)
class AdaptationSettings:
    """The settings of an adaptation. A start that resumes it must ask for the same."""

    backbone: str
    """The backbone's name on the server, or "" until the first example decides it."""
    labels: tuple[Label, ...] = ()
    closed_labels: bool = False
    method: Method = Method.AUTO
    base_version: int = 0
    """The version whose examples are trained on too, as it was asked for by its number; 0: see base_alias."""
    seed: int = 0
    task: Task = Task.DEFAULT
    publish: PublishPolicy = PublishPolicy()
    fine_tuning: FineTuning = FineTuning()
    time_budget_s: float = 0.0
    """How long tuning may take; 0: unlimited, and for the method "auto" no tuning."""
    base_alias: str = ""
    """The same as base_version, by an alias; what it pointed at when the adaptation began is in `Start`."""
    match_content: bool = False
    """Whether an example without an id is the one of the base that has the same input."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The metadata of the adaptation and of its versions."""


@dataclass(frozen=True, slots=True)
class Start:
    """How an adaptation began."""

    settings: AdaptationSettings
    created: datetime
    lineage: tuple[Source, ...] = ()
    """The examples of base_version, kept here so that deleting that version changes nothing."""
    born: int = 0
    """The number of entries in the catalogue: a later deletion of the model deletes this adaptation too."""
    base: Extension | None = None
    """What it goes on from; None: nothing, or it began in a release that did not note it."""

    base_labels: tuple[Label, ...] = ()
    """The labels that were declared for what it goes on from."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that were declared: its own, or where it names none those of what it goes on from."""
        return self.settings.labels or self.base_labels

    @property
    def extends(self) -> Extension | None:
        """The version that it goes on from, and how many examples that has, as far as known; None: it began empty."""
        if self.base is None and self.settings.base_version:
            return Extension(self.settings.base_version)
        return self.base


class Commit(msgspec.Struct, frozen=True):
    """A durable request for a version."""

    commit_id: str
    watermarks: dict[str, int]
    """Writer to the sequence number below which its changes are part of the commit."""
    close: bool
    time: datetime
    writer_id: str = ""
    """The writer that asked for it: its watermark is the one it named, also where the commit closes."""


class Closing(msgspec.Struct, frozen=True):
    """How far each writer is part of the commit that closed the adaptation."""

    watermarks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Failure:
    """A domain error as data."""

    kind: str
    """The error's class, which decides its status code."""
    reason: str
    message: str
    field: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, error: DomainError) -> Failure:
        """Returns the error as data."""
        return cls(type(error).__name__, error.reason, error.message, error.field, error.metadata)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a commit: a version, or a failure."""

    time: datetime
    version: int = 0
    failure: Failure | None = None
    extension: Extension | None = None
    """What came of the examples beside those of the base; None: there is no base, or nobody noted it."""


class AdaptationState(StrEnum):
    """The state of an adaptation. It follows from the stored commits and cancellation; it is not stored.

    ::

        OPEN --a commit that closes--> CLOSED --cancel--> CANCELLED
        OPEN --cancel--> CANCELLED
    """

    OPEN = "open"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """Some changes of one segment were refused. Only the segment says why, so that erasing has one place to look."""

    writer_id: str
    ordinal: int
    first_sequence: int
    next_sequence: int


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    """A commit became durable."""

    commit_id: str
    watermarks: dict[str, int]


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A commit has an outcome; read it from `AdaptationStore.outcomes`."""

    commit_id: str


class StateChanged(msgspec.Struct, frozen=True, tag="state"):
    """The adaptation entered a state."""

    state: AdaptationState


Fact = Rejected | Committed | Finished | StateChanged


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered fact."""

    number: int
    time: datetime
    fact: Fact


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The first message of a caller of Adapt."""

    model: str
    adaptation_id: str
    """"": the server picks one."""
    writer_id: str
    settings: AdaptationSettings
    """The backbone in it is a name, or "" for the default."""


class PublicationState(StrEnum):
    """The state of a publication."""

    QUEUED = "queued"
    """It waits for a worker."""
    TRAINING = "training"
    PUBLISHED = "published"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """It was cancelled."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A commit with its outcome, if it has one."""

    commit_id: str
    state: PublicationState
    created: datetime
    """When the commit became durable."""
    version: int = 0
    """Set if it is PUBLISHED."""
    live: LiveThen | None = None
    """Where `live` pointed once it was published; None if it was not, or was deleted since."""
    failure: Failure | None = None
    """Set if it is FAILED or CANCELLED."""


@dataclass(frozen=True, slots=True)
class AdaptationView:
    """An adaptation as callers see it."""

    model: str
    adaptation_id: str
    state: AdaptationState
    backbone: str
    task: Task
    created: datetime
    writers: Mapping[str, int]
    """Writer, sorted, to the sequence number below which every change is durable or rejected."""
    publications: tuple[Publication, ...]
    """The newest publications, oldest first."""
    metrics: Mapping[str, float]
    """How well the interim head learns the stream; empty if this server does not follow it."""
    extension: Extension | None = None
    """What came of its examples beside those of its base, as of the newest commit with an outcome."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The result of a request to cancel an adaptation."""

    adaptation: AdaptationView
    """The adaptation after it."""
    changed: bool
    """Whether the request cancelled it; if not, it was over already."""
    given_up: int = 0
    """The number of its commits without an outcome, which the request gave up."""


@dataclass(frozen=True, slots=True)
class DamagedAdaptation:
    """An adaptation that cannot be read."""

    model: str
    adaptation_id: str
    error: DomainError
