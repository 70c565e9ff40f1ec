"""Messages to plain data, and plain data to messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import check_change, check_input
from graft_server.adapting.intake.writer_stream import Incoming
from graft_server.domain import examples, stream
from graft_server.domain.adaptation import FineTuning, PublishPolicy, Settings, StartRequest
from graft_server.domain.errors import DomainError, InvalidError
from graft_server.domain.examples import (
    Change,
    Example,
    Input,
    Kind,
    Label,
    Modality,
    Rejection,
    Share,
    Split,
    StoredExample,
    Task,
)
from graft_server.domain.model import Model, Version
from graft_server.domain.names import MAX_ID_BYTES, check_identifier
from graft_server.domain.prediction import ManyLabels, OneLabel, Prediction, Selector, Value
from graft_server.domain.report import Report
from graft_server.encoding.trunk import Trunk, TrunkState
from graft_server.rpc.errors import failure_status, to_status
from graft_server.rpc.reports import METHOD_MESSAGES, TASK_MESSAGES, report_message
from graft_server.rpc.times import duration, seconds, timestamp
from graft_server.serving.predictor import Predictions
from graft_server.serving.versions import ServedVersion, aliases_of
from graft_server.sharing.event_loop import in_slices
from graft_server.store.adaptations.segments import content_digest

METHODS = {
    types_pb2.METHOD_UNSPECIFIED: "auto",
    **{number: name for name, number in METHOD_MESSAGES.items()},
}
TASKS = {
    types_pb2.TASK_UNSPECIFIED: Task.SINGLE_LABEL,
    **{number: task for task, number in TASK_MESSAGES.items()},
}
_SPLITS = {
    types_pb2.SPLIT_UNSPECIFIED: Split.UNSPECIFIED,
    types_pb2.SPLIT_TRAIN: Split.TRAIN,
    types_pb2.SPLIT_VALIDATION: Split.VALIDATION,
}
_SPLIT_NUMBERS = {split: number for number, split in _SPLITS.items()}
_MODALITIES = {
    Modality.TEXT: model_pb2.MODALITY_TEXT,
    Modality.IMAGE: model_pb2.MODALITY_IMAGE,
    Modality.AUDIO: model_pb2.MODALITY_AUDIO,
}
_TRUNK_STATES = {
    TrunkState.UNLOADED: model_pb2.BACKBONE_STATE_UNLOADED,
    TrunkState.LOADING: model_pb2.BACKBONE_STATE_LOADING,
    TrunkState.READY: model_pb2.BACKBONE_STATE_READY,
    TrunkState.FAILED: model_pb2.BACKBONE_STATE_FAILED,
}


# ------------------------------------------------------------------------------------------- messages to data


def start_request(message: adaptation_pb2.AdaptStart) -> StartRequest:
    """What a caller of Adapt begins with, not yet checked."""
    if message.method not in METHODS:
        raise InvalidError(
            f"start.method is {message.method}, which this server does not know: use METHOD_AUTO, METHOD_FROZEN, "
            "METHOD_PARTIAL or METHOD_FULL.",
            reason="ENUM_UNKNOWN",
            field="start.method",
        )
    if message.task not in TASKS:
        raise InvalidError(
            f"start.task is {message.task}, which this server does not know: use TASK_SINGLE_LABEL, TASK_MULTI_LABEL "
            "or TASK_REGRESSION.",
            reason="ENUM_UNKNOWN",
            field="start.task",
        )
    if message.base_version < 0:
        raise InvalidError(
            f"start.base_version is {message.base_version}: versions count from 1; 0 starts empty.",
            reason="VERSION_INVALID",
            field="start.base_version",
        )
    settings = Settings(
        backbone=message.backbone,
        labels=tuple(Label(label.name, label.description) for label in message.labels),
        closed_labels=message.closed_labels,
        method=METHODS[message.method],
        base_version=message.base_version,
        seed=message.seed,
        task=TASKS[message.task],
        publish=PublishPolicy(message.publish.every_examples, message.publish.every.ToNanoseconds() / 1e9),
        fine_tuning=FineTuning(
            unfrozen_layers=message.fine_tuning.unfrozen_layers,
            epochs=message.fine_tuning.epochs,
            learning_rate=message.fine_tuning.learning_rate,
            layer_decay=message.fine_tuning.layer_decay,
        ),
        time_budget_s=seconds(message.time_budget, "start.time_budget"),
    )
    return StartRequest(message.model, message.adaptation_id, message.writer_id, settings)


def incoming(
    message: adaptation_pb2.ExampleChange, start: StartRequest, sequence: int, targets: TargetRules
) -> Incoming:
    """A change, checked: one that cannot be accepted becomes a rejection."""
    # Unique in every lineage that the adaptation may become part of.
    default_id = f"{start.adaptation_id}/{start.writer_id}/{sequence}"
    digest = content_digest(message.SerializeToString(deterministic=True))
    try:
        checked = check_change(_change(message), default_id=default_id, targets=targets)
    except InvalidError as error:
        rejected = Rejection(sequence, error.reason, error.field, error.message, start.writer_id)
        # One that is too long is no subject; what it belongs to is then refused for that alone.
        subject = message.upsert.subject if len(message.upsert.subject) <= MAX_ID_BYTES else ""
        return Incoming(digest, rejected, subject)
    return Incoming(digest, checked)


def labelled(message: types_pb2.Example) -> Example:
    """An example as it was sent, not yet checked."""
    return Example(
        id=message.id,
        input=input_of(message.input, "upsert.input"),
        weight=message.weight if message.HasField("weight") else 1.0,
        split=_split(message.split),
        group=message.group,
        **_target(message),
        subject=message.subject,
    )


def _target(message: types_pb2.Example) -> Mapping[str, Any]:
    """The field of an `Example` that the message's target is."""
    match message.WhichOneof("target"):
        case "label":
            return {"label": message.label}
        case "label_set":
            return {"label_set": tuple(message.label_set.labels)}
        case "value":
            return {"value": message.value}
        case "distribution":
            shares = message.distribution.labels
            return {"distribution": tuple(Share(share.label, share.probability) for share in shares)}
        case _:
            return {}


def input_of(message: types_pb2.Input, field: str) -> Input:
    """An input, or InvalidError where none is set."""
    match message.WhichOneof("kind"):
        case "text":
            return Input(message.text)
        case "text_pair":
            return Input(message.text_pair.first, Kind.TEXT_PAIR, message.text_pair.second)
        case "image":
            return Input(kind=Kind.IMAGE, data=message.image)
        case "audio":
            return Input(kind=Kind.AUDIO, data=message.audio)
        case "features":
            return Input(kind=Kind.FEATURES, data=np.array(message.features.values, "<f4").tobytes())
    raise InvalidError(
        f"{field} is not set: give a text in {field}.text, or what else the model's backbone reads.",
        reason="INPUT_MISSING",
        field=field,
    )


def input_message(value: Input) -> types_pb2.Input:
    """The reverse of `input_of`."""
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


def input_or_error(message: types_pb2.Input, field: str) -> Input | DomainError:
    """An input, or what is wrong with it."""
    try:
        return check_input(input_of(message, field), field)
    except InvalidError as error:
        return error


def selector(
    message: prediction_pb2.PredictRequest
    | model_pb2.GetVersionRequest
    | model_pb2.ExportModelRequest
    | model_pb2.EvaluateModelRequest,
) -> Selector:
    """Which version a request means."""
    which = message.WhichOneof("selector")
    if which == "version":
        if message.version < 1:
            raise InvalidError(
                f"version is {message.version}: versions count from 1. Leave it unset for the alias 'live'.",
                reason="VERSION_INVALID",
                field="version",
            )
        return Selector(version=message.version)
    if which == "adaptation_id" and isinstance(message, prediction_pb2.PredictRequest):
        return Selector(adaptation_id=check_identifier(message.adaptation_id, "adaptation_id"))
    if which == "alias" and not message.alias:
        raise InvalidError(
            "alias is empty: name one, or leave it unset.", reason="ALIAS_INVALID", field="alias"
        )
    return Selector(alias=message.alias if which == "alias" else "")


def _change(message: adaptation_pb2.ExampleChange) -> Change:
    match message.WhichOneof("change"):
        case "upsert":
            return Change(upsert=labelled(message.upsert))
        case "delete_id":
            return Change(delete_id=message.delete_id)
        case _:
            raise InvalidError(
                "The change is empty: set upsert or delete_id.", reason="CHANGE_MISSING", field="change"
            )


def _split(number: types_pb2.Split.ValueType) -> Split:
    if number not in _SPLITS:
        raise InvalidError(
            f"upsert.split is {number}, which this server does not know: use SPLIT_TRAIN or SPLIT_VALIDATION.",
            reason="ENUM_UNKNOWN",
            field="upsert.split",
        )
    return _SPLITS[number]


# ------------------------------------------------------------------------------------------- data to messages


def rejection(value: examples.Rejection) -> adaptation_pb2.Rejection:
    """A refused example."""
    return adaptation_pb2.Rejection(
        sequence=value.sequence,
        reason=value.reason,
        field=value.field,
        detail=value.detail,
        writer_id=value.writer_id,
    )


def adapt_response(value: stream.Message) -> adaptation_pb2.AdaptResponse:
    """What Adapt answers."""
    response = adaptation_pb2.AdaptResponse()
    match value:
        case stream.Accepted():
            response.accepted.next_sequence = value.next_sequence
            response.accepted.rejected.extend(rejection(it) for it in value.rejected)
        case stream.Committed():
            response.committed.commit_id = value.commit_id
            response.committed.next_sequence = value.next_sequence
        case stream.Published():
            response.published.CopyFrom(published(value))
        case stream.PublicationFailed():
            response.publication_failed.commit_id = value.commit_id
            response.publication_failed.status.CopyFrom(failure_status(value.failure))
        case stream.Progress():
            response.progress.CopyFrom(progress(value))
        case stream.Reconnect():
            response.reconnect.next_sequence = value.next_sequence
    return response


def published(value: stream.Published) -> adaptation_pb2.Published:
    """A version that is being served."""
    return adaptation_pb2.Published(
        commit_id=value.commit_id,
        model=value.model,
        version=value.version,
        summary=None if value.report is None else report_message(value.report),
    )


def progress(value: stream.Progress) -> adaptation_pb2.Progress:
    """Work that is being done."""
    return adaptation_pb2.Progress(
        commit_id=value.commit_id,
        stage=value.stage,
        fraction=value.fraction,
        metrics=dict(value.metrics),
        eta=None if value.eta_s is None else duration(value.eta_s),
    )


async def predict_response(value: Predictions) -> prediction_pb2.PredictResponse:
    """What Predict answers."""
    timings = value.timings
    served = value.served
    if isinstance(served, ServedVersion):
        model, number, next_sequence = served.version.model, served.version.number, 0
    else:
        model, number, next_sequence = served.model, 0, served.next_sequence
    return prediction_pb2.PredictResponse(
        model=model,
        version=number,
        next_sequence=next_sequence,
        results=await in_slices(_prediction, value.results),
        timings=prediction_pb2.Timings(
            queue=duration(timings.queue_s),
            tokenize=duration(timings.tokenize_s),
            encode=duration(timings.encode_s),
            head=duration(timings.head_s),
        ),
    )


def model(value: Model) -> model_pb2.Model:
    """A model."""
    return model_pb2.Model(
        name=value.name,
        latest_version=value.latest_version,
        aliases=dict(value.aliases),
        versions=len(value.versions),
        create_time=timestamp(value.created),
    )


def version(value: Version, owner: Model, full: Report | None = None) -> model_pb2.Version:
    """A version: with its full report, or with the figures that the catalogue has."""
    message = model_pb2.Version(
        model=value.model,
        version=value.number,
        adaptation_id=value.adaptation_id,
        commit_id=value.commit_id,
        create_time=timestamp(value.created),
        aliases=aliases_of(owner.aliases, value.number),
        trained_on_erased=value.erased,
    )
    if full is not None:
        message.report.CopyFrom(report_message(full))
    else:
        for name, figure in value.summary.items():
            if name in _SUMMARY_FIGURES:
                setattr(message.report, name, figure)
            elif name in _SUMMARY_MESSAGES and figure is not None:
                json_format.ParseDict(figure, getattr(message.report, name))
        message.report.warnings.extend(value.summary.get("warnings", ()))
        message.report.task = TASK_MESSAGES[Task(value.summary.get("task", Task.SINGLE_LABEL))]
    message.task = message.report.task
    return message


_SUMMARY_FIGURES = {
    "examples", "validation_examples", "classes", "accuracy", "macro_f1", "log_loss", "calibration_error",
    "backbone", "encoder_id", "seed",
}  # fmt: skip
_SUMMARY_MESSAGES = {"multi_label", "regression"}


def labels(values: Collection[Label]) -> list[types_pb2.Label]:
    """Labels, in output order."""
    return [types_pb2.Label(name=it.name, description=it.description) for it in values]


def stored_example(value: StoredExample, *, include_input: bool) -> model_pb2.StoredExample:
    """An example that is stored."""
    example = value.example
    message = model_pb2.StoredExample(
        adaptation_id=value.adaptation_id,
        writer_id=value.writer_id,
        sequence=value.sequence,
        example=types_pb2.Example(
            id=example.id,
            weight=example.weight,
            split=_SPLIT_NUMBERS[example.split],
            group=example.group,
            subject=example.subject,
        ),
        deleted=value.superseded,
    )
    _set_target(message.example, example)
    if include_input:
        message.example.input.CopyFrom(input_message(example.input))
    return message


def _set_target(message: types_pb2.Example, example: Example) -> None:
    if example.label is not None:
        message.label = example.label
    elif example.label_set is not None:
        message.label_set.labels.extend(example.label_set)
    elif example.value is not None:
        message.value = example.value
    elif example.distribution is not None:
        for share in example.distribution:
            message.distribution.labels.add(label=share.label, probability=share.probability)


def backbone(trunk: Trunk, is_default: bool) -> model_pb2.Backbone:
    """A backbone, as far as it is known."""
    message = model_pb2.Backbone(
        name=trunk.name,
        state=_TRUNK_STATES[trunk.state],
        is_default=is_default,
        error=trunk.error,
    )
    known = trunk.description
    if known is not None:
        message.encoder_id = known.encoder_id
        message.feature_dimension = known.dimension
        message.max_tokens = known.max_tokens
        message.architecture = known.architecture
        message.layers = known.layers
        message.modality = _MODALITIES[known.modality]
        message.unfreezable_layers = known.layers
        message.export_parity = trunk.parity
        message.memory_bytes = trunk.memory_bytes
        message.input_kinds.extend(trunk.kinds)
    return message


def _prediction(value: Prediction | DomainError) -> prediction_pb2.Prediction:
    if isinstance(value, DomainError):
        return prediction_pb2.Prediction(error=to_status(value))
    message = prediction_pb2.Prediction(
        abstained=value.abstained,
        novelty=value.novelty,
        truncated=value.truncated,
        features=None if value.features is None else value.features.tolist(),
    )
    match value.answer:
        case OneLabel(scores=best):
            scores = message.single_label.scores
            scores.extend(prediction_pb2.Score(label=it, probability=p) for it, p in best)
        case ManyLabels(scores=given):
            message.multi_label.SetInParent()  # an answer may have no label at all
            message.multi_label.scores.extend(
                prediction_pb2.MultiLabelScore(label=it, probability=p, selected=selected)
                for it, p, selected in given
            )
        case Value(value=number, low=low, high=high):
            message.regression.CopyFrom(prediction_pb2.Regression(value=number, low=low, high=high))
    return message
