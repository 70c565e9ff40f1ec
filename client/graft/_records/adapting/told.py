"""What an adaptation tells: its events, its progress and its outcomes, as plain data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft._records.adapting.row_counts import RowCounts
from graft._records.evaluation.report_messages import report_of
from graft._records.evaluation.reports import Report, SimilarLabels
from graft._records.evaluation.shown import Saved, Shown
from graft._records.extensions import Extension, extension_if
from graft._records.fields import time_of
from graft._records.records import Progress, adaptation_state, live_of, progress_of, rejection_of
from graft.errors import GraftError, Rejection, from_status, reasons_of
from graft.v1 import adaptation_pb2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in an adaptation."""

    number: int
    """From 1, without gaps; 0 for progress, which is not kept."""
    time: dt.datetime | None
    """When it happened, in UTC."""
    kind: str
    """"rejected", "committed", "published", "publication_failed", "state" or "progress"."""
    rejected: tuple[Rejection, ...] = ()
    """The refused examples, if kind is "rejected"."""
    commit_id: str = ""
    """The commit, if the event is about one."""
    version: int = 0
    """The version, if kind is "published"."""
    report: Report | None = None
    """The quality of the version, if kind is "published"."""
    live_version: int | None = None
    """The version that "live" pointed at then, if kind is "published"; 0: none; None: not known."""
    live_pinned_time: dt.datetime | None = None
    """Since when "live" was pinned to live_version, if that is why it did not move."""
    extension: Extension | None = None
    """What came of the examples beside those of the version that the adaptation goes on from; None: it started empty,
    or the event is of another kind."""
    error: GraftError | None = None
    """The reason, if kind is "publication_failed"."""
    state: str = ""
    """The adaptation's new state, if kind is "state"."""
    progress: Progress | None = None
    """The work in progress, if kind is "progress"."""


@dataclass(frozen=True, slots=True)
class AdaptProgress:
    """How far an `adapt` call has come."""

    adaptation_id: str
    """The adaptation, to watch or resume it by."""
    stage: str
    """"connecting", "streaming", "committed", or the server's stage, for example "selecting"."""
    sent: int
    """The number of examples that were sent to the server, now or by an earlier call."""
    acknowledged: int
    """How many examples are durable, or were refused."""
    rejected: int
    """How many examples were refused."""
    fraction: float
    """How much of the training is done, 0 to 1."""
    metrics: Mapping[str, float]
    """The server's figures so far, by name; of the stream, for example "prequential_accuracy"."""
    version: int
    """The newest version published during this call, by the client's commit or by the server's own; 0: none."""
    eta_s: float | None
    """How long the rest of the training will take, in seconds, if known."""
    reconnects: int
    """How many times the call was broken and resumed."""
    trouble: GraftError | None
    """Why there is no connection now, while the client tries a new one."""
    first_sequence: int = 0
    """The number of this call's first example in the writer's stream; 0 unless the call appends to it."""
    extension: Extension | None = None
    """The version that the adaptation goes on from, and how many examples it has; None: it started empty, or the server
    has not answered yet."""
    done: int = 0
    """How much of the stage is done, in units; of "streaming", how many examples are encoded."""
    total: int = 0
    """How much there is to do in the stage, as far as that is known; 0 where nothing is counted."""
    unit: str = ""
    """What is counted, for example "examples", "candidates" or "steps"."""
    elapsed_s: float = 0.0
    """How long this call has been going on, in seconds."""
    commit_id: str = ""
    """The commit, once it is durable: from then on it is carried out whether or not this call goes on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one commit, the client's or the server's own."""

    commit_id: str
    """The commit; the server's commits are called "auto:1", "auto:2" and so on."""
    version: int
    """The version that was published; 0: none."""
    report: Report | None = field(repr=False)
    """Its training data and quality; None if there is no version."""
    error: GraftError | None
    """Why there is no version; the stream continues all the same."""
    live_version: int | None = None
    """The version that "live" pointed at once this one was published: this one, or another if it did not move; 0:
    none; None: not known, or no version was published."""
    live_pinned_time: dt.datetime | None = None
    """Since when "live" was pinned to live_version, if that is why it did not move."""
    extension: Extension | None = None
    """What came of the examples beside those of the version that the adaptation goes on from; None: it started
    empty."""


@dataclass(frozen=True, slots=True)
class CheckResult(Shown):
    """The result of checking a start and examples, of which nothing was stored."""

    model: str
    """The model."""
    examples: int
    """The number of checked examples."""
    rejected: tuple[Rejection, ...] = field(repr=False)
    """The examples that would be refused, by sequence; the first 10,000."""
    rejected_count: int
    """How many examples would be refused."""
    task: str = ""
    """The task: as it was asked for, or as the targets tell; "" if nothing tells."""
    unlabelled: int = 0
    """How many examples carry no target, and would not be trained on."""
    similar_labels: tuple[SimilarLabels, ...] = ()
    """Labels that a person would read as one, at most 50 groups."""
    replaced: int = 0
    """How many examples a later one with the same id would replace, by another input or target."""
    notices: tuple[str, ...] = ()
    """What was guessed or left out, in sentences."""
    rows: RowCounts | None = None
    """What would become of the examples; None where there are more than can be counted."""
    extension: Extension | None = None
    """What would come of the examples beside those of the version to go on from; None: there is none."""

    @property
    def rejected_reasons(self) -> dict[str, int]:
        """How many examples would be refused for each reason, the most frequent first; of the first 10,000."""
        return reasons_of(self.rejected)


@dataclass(frozen=True, slots=True)
class AdaptResult(Saved):
    """A served version, and its origin."""

    model: str
    """The model."""
    version: int
    """The version's number."""
    adaptation_id: str
    """The adaptation that it came from."""
    commit_id: str
    """The commit that asked for it."""
    report: Report = field(repr=False)
    """What it was trained on and how good it is."""
    rejected: tuple[Rejection, ...] = field(repr=False)
    """The examples that were refused, by sequence; the first 10,000."""
    rejected_count: int
    """How many examples were refused."""
    notices: tuple[str, ...] = ()
    """What a caller should know, in sentences: what the client guessed of the examples, for example the task; why the
    version is not live, if it is not; and whether it was trained on far fewer examples than the one that was live."""
    live_version: int | None = None
    """The version that "live" pointed at once this one was published: this one, or another if it did not move; 0:
    none; None: not known, or no version was published."""
    live_pinned_time: dt.datetime | None = None
    """Since when "live" was pinned to live_version, if that is why it did not move."""
    rows: RowCounts | None = None
    """What became of the examples that were given; None where there are more than can be counted."""
    extension: Extension | None = None
    """What came of the examples beside those of the version that the adaptation goes on from; None: it started
    empty."""
    meanwhile: tuple[int, ...] = ()
    """Versions that others published between the version that was extended because it was live, and this one: it does
    not go on from them."""

    @property
    def rejected_reasons(self) -> dict[str, int]:
        """How many examples were refused for each reason, the most frequent first; of the first 10,000."""
        return reasons_of(self.rejected)

    @property
    def nothing_new(self) -> bool:
        """Whether the version is the one that was gone on from, because the examples are the same."""
        return self.extension is not None and self.version == self.extension.base_version


def outcome_of(message: adaptation_pb2.Published | adaptation_pb2.PublicationFailed) -> Outcome:
    """The outcome that a message carries."""
    extension = extension_if(message.extension, is_set=message.HasField("extension"))
    if isinstance(message, adaptation_pb2.Published):
        return Outcome(
            message.commit_id,
            message.version,
            report_of(message.summary),
            None,
            **live_of(message),
            extension=extension,
        )
    return Outcome(message.commit_id, 0, None, from_status(message.status), extension=extension)


def event_of(message: adaptation_pb2.WatchAdaptationResponse) -> Event:
    """The event that a message carries."""
    kind = message.WhichOneof("what") or ""
    return Event(number=message.event, time=time_of(message.time), kind=kind, **_event_facts(kind, message))


def _event_facts(kind: str, message: adaptation_pb2.WatchAdaptationResponse) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if kind == "rejected":
        facts["rejected"] = tuple(rejection_of(rejection) for rejection in message.rejected.rejected)
    elif kind == "state":
        facts["state"] = adaptation_state(message.state)
    elif kind:
        facts["commit_id"] = getattr(message, kind).commit_id
    if kind in ("published", "publication_failed"):
        told = getattr(message, kind)
        facts["extension"] = extension_if(told.extension, is_set=told.HasField("extension"))
    if kind == "published":
        facts.update(version=message.published.version, report=report_of(message.published.summary))
        facts.update(live_of(message.published))
    elif kind == "publication_failed":
        facts["error"] = from_status(message.publication_failed.status)
    elif kind == "progress":
        facts["progress"] = progress_of(message.progress)
    return facts
