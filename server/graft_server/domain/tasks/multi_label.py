"""Any number of the labels: an example's target is a set of labels."""

from __future__ import annotations

from dataclasses import replace

from graft_server.domain.examples import Example
from graft_server.domain.tasks.rules import CleanLabel, TaskRules, require_few


def _label_set(example: Example, field: str, clean: CleanLabel) -> Example:
    field = f"{field}.labels"
    labels = example.label_set or ()
    require_few(labels, field)
    cleaned = tuple(sorted({clean(label, f"{field}[{i}]") for i, label in enumerate(labels)}))
    return replace(example, label_set=cleaned)


RULES = TaskRules({"label_set": _label_set})
