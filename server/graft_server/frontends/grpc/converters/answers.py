"""Messages to plain data, and plain data to messages."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from google.protobuf import json_format

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.domain import examples, stream
from graft_server.domain.errors import DomainError
from graft_server.domain.examples import (
    Example,
    Input,
    Kind,
    Label,
    StoredExample,
    Task,
)
from graft_server.domain.model import Model, Version
from graft_server.domain.prediction import ManyLabels, OneLabel, Prediction, Value
from graft_server.domain.report import Report
from graft_server.encoding.trunk import Trunk
from graft_server.frontends.grpc.converters.enums import (
    MODALITIES,
    SPLIT_NUMBERS,
    TASK_MESSAGES,
    TRUNK_STATES,
)
from graft_server.frontends.grpc.converters.reports import report_message
from graft_server.frontends.grpc.errors import failure_status, to_status
from graft_server.frontends.grpc.times import duration, timestamp
from graft_server.serving.predictor import Predictions
from graft_server.serving.versions import ServedVersion, aliases_of
from graft_server.sharing.event_loop import in_slices

# ------------------------------------------------------------------------------------------- messages to data


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
            split=SPLIT_NUMBERS[example.split],
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
        state=TRUNK_STATES[trunk.state],
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
        message.modality = MODALITIES[known.modality]
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
