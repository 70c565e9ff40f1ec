"""The converters of a task's messages: a row of `tasks.CONVERTERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graft.v1 import prediction_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class TargetConverter:
    """One kind of target: a field of the message Example, and the field of the same name of `Example`."""

    read: Callable[[types_pb2.Example], Any]
    """Returns the value for the domain's field, from a message whose field is set."""
    write: Callable[[types_pb2.Example, Any], None]
    """The reverse."""


@dataclass(frozen=True, slots=True)
class TaskConverter:
    """The conversions of a task's targets and answers."""

    targets: Mapping[str, TargetConverter]
    """The converters of targets by field."""
    answer: Callable[[prediction_pb2.Prediction, Any], None]
    """Sets the answer of a prediction to an `Answer` of the task."""
    figures: str = ""
    """The field with figures of this task alone, in reports, their summaries and evaluations; "" if there are
    none."""
