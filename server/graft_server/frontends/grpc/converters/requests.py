"""Requests to nouns: what a message says, checked as far as the message goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import check_change, check_input
from graft_server.adapting.intake.writer_stream import Incoming
from graft_server.domain.adaptation import AdaptationSettings, FineTuning, PublishPolicy, StartRequest
from graft_server.domain.errors import DomainError, InvalidError
from graft_server.domain.examples import Change, Example, Input, Kind, Label, Rejection, Share, Split
from graft_server.domain.names import MAX_ID_BYTES, check_identifier
from graft_server.domain.prediction import Selector
from graft_server.frontends.grpc.converters.enums import METHODS, SPLITS, TASKS
from graft_server.frontends.grpc.times import seconds
from graft_server.store.adaptations.segments import content_digest


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
    settings = AdaptationSettings(
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
    if number not in SPLITS:
        raise InvalidError(
            f"upsert.split is {number}, which this server does not know: use SPLIT_TRAIN or SPLIT_VALIDATION.",
            reason="ENUM_UNKNOWN",
            field="upsert.split",
        )
    return SPLITS[number]
