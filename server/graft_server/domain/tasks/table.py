"""Which tasks there are, and what their examples and settings may be. To add one: docs/adding-a-task.md."""

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
"""By task."""
