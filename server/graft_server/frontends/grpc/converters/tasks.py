"""What of messages is of a task: its targets, answers and figures. To add one: docs/adding-a-task.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graft.v1 import prediction_pb2, types_pb2
from graft_server.domain.examples import Example, Task
from graft_server.domain.prediction import Answer
from graft_server.frontends.grpc.converters.multi_label import MULTI_LABEL
from graft_server.frontends.grpc.converters.regression import REGRESSION
from graft_server.frontends.grpc.converters.single_label import SINGLE_LABEL
from graft_server.frontends.grpc.converters.task import TaskConverter

CONVERTERS: Mapping[Task, TaskConverter] = {
    Task.SINGLE_LABEL: SINGLE_LABEL,
    Task.MULTI_LABEL: MULTI_LABEL,
    Task.REGRESSION: REGRESSION,
}
"""By task."""

FIGURES = tuple(it.figures for it in CONVERTERS.values() if it.figures)
"""Fields of reports and evaluations that are of one task each; nouns and messages call them the same."""

_TARGETS = {kind: target for it in CONVERTERS.values() for kind, target in it.targets.items()}


def target(message: types_pb2.Example) -> Mapping[str, Any]:
    """The field of an `Example` that the message's target is; empty where it has none."""
    kind = message.WhichOneof("target")
    return {} if kind is None else {kind: _TARGETS[kind].read(message)}


def set_target(message: types_pb2.Example, example: Example) -> None:
    """Sets the message's target to the example's, if it has one."""
    for kind, converter in _TARGETS.items():
        if (value := getattr(example, kind)) is not None:
            converter.write(message, value)


def set_answer(message: prediction_pb2.Prediction, answer: Answer) -> None:
    """Sets the answer of a prediction."""
    CONVERTERS[answer.task].answer(message, answer)
