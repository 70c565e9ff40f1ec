"""A number, as messages."""

from __future__ import annotations

from graft.v1 import prediction_pb2, types_pb2
from graft_server.domain.tasks.regression import RegressionAnswer
from graft_server.frontends.grpc.converters.task import TargetConverter, TaskConverter


def _set_value(message: types_pb2.Example, value: float) -> None:
    message.value = value


def _set_answer(message: prediction_pb2.Prediction, answer: RegressionAnswer) -> None:
    message.regression.CopyFrom(
        prediction_pb2.Regression(value=answer.value, low=answer.low, high=answer.high)
    )


REGRESSION = TaskConverter(
    {"value": TargetConverter(lambda message: message.value, _set_value)}, _set_answer, figures="regression"
)
