"""Models, versions, backbones, adaptations and their events, as plain data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft._records.examples import Example, Input, Label, TextPair
from graft._records.fields import enum_text, seconds_of, time_of
from graft._records.report_messages import report_of
from graft._records.reports import Report, SimilarLabels
from graft._records.row_counts import RowCounts
from graft.errors import GraftError, Rejection, from_status
from graft.v1 import adaptation_pb2, model_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class ModelRenewal:
    """How far the server is with adapting a model anew, by itself, because its backbone is another encoder."""

    state: str
    """"waiting", "running" or "failed"."""
    detail: str = ""
    """Why it failed, or was tried in vain and waits."""


@dataclass(frozen=True, slots=True)
class Model:
    """A name under which versions are published."""

    name: str
    """The name."""
    latest_version: int
    """The highest version that still exists; 0: none."""
    aliases: Mapping[str, int]
    """The version that each alias points at; predict uses "live"."""
    versions: int
    """How many versions exist."""
    create_time: dt.datetime | None
    """When its first version was published, in UTC."""
    renewal: ModelRenewal | None = None
    """What the server does about a newest version that was trained on another encoder; None: there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Version:
    """One trained state of a model. It never changes."""

    model: str
    """The model's name."""
    version: int
    """The number, from 1."""
    adaptation_id: str
    """The adaptation that it came from."""
    commit_id: str
    """The commit that asked for it."""
    create_time: dt.datetime | None
    """When it was published, in UTC."""
    report: Report
    """Its training data and quality; in lists of versions without the report's own lists."""
    aliases: tuple[str, ...]
    """The aliases that point at it, sorted."""
    labels: tuple[Label, ...] = field(repr=False)
    """The labels that it answers with, in output order; empty in lists of versions, and for a regression."""
    trained_on_erased: bool = False
    """Whether it may have been trained on examples that have since been erased."""
    task: str = "single_label"
    """Its task: "single_label", "multi_label" or "regression"."""


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example in the state after one change."""

    adaptation_id: str
    """The adaptation that it was sent to."""
    writer_id: str
    """The writer that sent it."""
    sequence: int
    """The change's number."""
    id: str
    """The example's id."""
    label: str | None
    """Its label; None: unlabelled, or the target is one of labels, value and distribution."""
    split: str
    """"train", "validation", or "": unspecified."""
    group: str
    """The group that cross-validation keeps together, or ""."""
    subject: str
    """The person whose data it is, or ""."""
    deleted: bool
    """Whether a later change replaced or removed it: it is still stored, but not trained on."""
    text: str | None = field(repr=False)
    """The input, if it is a text and was requested."""
    labels: tuple[str, ...] | None = None
    """All labels that apply, for a multi-label model's example; None: it has no set of labels."""
    value: float | None = None
    """The number to predict, for a regression's example."""
    distribution: Mapping[str, float] | None = None
    """The probability of each label, if given."""
    weight: float = 1.0
    """Its weight in training, relative to the others."""
    origin: str = ""
    """Where it came from, for people, such as "train.csv:17", or ""."""
    confirmed: bool = False
    """Whether a person looked at its target and kept it."""
    input: Input | types_pb2.Input | None = field(default=None, repr=False)
    """The input of any kind, if it was requested, in a form that can be sent again: a text, a pair, or a file's bytes;
    features as their message."""

    @property
    def target(self) -> str | tuple[str, ...] | float | Mapping[str, float] | None:
        """Its label, labels, value or distribution; None: it is unlabelled."""
        found = (self.label, self.labels, self.value, self.distribution)
        return next((it for it in found if it is not None), None)

    def example(self, **changes: Any) -> Example:
        """Returns the example as it can be sent again, with its id, its target and all else, but for some changes.

        Args:
            changes: Fields of `Example` with other values. A target that is given takes the place of the present one.

        Raises:
            ValueError: The input was not requested.
        """
        if "input" not in changes and self.input is None:
            raise ValueError(
                f"the input of example {self.id!r} was not requested: ask with include_inputs=True"
            )
        names = ("label", "labels", "value", "distribution")
        kept = {} if changes.keys() & set(names) else {name: getattr(self, name) for name in names}
        others = {
            name: getattr(self, name)
            for name in ("input", "id", "weight", "split", "group", "subject", "origin", "confirmed")
        }
        return Example(**{**others, **kept, **changes})


@dataclass(frozen=True, slots=True)
class Erasure:
    """The result of a request to erase examples."""

    erased: int
    """The number of erased stored states of examples."""
    affected_versions: tuple[int, ...]
    """The existing versions that may have been trained on examples erased now or before."""
    deleted_versions: tuple[int, ...]
    """The versions that were deleted."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pre-trained model that the server can adapt."""

    name: str
    """Its name on this server."""
    encoder_id: str
    """The digest that identifies the encoder."""
    modality: str
    """The modality that it reads, for example "text"."""
    feature_dimension: int
    """The length of its feature vectors."""
    max_tokens: int
    """The most tokens of a text that it reads."""
    architecture: str
    """The architecture's name in the configuration, for example "bert"."""
    layers: int
    """The number of layers."""
    state: str
    """"unloaded" (it is loaded on its first use), "loading", "ready" or "failed"."""
    is_default: bool
    """Whether requests that name none use it."""
    memory_bytes: int
    """The growth of the server's memory when it was loaded; 0: it is not loaded."""
    error: str
    """If it failed: the reason and the remedy."""
    input_kinds: tuple[str, ...]
    """The kinds of input that it takes: "text", "text_pair", "image", "audio", "features"."""
    unfreezable_layers: int
    """The number of its layers, from the top, that fine-tuning can unfreeze."""
    export_parity: float
    """The difference of its features from the original model's, relative to the largest component; 0: not
    known."""
    warnings: tuple[str, ...]
    """What users of its files should know, in sentences: for example, that its tokenizer has tokens which its weights
    lack."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The outcome of one commit."""

    commit_id: str
    """The commit."""
    state: str
    """"queued", "training", "published", "failed" or "cancelled"."""
    version: int
    """The version if it was published, otherwise 0."""
    error: GraftError | None
    """Why it failed or was cancelled."""
    create_time: dt.datetime | None
    """When the commit became durable, in UTC."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One stream of examples into a model, over all of its calls and writers."""

    model: str
    """The model."""
    adaptation_id: str
    """Its id, unique within the model."""
    state: str
    """"open", "closed" or "cancelled"."""
    backbone: str
    """The backbone that it uses; empty until the first example decides it."""
    create_time: dt.datetime | None
    """When it was started, in UTC."""
    writers: Mapping[str, int]
    """For each writer the sequence number below which its examples are durable or rejected."""
    publications: tuple[Publication, ...]
    """The outcomes of its commits, oldest first."""
    metrics: Mapping[str, float]
    """Figures on the learning of its stream, by name; empty if the server does not follow it now."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The work that the server is doing."""

    commit_id: str
    """The commit that is being worked on."""
    stage: str
    """For example "encoding", "selecting" or "publishing"."""
    fraction: float
    """How much of the commit's work is done, 0 to 1."""
    metrics: Mapping[str, float]
    """Figures so far, by name."""
    eta_s: float | None
    """How long the rest will take, in seconds, if known."""


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


@dataclass(frozen=True, slots=True)
class CheckResult:
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


@dataclass(frozen=True, slots=True)
class AdaptResult:
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
    """What the client guessed of the examples, in sentences: for example the task."""
    rows: RowCounts | None = None
    """What became of the examples that were given; None where there are more than can be counted."""


def model_of(message: model_pb2.Model) -> Model:
    """The model that a message carries."""
    return Model(
        name=message.name,
        latest_version=message.latest_version,
        aliases=dict(sorted(message.aliases.items())),
        versions=message.versions,
        create_time=time_of(message.create_time),
        renewal=_renewal_of(message.renewal) if message.HasField("renewal") else None,
    )


def _renewal_of(message: model_pb2.ModelRenewal) -> ModelRenewal:
    return ModelRenewal(enum_text(model_pb2.RenewalState, message.state, "RENEWAL_STATE_"), message.detail)


def version_of(message: model_pb2.ModelVersion) -> Version:
    """The version that a message carries."""
    return Version(
        model=message.model,
        version=message.version,
        adaptation_id=message.adaptation_id,
        commit_id=message.commit_id,
        create_time=time_of(message.create_time),
        report=report_of(message.report),
        aliases=tuple(message.aliases),
        labels=tuple(Label(label.name, label.description) for label in message.labels),
        trained_on_erased=message.trained_on_erased,
        task=enum_text(types_pb2.Task, message.task, "TASK_") or "single_label",
    )


def stored_example_of(message: model_pb2.StoredExample) -> StoredExample:
    """The stored example that a message carries."""
    example = message.example
    target = example.WhichOneof("target")
    shares = example.distribution.labels
    return StoredExample(
        adaptation_id=message.adaptation_id,
        writer_id=message.writer_id,
        sequence=message.sequence,
        id=example.id,
        label=example.label if target == "label" else None,
        split={types_pb2.SPLIT_TRAIN: "train", types_pb2.SPLIT_VALIDATION: "validation"}.get(
            example.split, ""
        ),
        group=example.group,
        subject=example.subject,
        deleted=message.deleted,
        text=example.input.text if example.input.WhichOneof("kind") == "text" else None,
        labels=tuple(example.label_set.labels) if target == "label_set" else None,
        value=example.value if target == "value" else None,
        distribution={it.label: it.probability for it in shares} if target == "distribution" else None,
        weight=example.weight if example.HasField("weight") else 1.0,
        origin=example.origin,
        confirmed=example.confirmed,
        input=_stored_input(example.input),
    )


def _stored_input(message: types_pb2.Input) -> Input | types_pb2.Input | None:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "text_pair":
            return TextPair(message.text_pair.first, message.text_pair.second)
        case "image":
            return message.image
        case "audio":
            return message.audio
        case "features":
            return message
        case _:
            return None


def backbone_of(message: model_pb2.Backbone) -> Backbone:
    """The backbone that a message carries."""
    return Backbone(
        name=message.name,
        encoder_id=message.encoder_id,
        modality=enum_text(model_pb2.Modality, message.modality, "MODALITY_"),
        feature_dimension=message.feature_dimension,
        max_tokens=message.max_tokens,
        architecture=message.architecture,
        layers=message.layers,
        state=enum_text(model_pb2.BackboneState, message.state, "BACKBONE_STATE_"),
        is_default=message.is_default,
        memory_bytes=message.memory_bytes,
        error=message.error,
        input_kinds=tuple(message.input_kinds),
        unfreezable_layers=message.unfreezable_layers,
        export_parity=message.export_parity,
        warnings=tuple(message.warnings),
    )


def rejection_of(message: adaptation_pb2.Rejection) -> Rejection:
    """The rejection that a message carries."""
    return Rejection(
        sequence=message.sequence,
        reason=message.reason,
        field=message.field,
        detail=message.detail,
        writer_id=message.writer_id,
    )


def adaptation_of(message: adaptation_pb2.Adaptation) -> Adaptation:
    """The adaptation that a message carries."""
    return Adaptation(
        model=message.model,
        adaptation_id=message.adaptation_id,
        state=_adaptation_state(message.state),
        backbone=message.backbone,
        create_time=time_of(message.create_time),
        writers={writer.writer_id: writer.next_sequence for writer in message.writers},
        publications=tuple(_publication_of(publication) for publication in message.publications),
        metrics=dict(message.metrics),
    )


def progress_of(message: adaptation_pb2.Progress) -> Progress:
    """The progress that a message carries."""
    return Progress(
        commit_id=message.commit_id,
        stage=message.stage,
        fraction=message.fraction,
        metrics=dict(message.metrics),
        eta_s=seconds_of(message.eta) if message.HasField("eta") else None,
    )


def outcome_of(message: adaptation_pb2.Published | adaptation_pb2.PublicationFailed) -> Outcome:
    """The outcome that a message carries."""
    if isinstance(message, adaptation_pb2.Published):
        return Outcome(message.commit_id, message.version, report_of(message.summary), None)
    return Outcome(message.commit_id, 0, None, from_status(message.status))


def event_of(message: adaptation_pb2.WatchAdaptationResponse) -> Event:
    """The event that a message carries."""
    kind = message.WhichOneof("what") or ""
    return Event(number=message.event, time=time_of(message.time), kind=kind, **_event_facts(kind, message))


def _event_facts(kind: str, message: adaptation_pb2.WatchAdaptationResponse) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if kind == "rejected":
        facts["rejected"] = tuple(rejection_of(rejection) for rejection in message.rejected.rejected)
    elif kind == "state":
        facts["state"] = _adaptation_state(message.state)
    elif kind:
        facts["commit_id"] = getattr(message, kind).commit_id
    if kind == "published":
        facts.update(version=message.published.version, report=report_of(message.published.summary))
    elif kind == "publication_failed":
        facts["error"] = from_status(message.publication_failed.status)
    elif kind == "progress":
        facts["progress"] = progress_of(message.progress)
    return facts


def _adaptation_state(value: int) -> str:
    return enum_text(adaptation_pb2.AdaptationState, value, "ADAPTATION_STATE_")


def _publication_of(message: adaptation_pb2.Publication) -> Publication:
    return Publication(
        commit_id=message.commit_id,
        state=enum_text(adaptation_pb2.PublicationState, message.state, "PUBLICATION_STATE_"),
        version=message.version,
        error=from_status(message.status) if message.HasField("status") else None,
        create_time=time_of(message.create_time),
    )
