"""One of the labels, as messages."""

from __future__ import annotations

from collections.abc import Sequence

from graft.v1 import prediction_pb2, types_pb2
from graft_server.domain.examples import Share
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.frontends.grpc.converters.task import TargetConverter, TaskConverter


def _set_label(message: types_pb2.Example, label: str) -> None:
    message.label = label


def _distribution(message: types_pb2.Example) -> tuple[Share, ...]:
    return tuple(Share(share.label, share.probability) for share in message.distribution.labels)


def _set_distribution(message: types_pb2.Example, distribution: Sequence[Share]) -> None:
    for share in distribution:
        message.distribution.labels.add(label=share.label, probability=share.probability)


def _set_answer(message: prediction_pb2.Prediction, answer: SingleLabelAnswer) -> None:
    scores = message.single_label.scores
    scores.extend(prediction_pb2.Score(label=it, probability=p) for it, p in answer.scores)


SINGLE_LABEL = TaskConverter(
    {
        "label": TargetConverter(lambda message: message.label, _set_label),
        "distribution": TargetConverter(_distribution, _set_distribution),
    },
    _set_answer,
)
