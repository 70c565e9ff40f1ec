"""A number: an example's target is a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Task
from graft_server.domain.report import Report
from graft_server.domain.tasks.rules import CleanLabel, TaskRules

MAX_VALUE = 1e30
"""The largest magnitude of a value: the squares of larger ones overflow float32, in which heads compute."""


@dataclass(frozen=True, slots=True)
class RegressionAnswer:
    """A number and its interval."""

    task: ClassVar[Task] = Task.REGRESSION

    value: float
    low: float
    high: float


def _value(example: Example, field: str, clean: CleanLabel) -> Example:
    del clean  # it names no label
    value = example.value
    if value is not None and not (math.isfinite(value) and abs(value) <= MAX_VALUE):
        raise InvalidError(
            f"{field} is {value}: a value is a finite number, at most {MAX_VALUE:g} either way.",
            reason="VALUE_INVALID",
            field=field,
        )
    return example


def _figure(report: Report) -> tuple[str, float]:
    return "r2", report.regression.r2 if report.regression else 0.0


RULES = TaskRules({"value": _value}, figure=_figure, instead_of_labels="a regression answers with a number")
