"""Which targets fit a task, and what each must be: the one place that checks them, in Adapt and in EvaluateModel."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Share, Task
from graft_server.domain.names import clean_label, shown

MAX_LABELS = 1_000
"""Of one example's set or distribution."""
MAX_VALUE = 1e30
"""Either way: squares of larger ones are beyond float32, which heads compute in."""
OFF_ONE = 0.01
"""How far a distribution's sum may be from 1: probabilities are often rounded to two or three digits."""

_FITTING = {
    Task.SINGLE_LABEL: ("label", "distribution"),
    Task.MULTI_LABEL: ("label_set",),
    Task.REGRESSION: ("value",),
}
_KINDS = ("label", "label_set", "value", "distribution")


@dataclass(frozen=True, slots=True)
class TargetRules:
    """What the targets of one adaptation, or of one evaluation, must be."""

    task: Task = Task.SINGLE_LABEL
    labels: Collection[str] | None = None
    """The labels that are allowed; None: any."""

    def check(self, example: Example, prefix: str) -> Example:
        """Returns the example with its target cleaned, or raises InvalidError.

        Args:
            example: As the client sent it.
            prefix: What the fields' paths begin with, for example "upsert.".
        """
        kind = next((it for it in _KINDS if getattr(example, it) is not None), None)
        if kind is None:
            return example
        field = prefix + kind
        if kind not in _FITTING[self.task]:
            raise self._misfit(kind, field)
        if example.label is not None:
            return replace(example, label=self._label(example.label, field))
        if example.label_set is not None:
            return replace(example, label_set=self._label_set(example.label_set, f"{field}.labels"))
        if example.distribution is not None:
            return replace(example, distribution=self._shares(example.distribution, f"{field}.labels"))
        return replace(example, value=_value(example.value, field))

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

    def _label_set(self, labels: Sequence[str], field: str) -> tuple[str, ...]:
        _require_few(labels, field)
        return tuple(sorted({self._label(label, f"{field}[{i}]") for i, label in enumerate(labels)}))

    def _shares(self, shares: Sequence[Share], field: str) -> tuple[Share, ...]:
        if not shares:
            raise InvalidError(
                f"{field} is empty: give each label that is possible its probability.",
                reason="DISTRIBUTION_EMPTY",
                field=field,
            )
        _require_few(shares, field)
        cleaned: dict[str, float] = {}
        for i, share in enumerate(shares):
            label = self._label(share.label, f"{field}[{i}].label")
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
        return tuple(Share(label, cleaned[label] / total) for label in sorted(cleaned) if cleaned[label])

    def _misfit(self, kind: str, field: str) -> InvalidError:
        fitting = " or ".join(_FITTING[self.task])
        (other,) = (task for task, kinds in _FITTING.items() if kind in kinds)
        return InvalidError(
            f"{field} is set, but the task is {self.task.words}: give a {fitting}. Examples with a {kind} are for "
            f"an adaptation of their own, started with TASK_{other.name}.",
            reason="TARGET_MISMATCH",
            field=field,
        )


def _require_few(labels: Sequence[object], field: str) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidError(
            f"{field} has {len(labels):,} entries: at most {MAX_LABELS:,} are accepted.",
            reason="TOO_MANY_LABELS",
            field=field,
        )


def _probability(probability: float, field: str) -> float:
    if not 0 <= probability <= 1:  # so said, NaN fails too
        raise InvalidError(
            f"{field} is {probability}: a probability is from 0 to 1.",
            reason="PROBABILITY_INVALID",
            field=field,
        )
    return probability


def _value(value: float | None, field: str) -> float | None:
    if value is not None and not (math.isfinite(value) and abs(value) <= MAX_VALUE):
        raise InvalidError(
            f"{field} is {value}: a value is a finite number, at most {MAX_VALUE:g} either way.",
            reason="VALUE_INVALID",
            field=field,
        )
    return value
