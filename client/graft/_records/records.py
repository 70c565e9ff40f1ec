"""Models, versions, backbones, adaptations and their events, as plain data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from graft._records.evaluation.report_messages import report_of
from graft._records.evaluation.reports import Report
from graft._records.evaluation.shown import Saved
from graft._records.extensions import Extension, extension_if
from graft._records.fields import enum_text, seconds_of, time_of
from graft._records.inputs.examples import Label
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
    live_pinned_time: dt.datetime | None = None
    """Since when "live" stays where `promote` pointed it, away from the newest version, in UTC; None: it is not pinned,
    and the next publication moves it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What `set_metadata` has set."""
    live: Version | None = None
    """The version that "live" points at, without its metadata and its report's own lists; None: it points nowhere."""


@dataclass(frozen=True, slots=True)
class Version(Saved):
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
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The metadata of the adaptation that it came from."""
    extension: Extension | None = None
    """What came of the examples of its adaptation beside those of the version that it extends; None: it extends none,
    or it is in a list."""


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
    live_version: int | None = None
    """The version that "live" pointed at once this one was published: this one, or another if it did not move; 0:
    none; None: not known, or no version was published."""
    live_pinned_time: dt.datetime | None = None
    """Since when "live" was pinned to live_version, if that is why it did not move."""


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
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What `adapt` was given as metadata."""
    error: GraftError | None = None
    """Why it cannot be used, if an object of it is damaged; the other fields are then as far as known."""
    extension: Extension | None = None
    """What came of its examples beside those of the version that it goes on from, as of the newest commit that has an
    outcome; None: it started empty."""


@dataclass(frozen=True, slots=True)
class CancelledAdaptation(Adaptation):
    """An adaptation after a request to cancel it."""

    changed: bool = True
    """Whether the request cancelled it; if not, it was over already, and nothing changed."""
    given_up: int = 0
    """How many of its commits had no outcome yet, and were given up by the request."""


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
    """How long the rest will take, in seconds; None where that is not known yet."""
    done: int = 0
    """How much of the stage is done, in units."""
    total: int = 0
    """How much there is to do in the stage; 0 where nothing is counted."""
    unit: str = ""
    """What is counted, for example "examples", "candidates" or "steps"."""
    elapsed_s: float | None = None
    """How long the server has worked on the commit, or taken in the stream, in seconds; None where it does not say."""


NOTHING_TOLD: Final = Progress("", "", 0.0, {}, None)
"""Before a server has told anything."""


def model_of(message: model_pb2.Model) -> Model:
    """The model that a message carries."""
    return Model(
        name=message.name,
        latest_version=message.latest_version,
        aliases=dict(sorted(message.aliases.items())),
        versions=message.versions,
        create_time=time_of(message.create_time),
        renewal=_renewal_of(message.renewal) if message.HasField("renewal") else None,
        live_pinned_time=time_of(message.live_pinned_time),
        metadata=dict(sorted(message.metadata.items())),
        live=version_of(message.live) if message.HasField("live") else None,
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
        report=replace(report_of(message.report), model=message.model, version=message.version),
        aliases=tuple(message.aliases),
        labels=tuple(Label(label.name, label.description) for label in message.labels),
        trained_on_erased=message.trained_on_erased,
        task=enum_text(types_pb2.Task, message.task, "TASK_") or "single_label",
        extension=extension_if(message.extension, is_set=message.HasField("extension")),
        metadata=dict(sorted(message.metadata.items())),
    )


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
        state=adaptation_state(message.state),
        backbone=message.backbone,
        create_time=time_of(message.create_time),
        writers={writer.writer_id: writer.next_sequence for writer in message.writers},
        publications=tuple(_publication_of(publication) for publication in message.publications),
        metrics=dict(message.metrics),
        extension=extension_if(message.extension, is_set=message.HasField("extension")),
        metadata=dict(sorted(message.metadata.items())),
        error=from_status(message.error) if message.HasField("error") else None,
    )


def cancelled_of(message: adaptation_pb2.CancelAdaptationResponse) -> CancelledAdaptation:
    """The adaptation, and what became of the request to cancel it, that a message carries."""
    known = adaptation_of(message.adaptation)
    facts = {it.name: getattr(known, it.name) for it in fields(known)}
    return CancelledAdaptation(**facts, changed=message.changed, given_up=message.given_up)


def progress_of(message: adaptation_pb2.Progress) -> Progress:
    """The progress that a message carries."""
    return Progress(
        commit_id=message.commit_id,
        stage=message.stage,
        fraction=message.fraction,
        metrics=dict(message.metrics),
        eta_s=seconds_of(message.eta) if message.HasField("eta") else None,
        done=message.done,
        total=message.total,
        unit=message.unit,
        elapsed_s=seconds_of(message.elapsed) if message.HasField("elapsed") else None,
    )


def adaptation_state(value: int) -> str:
    """An adaptation's state in words."""
    return enum_text(adaptation_pb2.AdaptationState, value, "ADAPTATION_STATE_")


def live_of(message: adaptation_pb2.Published | adaptation_pb2.Publication) -> dict[str, Any]:
    """Where "live" pointed once a version was published, by the names of the records' fields."""
    version = message.live_version if message.HasField("live_version") else None
    return {"live_version": version, "live_pinned_time": time_of(message.live_pinned_time)}


def _publication_of(message: adaptation_pb2.Publication) -> Publication:
    return Publication(
        commit_id=message.commit_id,
        state=enum_text(adaptation_pb2.PublicationState, message.state, "PUBLICATION_STATE_"),
        version=message.version,
        error=from_status(message.status) if message.HasField("status") else None,
        create_time=time_of(message.create_time),
        **live_of(message),
    )
