"""The facts about a task that the rest of the domain needs: a row of `table.TASKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example
from graft_server.domain.report import Report

MAX_LABELS = 1_000
"""The most labels in one example's set or distribution."""

CleanLabel = Callable[[str, str], str]
"""Cleans a label, given the path of its field, or raises InvalidError."""
CleanTarget = Callable[[Example, str, CleanLabel], Example]
"""Returns an example with its target cleaned, given the path of the target's field, or raises InvalidError."""


@dataclass(frozen=True, slots=True)
class TaskRules:
    """What the examples and settings of a task may be."""

    targets: Mapping[str, CleanTarget]
    """The fields of an `Example` that are targets of the task, and the function that cleans each."""
    figure: Callable[[Report], tuple[str, float]]
    """The figure that a version is judged by, with its name."""
    instead_of_labels: str = ""
    """A few words for its answers if they are not labels: no label can be declared then."""
    tunable: bool = False
    """Whether the backbone can be tuned for it."""


def require_few(labels: Sequence[object], field: str) -> None:
    """Raises InvalidError if a target names more than MAX_LABELS labels."""
    if len(labels) > MAX_LABELS:
        raise InvalidError(
            f"{field} has {len(labels):,} entries: at most {MAX_LABELS:,} are accepted.",
            reason="TOO_MANY_LABELS",
            field=field,
        )
