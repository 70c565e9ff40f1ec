"""Any number of the labels: an example's target is a set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graft_server.domain.examples import Example, Task
from graft_server.domain.report import Report
from graft_server.domain.tasks.rules import CleanLabel, TaskRules, require_few


@dataclass(frozen=True, slots=True)
class MultiLabelAnswer:
    """Any number of the labels."""

    task: ClassVar[Task] = Task.MULTI_LABEL

    scores: Sequence[tuple[str, float, bool]]
    """Labels with their probabilities and whether they are selected, most probable first."""


def _label_set(example: Example, field: str, clean: CleanLabel) -> Example:
    field = f"{field}.labels"
    labels = example.label_set or ()
    require_few(labels, field)
    cleaned = tuple(sorted({clean(label, f"{field}[{i}]") for i, label in enumerate(labels)}))
    return replace(example, label_set=cleaned)


def _figure(report: Report) -> tuple[str, float]:
    return "micro_f1", report.multi_label.micro_f1 if report.multi_label else 0.0


RULES = TaskRules({"label_set": _label_set}, figure=_figure)
