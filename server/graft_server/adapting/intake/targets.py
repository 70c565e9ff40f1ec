"""The rules for targets of a task: the one place that checks them, in Adapt and in EvaluateModel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Task
from graft_server.domain.names import clean_label, shown
from graft_server.domain.tasks.table import TASKS

_TASK_OF = {kind: task for task, rules in TASKS.items() for kind in rules.targets}
"""The checks by kind of target, which is a field of an `Example`."""


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The rules for targets of one adaptation or evaluation."""

    task: Task = Task.DEFAULT
    labels: Collection[str] | None = None
    """The allowed labels; None: any."""

    def check(self, example: Example, prefix: str) -> Example:
        """Returns the example with its target cleaned, or raises InvalidError.

        Args:
            example: As the client sent it.
            prefix: The beginning of the fields' paths, for example "upsert.".
        """
        kind = next((it for it in _TASK_OF if getattr(example, it) is not None), None)
        if kind is None:
            return example
        field = prefix + kind
        clean = TASKS[self.task].targets.get(kind)
        if clean is None:
            raise self._misfit(kind, field)
        return clean(example, field, self._label)

    def _label(self, label: str, field: str) -> str:
        label = clean_label(label, field)
        if self.labels is not None and label not in self.labels:
            raise InvalidError(
                f"{field} is {shown(label)}, which is not among the {len(self.labels)} labels of start, and "
                "closed_labels allows no others.",
                reason="LABEL_UNKNOWN",
                field=field,
            )
        return label

    def _misfit(self, kind: str, field: str) -> InvalidError:
        fitting = " or ".join(TASKS[self.task].targets)
        return InvalidError(
            f"{field} is set, but the task is {self.task.words}: give a {fitting}. Examples with a {kind} are for "
            f"an adaptation of their own, started with TASK_{_TASK_OF[kind].name}.",
            reason="TARGET_MISMATCH",
            field=field,
        )
