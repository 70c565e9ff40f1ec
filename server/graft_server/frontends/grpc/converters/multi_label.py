"""Any number of the labels, as messages."""

from __future__ import annotations

from collections.abc import Sequence

from graft.v1 import prediction_pb2, types_pb2
from graft_server.domain.tasks.multi_label import MultiLabelAnswer
from graft_server.frontends.grpc.converters.task import TargetConverter, TaskConverter


def _label_set(message: types_pb2.Example) -> tuple[str, ...]:
    return tuple(message.label_set.labels)


def _set_label_set(message: types_pb2.Example, labels: Sequence[str]) -> None:
    message.label_set.labels.extend(labels)


def _set_answer(message: prediction_pb2.Prediction, answer: MultiLabelAnswer) -> None:
    message.multi_label.SetInParent()  # an answer may have no label at all
    message.multi_label.scores.extend(
        prediction_pb2.MultiLabelScore(label=it, probability=p, selected=selected)
        for it, p, selected in answer.scores
    )


MULTI_LABEL = TaskConverter(
    {"label_set": TargetConverter(_label_set, _set_label_set)}, _set_answer, figures="multi_label"
)
