"""Models, versions, examples and backbones as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from graft.v1 import model_pb2, report_pb2, types_pb2
from graft_server.domain.backbone import BackboneInfo
from graft_server.domain.evaluated import EvaluatedVersion
from graft_server.domain.examples import Input, Kind, StoredExample, Task
from graft_server.domain.model import LIVE, BundleChunk, Erasure, Model, ModelRenewal, VersionView
from graft_server.domain.report import Evaluation, EvaluationMethod
from graft_server.domain.stream import Activity
from graft_server.frontends.grpc.converters.enums import (
    BACKBONE_STATES,
    MODALITIES,
    RENEWAL_STATES,
    SPLIT_NUMBERS,
    TASK_MESSAGES,
)
from graft_server.frontends.grpc.converters.extensions import extension
from graft_server.frontends.grpc.converters.reports import filled, report_message
from graft_server.frontends.grpc.converters.tasks import FIGURES, set_target
from graft_server.frontends.grpc.times import timestamp


def model(value: Model) -> model_pb2.Model:
    """A model."""
    return model_pb2.Model(
        renewal=None if value.renewal is None else _renewal(value.renewal),
        name=value.name,
        latest_version=value.latest_version,
        aliases=dict(value.aliases),
        versions=len(value.versions),
        create_time=timestamp(value.created),
        live_pinned_time=None if value.live_pinned is None else timestamp(value.live_pinned),
        metadata=value.metadata,
        live=_live(value),
    )


def _live(value: Model) -> model_pb2.ModelVersion | None:
    """The version that answers by default, without what may be long; None: there is none."""
    number = value.aliases.get(LIVE, 0)
    if number not in value.versions:
        return None  # a damaged entry published it
    message = version(VersionView(value.versions[number], value.aliases_of(number)))
    message.ClearField("metadata")
    return message


def _renewal(value: ModelRenewal) -> model_pb2.ModelRenewal:
    return model_pb2.ModelRenewal(state=RENEWAL_STATES[value.state], detail=value.detail)


def version(value: VersionView) -> model_pb2.ModelVersion:
    """Converts a version, with its whole report or with the catalogue's figures."""
    known = value.version
    report = _summary(known.summary) if value.report is None else report_message(value.report)
    return model_pb2.ModelVersion(
        model=known.model,
        version=known.number,
        adaptation_id=known.adaptation_id,
        commit_id=known.commit_id,
        create_time=timestamp(known.created),
        report=report,
        aliases=value.aliases,
        labels=[types_pb2.Label(name=it.name, description=it.description) for it in value.labels],
        task=report.task,
        trained_on_erased=known.erased,
        extension=extension(value.extension),
        metadata=known.metadata,
    )


def _summary(figures: Mapping[str, Any]) -> report_pb2.Report:
    """Returns a report with only the catalogue's figures."""
    report = report_pb2.Report(
        warnings=figures.get("warnings", ()),
        task=TASK_MESSAGES[Task(figures.get("task", Task.DEFAULT))],
    )
    for name, figure in figures.items():
        if name in _SUMMARY_FIGURES:
            setattr(report, name, figure)
        elif name == "evaluation":
            filled(report.evaluation, Evaluation(**{**figure, "method": EvaluationMethod(figure["method"])}))
        elif name in FIGURES and figure is not None:
            json_format.ParseDict(figure, getattr(report, name))
    return report


_SUMMARY_FIGURES = {
    "examples", "validation_examples", "classes", "accuracy", "macro_f1", "log_loss", "calibration_error",
    "accuracy_low", "accuracy_high", "backbone", "encoder_id", "seed", "evaluation_digest",
}  # fmt: skip


def stored_example(value: StoredExample, *, include_input: bool) -> model_pb2.StoredExample:
    """Converts a stored example."""
    example = value.example
    message = model_pb2.StoredExample(
        adaptation_id=value.adaptation_id,
        writer_id=value.writer_id,
        sequence=value.sequence,
        example=types_pb2.Example(
            id=example.id,
            weight=example.weight,
            split=SPLIT_NUMBERS[example.split],
            group=example.group,
            subject=example.subject,
            origin=example.origin,
            confirmed=example.confirmed,
        ),
        deleted=value.superseded,
    )
    set_target(message.example, example)
    if include_input:
        message.example.input.CopyFrom(_input(example.input))
    return message


def _input(value: Input) -> types_pb2.Input:
    """Converts an input: the reverse of reading requests."""
    match value.kind:
        case Kind.TEXT:
            return types_pb2.Input(text=value.text)
        case Kind.TEXT_PAIR:
            return types_pb2.Input(text_pair=types_pb2.TextPair(first=value.text, second=value.second))
        case Kind.IMAGE:
            return types_pb2.Input(image=value.data)
        case Kind.AUDIO:
            return types_pb2.Input(audio=value.data)
        case Kind.FEATURES:
            vector = np.frombuffer(value.data, "<f4").tolist()
            return types_pb2.Input(features=types_pb2.FeatureVector(values=vector))


def backbone(value: BackboneInfo) -> model_pb2.Backbone:
    """Converts a backbone, as far as it is known."""
    message = model_pb2.Backbone(
        name=value.name,
        state=BACKBONE_STATES[value.state],
        is_default=value.is_default,
        error=value.error,
    )
    known = value.description
    if known is not None:
        message.encoder_id = known.encoder_id
        message.feature_dimension = known.dimension
        message.max_tokens = known.max_tokens
        message.architecture = known.architecture
        message.layers = known.layers
        message.modality = MODALITIES[known.modality]
        message.unfreezable_layers = known.layers
        message.export_parity = known.parity
        message.memory_bytes = known.memory_bytes
        message.input_kinds.extend(known.kinds)
        message.warnings.extend(known.warnings)
    return message


def export_response(value: BundleChunk | Activity) -> model_pb2.ExportModelResponse:
    """A piece of a bundle's file, or what is being done before there is one."""
    if isinstance(value, Activity):
        return model_pb2.ExportModelResponse(activity=types_pb2.Activity(stage=value.stage))
    return model_pb2.ExportModelResponse(
        path=value.path,
        size=value.size,
        sha256=value.sha256,
        chunk=value.chunk,
        offset=value.offset,
        version=value.version,
    )


def delete_examples_response(value: Erasure) -> model_pb2.DeleteExamplesResponse:
    """Converts the result of an erasure."""
    return model_pb2.DeleteExamplesResponse(
        erased=value.examples, affected_versions=value.affected, deleted_versions=value.deleted
    )


def evaluate_response(value: EvaluatedVersion) -> model_pb2.EvaluateModelResponse:
    """Converts the figures of a version on a caller's examples."""
    measured = value.measured
    response = model_pb2.EvaluateModelResponse(
        model=value.model,
        version=value.version,
        examples=measured.examples,
        total_rejected=value.total_rejected,
        trained_on=value.trained_on,
        total_trained_on=value.total_trained_on,
        total_with_unknown_label=value.total_with_unknown_label,
        training_examples_missing=value.training_examples_missing,
        task=TASK_MESSAGES[measured.task],
    )
    filled(response, measured.figures)
    for name in FIGURES:
        if (further := getattr(measured, name)) is not None:
            filled(getattr(response, name), further)
    for report in measured.per_class:
        filled(response.per_class.add(), report)
    for confusion in measured.confusions:
        filled(response.confusions.add(), confusion)
    for rejected in value.rejected:
        filled(response.rejected.add(), rejected)
    for unknown in value.unknown_labels:
        filled(response.unknown_labels.add(), unknown)
    return response
