"""A number: an example's target is a value."""

from __future__ import annotations

import math

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example
from graft_server.domain.tasks.rules import CleanLabel, TaskRules

MAX_VALUE = 1e30
"""Either way: squares of larger ones are beyond float32, which heads compute in."""


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


RULES = TaskRules({"value": _value}, instead_of_labels="a regression answers with a number")
