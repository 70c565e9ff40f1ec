"""Reports as messages. Both have the same fields under the same names, so most are copied by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from graft.v1 import report_pb2
from graft_server.domain.examples import Task
from graft_server.domain.report import AdviceKind, EvaluationMethod, Report, TuningObjective
from graft_server.frontends.grpc.converters.enums import METHOD_MESSAGES, TASK_MESSAGES
from graft_server.frontends.grpc.times import duration, timestamp

M = TypeVar("M", bound=Message)

_EVALUATION_METHODS = {
    EvaluationMethod.NONE: report_pb2.EVALUATION_METHOD_UNSPECIFIED,
    EvaluationMethod.CROSS_VALIDATION: report_pb2.EVALUATION_METHOD_CROSS_VALIDATION,
    EvaluationMethod.HELD_OUT: report_pb2.EVALUATION_METHOD_HELD_OUT,
}
_ADVICE_KINDS = {
    AdviceKind.LABELS: report_pb2.ADVICE_KIND_LABELS,
    AdviceKind.TIME: report_pb2.ADVICE_KIND_TIME,
    AdviceKind.BACKBONE: report_pb2.ADVICE_KIND_BACKBONE,
}
_OBJECTIVES = {
    TuningObjective.CROSS_ENTROPY: report_pb2.TUNING_OBJECTIVE_CROSS_ENTROPY,
    TuningObjective.CONTRASTIVE: report_pb2.TUNING_OBJECTIVE_CONTRASTIVE,
}
_OTHERWISE = {"method", "trained_time_s", "training_duration_s"}
"""Fields of a report whose message has another type."""


def report_message(value: Report) -> report_pb2.Report:
    """Converts a whole report."""
    message = filled(report_pb2.Report(), value, leave_out=_OTHERWISE)
    message.method = METHOD_MESSAGES[value.method]
    message.trained_time.CopyFrom(timestamp(datetime.fromtimestamp(value.trained_time_s, UTC)))
    message.training_duration.CopyFrom(duration(value.training_duration_s))
    return message


def filled(message: M, value: Any, *, leave_out: frozenset[str] | set[str] = frozenset()) -> M:
    """Copies a dataclass's fields to the message's fields of the same names, and returns the message."""
    for name in value.__dataclass_fields__:
        if name not in leave_out:
            _set(message, name, getattr(value, name))
    return message


def _set(message: Message, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, EvaluationMethod):
        setattr(message, name, _EVALUATION_METHODS[value])
    elif isinstance(value, AdviceKind):
        setattr(message, name, _ADVICE_KINDS[value])
    elif isinstance(value, TuningObjective):
        setattr(message, name, _OBJECTIVES[value])
    elif isinstance(value, Task):
        setattr(message, name, TASK_MESSAGES[value])
    elif isinstance(message, report_pb2.TuningReport) and name == "method":
        message.method = METHOD_MESSAGES[value]
    elif isinstance(value, Mapping):
        getattr(message, name).update(value)
    elif isinstance(value, tuple):
        _extend(getattr(message, name), value)
    elif dataclasses.is_dataclass(value):
        child = getattr(message, name)
        child.SetInParent()
        filled(child, value)
    else:
        setattr(message, name, value)


def _extend(field: Any, values: tuple[Any, ...]) -> None:
    for value in values:
        if dataclasses.is_dataclass(value):
            filled(field.add(), value)
        else:
            field.append(value)
