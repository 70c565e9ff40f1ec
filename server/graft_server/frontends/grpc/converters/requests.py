"""Requests to the domain's types, checked as far as the message alone allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.domain.adaptation import AdaptationSettings, FineTuning, PublishPolicy, StartRequest
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Change, Example, ExamplesWanted, Input, Kind, Label, Split, Task
from graft_server.domain.model import ReceivedFile
from graft_server.domain.names import check_identifier, shown
from graft_server.domain.prediction import PredictionRequest, Selector, StreamedRequest
from graft_server.domain.stream import (
    CommitMessage,
    EmptyMessage,
    ExamplesMessage,
    SentChange,
    StartMessage,
    WriterMessage,
)
from graft_server.domain.suggestion import SuggestionRequest
from graft_server.frontends.grpc.converters.enums import METHODS, SPLITS, TASKS
from graft_server.frontends.grpc.converters.lazy import Converted
from graft_server.frontends.grpc.converters.tasks import target
from graft_server.frontends.grpc.handlers import Malformed
from graft_server.frontends.grpc.times import keep_alive, seconds

MAX_RECEIVED = 1_000
"""The most files of a bundle that a caller may say it has."""
MAX_REQUEST_ID = 1_024
"""The most characters of a request's id in PredictStream: the answer carries it, and has its own bound."""


def start_request(message: adaptation_pb2.AdaptStart) -> StartRequest:
    """Converts the start of a caller of Adapt, not yet checked."""
    if message.method not in METHODS:
        raise InvalidError(
            f"start.method is {message.method}, which this server does not know: use METHOD_AUTO, METHOD_FROZEN, "
            "METHOD_PARTIAL or METHOD_FULL.",
            reason="ENUM_UNKNOWN",
            field="start.method",
        )
    if message.task not in TASKS:
        *known, last = (f"TASK_{task.name}" for task in Task)
        raise InvalidError(
            f"start.task is {message.task}, which this server does not know: use {', '.join(known)} or {last}.",
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
        publish=PublishPolicy(
            message.publish.every_examples,
            message.publish.every.ToNanoseconds() / 1e9,
            promote=message.publish.promote if message.publish.HasField("promote") else True,
        ),
        fine_tuning=FineTuning(
            unfrozen_layers=message.fine_tuning.unfrozen_layers,
            epochs=message.fine_tuning.epochs,
            learning_rate=message.fine_tuning.learning_rate,
            layer_decay=message.fine_tuning.layer_decay,
        ),
        time_budget_s=seconds(message.time_budget, "start.time_budget"),
        base_alias=message.base_alias,
        match_content=message.match_content,
        metadata=dict(message.metadata),
    )
    return StartRequest(message.model, message.adaptation_id, message.writer_id, settings)


def writer_message(message: adaptation_pb2.AdaptRequest) -> WriterMessage:
    """Converts a message of a caller of Adapt, not yet checked."""
    match message.WhichOneof("message"):
        case "start":
            start = message.start
            silence_s = keep_alive(start.keep_alive, "start.keep_alive")
            return StartMessage(start_request(start), start.validate_only, silence_s)
        case "examples":
            batch = message.examples
            return ExamplesMessage(batch.first_sequence, Converted(batch.changes, _sent_change))
        case "commit":
            commit = message.commit
            end = commit.next_sequence if commit.HasField("next_sequence") else None
            return CommitMessage(commit.commit_id, end, commit.close)
        case _:
            return EmptyMessage()


def _sent_change(message: adaptation_pb2.ExampleChange, _: int) -> SentChange:
    content = _content(message)
    try:
        return SentChange(_change(message), content, weighted=message.upsert.HasField("weight"))
    except InvalidError as error:
        kind = message.upsert.input.WhichOneof("kind")
        return SentChange(error, content, message.upsert.subject, Kind(kind) if kind else None)


def _content(message: adaptation_pb2.ExampleChange) -> bytes:
    """What tells a repeat from another change: all but where an example came from, which may differ."""
    origin = message.upsert.origin
    if not origin:
        return message.SerializeToString(deterministic=True)
    message.upsert.ClearField("origin")
    content = message.SerializeToString(deterministic=True)
    message.upsert.origin = origin
    return content


def _example(message: types_pb2.Example, path: str) -> Example:
    """Converts an example, not yet checked; errors name its fields with the path in front."""
    return Example(
        id=message.id,
        input=_input(message.input, f"{path}.input"),
        weight=message.weight if message.HasField("weight") else 1.0,
        split=_split(message.split, f"{path}.split"),
        group=message.group,
        **target(message),
        subject=message.subject,
        origin=message.origin,
        confirmed=message.confirmed,
    )


def prediction_request(message: prediction_pb2.PredictRequest) -> PredictionRequest:
    """Converts a request of Predict, not yet checked."""
    return PredictionRequest(
        model=message.model,
        inputs=Converted(message.inputs, _sent_input),
        selector=selector(message),
        top_k=message.top_k,
        include_features=message.include_features,
    )


def streamed_request(message: prediction_pb2.PredictStreamRequest | Malformed) -> StreamedRequest:
    """Returns a request of PredictStream, or the error if it cannot be read."""
    if isinstance(message, Malformed):
        return StreamedRequest(_request_id(message)[:MAX_REQUEST_ID], message.error(), len(message.data))
    try:
        _check_request_id(message.request_id)
        silence_s = keep_alive(message.keep_alive, "keep_alive")
        request = prediction_request(message.request)
        return StreamedRequest(message.request_id, request, message.ByteSize(), silence_s)
    except InvalidError as error:
        request_id = message.request_id[:MAX_REQUEST_ID]
        return StreamedRequest(request_id, error.with_traceback(None), message.ByteSize())


def _check_request_id(request_id: str) -> None:
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidError(
            f"request_id is {shown(request_id)} and has {len(request_id):,} characters: at most {MAX_REQUEST_ID:,} are "
            "given back.",
            reason="REQUEST_ID_TOO_LONG",
            field="request_id",
        )


def _request_id(malformed: Malformed) -> str:
    """Returns the id of a request that cannot be parsed; "" if even the id cannot be read."""
    try:
        # A message with one string in the same field: other fields are skipped unread.
        return StringValue.FromString(malformed.data).value
    except DecodeError:
        return ""


def received_files(message: model_pb2.ExportModelRequest) -> Mapping[str, ReceivedFile]:
    """What a caller has of a bundle's files, by path.

    Raises:
        InvalidError: They are more than a bundle has.
    """
    if len(message.received) > MAX_RECEIVED:
        raise InvalidError(
            f"received has {len(message.received):,} entries: at most {MAX_RECEIVED:,} are accepted.",
            reason="TOO_MANY_FILES",
            field="received",
        )
    return {it.path: ReceivedFile(it.sha256, it.size) for it in message.received}


def examples_wanted(message: model_pb2.ListExamplesRequest) -> ExamplesWanted:
    """Converts which examples a caller wants listed, not yet checked."""
    return ExamplesWanted(
        adaptation_id=message.adaptation_id,
        subject=message.subject,
        ids=frozenset(message.ids),
        version=message.version,
        label=message.label,
        split=_split(message.split, "split"),
    )


def evaluated_examples(message: model_pb2.EvaluateModelRequest) -> Sequence[Example | InvalidError]:
    """Converts the examples of a message of EvaluateModel, not yet checked."""
    return Converted(message.examples, _sent_example)


def suggestion_request(message: model_pb2.SuggestExamplesRequest) -> SuggestionRequest:
    """Converts what a caller wants suggested, not yet checked."""
    return SuggestionRequest(message.count, message.stored, message.backbone)


def candidates(message: model_pb2.SuggestExamplesRequest) -> Sequence[Example | InvalidError]:
    """Converts the candidates of a message of SuggestExamples, not yet checked."""
    return Converted(message.examples, _sent_candidate)


def _sent_candidate(message: types_pb2.Example, place: int) -> Example | InvalidError:
    try:
        return Example(message.id, _input(message.input, f"examples[{place}].input"))
    except InvalidError as error:
        return error


def _sent_example(message: types_pb2.Example, place: int) -> Example | InvalidError:
    try:
        return _example(message, f"examples[{place}]")
    except InvalidError as error:
        return error


def _sent_input(message: types_pb2.Input, place: int) -> Input | InvalidError:
    try:
        return _input(message, f"inputs[{place}]")
    except InvalidError as error:
        return error


def _input(message: types_pb2.Input, field: str) -> Input:
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


def selector(
    message: prediction_pb2.PredictRequest
    | model_pb2.GetVersionRequest
    | model_pb2.ExportModelRequest
    | model_pb2.EvaluateModelRequest
    | model_pb2.SuggestExamplesRequest,
) -> Selector:
    """Returns the version that a request selects."""
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
            return Change(upsert=_example(message.upsert, "upsert"))
        case "delete_id":
            return Change(delete_id=message.delete_id)
        case _:
            raise InvalidError(
                "The change is empty: set upsert or delete_id.", reason="CHANGE_MISSING", field="change"
            )


def _split(number: types_pb2.Split.ValueType, field: str) -> Split:
    if number not in SPLITS:
        raise InvalidError(
            f"{field} is {number}, which this server does not know: use SPLIT_TRAIN or SPLIT_VALIDATION.",
            reason="ENUM_UNKNOWN",
            field=field,
        )
    return SPLITS[number]
