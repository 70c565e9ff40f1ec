"""One of the labels: an example's target is a label, or a distribution over labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Share, Task
from graft_server.domain.names import shown
from graft_server.domain.report import Report
from graft_server.domain.tasks.rules import CleanLabel, TaskRules, require_few

OFF_ONE = 0.01
"""How far a distribution's sum may be from 1: probabilities are often rounded to two or three digits."""


@dataclass(frozen=True, slots=True)
class SingleLabelAnswer:
    """One of the labels."""

    task: ClassVar[Task] = Task.SINGLE_LABEL

    scores: Sequence[tuple[str, float]]
    """Labels with their probabilities, most probable first."""


def _label(example: Example, field: str, clean: CleanLabel) -> Example:
    return replace(example, label=clean(example.label or "", field))


def _distribution(example: Example, field: str, clean: CleanLabel) -> Example:
    field = f"{field}.labels"
    shares = example.distribution or ()
    if not shares:
        raise InvalidError(
            f"{field} is empty: give each label that is possible its probability.",
            reason="DISTRIBUTION_EMPTY",
            field=field,
        )
    require_few(shares, field)
    cleaned: dict[str, float] = {}
    for i, share in enumerate(shares):
        label = clean(share.label, f"{field}[{i}].label")
        if label in cleaned:
            raise InvalidError(
                f"{field}[{i}].label is {shown(label)}, which an earlier entry has: name each label once.",
                reason="LABEL_REPEATED",
                field=f"{field}[{i}].label",
            )
        cleaned[label] = _probability(share.probability, f"{field}[{i}].probability")
    total = sum(cleaned.values())
    if abs(total - 1) > OFF_ONE:
        raise InvalidError(
            f"The probabilities of {field} sum to {total:g}: they must sum to 1 (divide each by {total:g}).",
            reason="DISTRIBUTION_SUM",
            field=field,
        )
    shared = tuple(Share(label, cleaned[label] / total) for label in sorted(cleaned) if cleaned[label])
    return replace(example, distribution=shared)


def _probability(probability: float, field: str) -> float:
    if not 0 <= probability <= 1:  # the negation makes NaN fail too
        raise InvalidError(
            f"{field} is {probability}: a probability is from 0 to 1.",
            reason="PROBABILITY_INVALID",
            field=field,
        )
    return probability


def _figure(report: Report) -> tuple[str, float]:
    return "accuracy", report.accuracy


RULES = TaskRules({"label": _label, "distribution": _distribution}, figure=_figure, tunable=True)
