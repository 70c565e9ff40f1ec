"""The table of tasks and the rules for their examples and settings. To add one: docs/adding-a-task.md."""

from __future__ import annotations

from collections.abc import Mapping

from graft_server.domain.examples import Task
from graft_server.domain.tasks import multi_label, regression, single_label
from graft_server.domain.tasks.rules import TaskRules

TASKS: Mapping[Task, TaskRules] = {
    Task.SINGLE_LABEL: single_label.RULES,
    Task.MULTI_LABEL: multi_label.RULES,
    Task.REGRESSION: regression.RULES,
}
"""The rules by task."""
