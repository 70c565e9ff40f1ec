"""What messages have of a task: a row of `tasks.CONVERTERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graft.v1 import prediction_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class TargetConverter:
    """One kind of target: a field of the message Example, and the field of the same name of the noun."""

    read: Callable[[types_pb2.Example], Any]
    """What the noun's field is; the message's is set."""
    write: Callable[[types_pb2.Example, Any], None]
    """The reverse."""


@dataclass(frozen=True, slots=True)
class TaskConverter:
    """How a task's targets and answers become nouns and messages."""

    targets: Mapping[str, TargetConverter]
    """By field."""
    answer: Callable[[prediction_pb2.Prediction, Any], None]
    """Sets the answer of a prediction to an `Answer` of the task."""
    figures: str = ""
    """The field that holds figures of this task alone, in reports, their summaries and evaluations; "" if there are
    none."""
