"""Which targets fit which task, and what each must be."""

from __future__ import annotations

import math

import pytest

from graft_server.adapting.intake.targets import TargetRules
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Example, Input, Share, Task
from graft_server.domain.tasks.rules import MAX_LABELS

TARGETS = {
    "label": "a",
    "label_set": ("a", "b"),
    "value": 1.5,
    "distribution": (Share("a", 0.25), Share("b", 0.75)),
}


def checked(task: Task, labels: set[str] | None = None, **target: object) -> Example:
    example = Example("id", Input("a text"), **target)  # type: ignore[arg-type]
    return TargetRules(task, labels).check(example, "upsert.")


def refused(task: Task, labels: set[str] | None = None, **target: object) -> InvalidError:
    with pytest.raises(InvalidError) as raised:
        checked(task, labels, **target)
    return raised.value


@pytest.mark.parametrize(
    ("task", "fitting"),
    [
        (Task.SINGLE_LABEL, {"label", "distribution"}),
        (Task.MULTI_LABEL, {"label_set"}),
        (Task.REGRESSION, {"value"}),
    ],
)
def test_each_task_accepts_its_own_targets_and_names_the_task_of_others(
    task: Task, fitting: set[str]
) -> None:
    for kind, target in TARGETS.items():
        if kind in fitting:
            assert getattr(checked(task, **{kind: target}), kind) == target
        else:
            error = refused(task, **{kind: target})
            assert (error.reason, error.field) == ("TARGET_MISMATCH", f"upsert.{kind}")
            assert "started with TASK_" in error.message


@pytest.mark.parametrize("task", list(Task))
def test_no_target_fits_every_task(task: Task) -> None:
    assert not checked(task).labelled


def test_a_set_is_cleaned_sorted_and_has_each_label_once() -> None:
    assert checked(Task.MULTI_LABEL, label_set=(" b", "a", "b ", "cafe\u0301")).label_set == (
        "a",
        "b",
        "caf\u00e9",
    )
    assert checked(Task.MULTI_LABEL, label_set=()).label_set == ()


def test_a_bad_label_of_a_set_is_named_by_its_place() -> None:
    error = refused(Task.MULTI_LABEL, label_set=("a", " "))
    assert (error.reason, error.field) == ("LABEL_EMPTY", "upsert.label_set.labels[1]")
    error = refused(Task.MULTI_LABEL, labels={"a"}, label_set=("a", "z"))
    assert (error.reason, error.field) == ("LABEL_UNKNOWN", "upsert.label_set.labels[1]")
    many = tuple(str(n) for n in range(MAX_LABELS + 1))
    assert refused(Task.MULTI_LABEL, label_set=many).reason == "TOO_MANY_LABELS"


def test_a_distribution_that_was_rounded_is_divided_by_its_sum() -> None:
    found = checked(Task.SINGLE_LABEL, distribution=(Share("b", 0.667), Share("a", 0.334), Share("c", 0.0)))
    assert found.distribution is not None
    assert [share.label for share in found.distribution] == ["a", "b"]
    assert sum(share.probability for share in found.distribution) == pytest.approx(1)


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ((), "DISTRIBUTION_EMPTY"),
        ((("a", 0.5), ("b", 0.4)), "DISTRIBUTION_SUM"),
        ((("a", 3.0), ("b", 1.0)), "PROBABILITY_INVALID"),
        ((("a", -0.5), ("b", 1.0)), "PROBABILITY_INVALID"),
        ((("a", math.nan), ("b", 1.0)), "PROBABILITY_INVALID"),
        ((("a", 0.5), (" a", 0.5)), "LABEL_REPEATED"),
    ],
)
def test_a_distribution_that_is_none_is_refused(shares: tuple[tuple[str, float], ...], reason: str) -> None:
    assert refused(Task.SINGLE_LABEL, distribution=tuple(Share(*share) for share in shares)).reason == reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e31, -1e31])
def test_a_value_that_heads_cannot_compute_with_is_refused(value: float) -> None:
    assert refused(Task.REGRESSION, value=value).reason == "VALUE_INVALID"


@pytest.mark.parametrize("value", [0.0, -0.0, 1e30, -1e-300])
def test_other_values_are_accepted_as_they_are(value: float) -> None:
    assert checked(Task.REGRESSION, value=value).value == value
