"""What counts as missing, as a label and as a number, and which task targets are for."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import math
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graft
from graft._records.inputs.examples import ChangeLike, example_messages
from graft._records.inputs.id_use import IdUse, Use
from graft._records.inputs.targets import is_missing, label_of
from graft._records.inputs.task_guess import Guess, TaskGuess
from graft._streams.options import AdaptOptions
from graft._streams.preparing import prepared, prepared_async
from graft.v1 import types_pb2

NAN = math.nan


class Intent(enum.Enum):
    CARD = "card"
    RATE = 2


class Word(enum.StrEnum):
    CARD = "card"


MISSING = [
    None,
    NAN,
    np.nan,
    np.float32("nan"),
    np.float16("nan"),
    np.datetime64("NaT"),
    np.array(np.nan),
    np.ma.masked,
    pd.NA,
    pd.NaT,
    pd.Series([None, "a"], dtype="string")[0],
    pd.Series([None, 1.0], dtype="Int64")[0],
    pd.Categorical(["a", None])[1],
    Decimal("NaN"),
    "",
    " \t",
]
LABELS = [
    ("nan", "nan"),
    ("NA", "NA"),
    ("None", "None"),
    ("null", "null"),
    ("NaT", "NaT"),
    (0.0, "0"),
    (2.0, "2"),
    (-1.0, "-1"),
    (1.5, "1.5"),
    (3, "3"),
    (True, "True"),
    (np.bool_(False), "False"),
    (np.int64(7), "7"),
    (np.float64(7), "7"),
    (np.float32(7), "7"),
    (np.str_("a"), "a"),
    (np.array("a"), "a"),
    (pd.Categorical(["a"])[0], "a"),
    (pd.Series([1, None], dtype="Int64")[0], "1"),
    (Decimal("2.00"), "2"),
    (Decimal("2.50"), "2.50"),
    (Intent.CARD, "card"),
    (Intent.RATE, "RATE"),
    (Word.CARD, "card"),
]


def sent(target: Any, task: str = "single_label") -> types_pb2.Example:
    (message,) = example_messages([("text", target)], task)
    return message


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_what_is_missing_is_no_target_wherever_it_stands(value: Any) -> None:
    assert is_missing(value)
    for task in ("single_label", "multi_label", "regression", ""):
        assert sent(value, task).WhichOneof("target") is None
        assert sent([value], task).WhichOneof("target") is None
        assert sent({"a": value}, task).WhichOneof("target") is None
    assert list(sent(["a", value]).label_set.labels) == ["a"]
    shares = sent({"a": 1.0, "b": value}).distribution.labels
    assert [(it.label, it.probability) for it in shares] == [("a", 1.0)]
    for field in ("label", "value"):
        (message,) = example_messages([graft.Example("text", **{field: value})])
        assert message.WhichOneof("target") is None
    (message,) = example_messages([graft.Example("text", "a", id=value, group=value, split=value)])
    assert (message.id, message.group, message.split) == ("", "", types_pb2.SPLIT_UNSPECIFIED)


@pytest.mark.parametrize(("value", "label"), LABELS, ids=lambda it: repr(it)[:30])
def test_what_is_a_label_has_a_text(value: Any, label: str) -> None:
    assert not is_missing(value)
    assert label_of(value) == label
    assert sent(value).label == label
    assert list(sent((value, "z")).label_set.labels) == [label, "z"]
    (message,) = example_messages([graft.Example("text", value)], "single_label")
    assert message.label == label


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (np.int8(3), 3.0), (np.float32(0.5), 0.5), (Decimal("1.25"), 1.25), (True, 1.0), ("2.5", 2.5)],
)
def test_a_regression_takes_every_number(value: Any, number: float) -> None:
    assert sent(value, "regression").value == number
    assert sent(value, "regression").WhichOneof("target") == "value"


def test_an_infinite_number_and_a_text_that_is_no_number_are_left_for_the_server_to_refuse_alone() -> None:
    for task in ("single_label", "regression", ""):
        assert sent(math.inf, task).value == math.inf
    assert sent("soon", "regression").label == "soon"
    assert sent("nan", "regression").WhichOneof("target") is None


@pytest.mark.parametrize("text", [None, NAN, pd.NA, ""])
def test_an_input_that_is_missing_is_left_for_the_server_to_refuse_alone(text: Any) -> None:
    (message,) = example_messages([(text, "a")])
    assert (message.input.WhichOneof("kind"), message.input.text) == ("text", "")


def test_an_empty_set_is_a_target() -> None:
    for empty in (set(), [], (), np.array([])):
        assert sent(empty, "multi_label").WhichOneof("target") == "label_set"


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (
            dt.date(2026, 1, 2),
            TypeError,
            r"example 0: a target must be .*datetime.date\(2026, 1, 2\); str\(\)",
        ),
        (b"card", TypeError, "not b'card'"),
        ([0, 1, 0], TypeError, "the zeros and ones of .*give the names of the labels"),
        (np.array([1.0, 0.0]), TypeError, "the zeros and ones"),
        ([["a"]], TypeError, r"not \['a'\]"),
        ({None: 1.0}, ValueError, "to a label that is missing"),
        ({"a": "much"}, TypeError, "must be a number, not 'much'"),
    ],
)
def test_other_targets_are_named_with_their_place_and_the_remedy(
    target: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        sent(target)


def guess(*targets: Any) -> Guess:
    found = TaskGuess()
    for target in targets:
        found.add(("text", target))
    return found.result()


@pytest.mark.parametrize(
    ("targets", "task"),
    [
        ([NAN, "a", "b"], "single_label"),
        ([None, None, 0.25], "regression"),
        ([pd.NA, ["a"]], "multi_label"),
        ([pd.NaT, {"a": 1.0}], "single_label"),
        ([["a"], "a", "b"], "single_label"),
        ([{"a", "b"}, "a", {"b"}], "multi_label"),
        ([NAN, NAN], ""),
        ([], ""),
        ([True, False], "single_label"),
        ([Intent.CARD, Intent.RATE], "single_label"),
        (["N/A", 1.5, 2.5], "regression"),
        (["a", 2.0, "b"], "single_label"),
        ([0.0, 1.0, NAN, 2.0, 1.0, 0.0], "single_label"),
        ([Decimal(0), Decimal(1), None, Decimal(1)], "single_label"),
        ([1.0, 2.0, 3.0] * 4 + [NAN], "single_label"),
        ([0.0, 1.0, 1.0, 0.0], "single_label"),
        ([0, 1, 2, 1], "single_label"),
        ([np.int64(5), np.int64(9)] * 3, "single_label"),
        ([1.0, 2.0, 3.0] * 4, "regression"),
        ([12.0, 7.0, NAN, 19.0, 33.0, 8.0], "regression"),
        ([1.0, 2.0, 3.0, NAN], "regression"),
        ([0.5, 1.0, NAN, 0.0], "regression"),
        (list(range(100_000, 200_000, 1000)), "regression"),
        ([math.inf, 1.5], "regression"),
    ],
)
def test_the_task_is_told_by_targets_that_are_there(targets: list[Any], task: str) -> None:
    assert guess(*targets).task == task


def test_a_guess_that_may_be_wrong_is_said_with_what_overrules_it() -> None:
    said = guess(0.0, 1.0, NAN, 2.0, 1.0).said("task={}")
    assert "single-label, guessed because targets are the whole numbers 0, 1, 2 and 1 is missing" in said
    assert "; task=regression overrules" in said
    assert "--task single-label overrules" in guess(1.0, 2.0, 3.0).said("--task {}")
    assert guess("a", NAN).said("{}") == ""


def test_named_fields_tell_the_task_unless_they_are_missing() -> None:
    found = TaskGuess()
    found.add(graft.Example("text", value=NAN))
    found.add(graft.Example("text", label=NAN))  # type: ignore[arg-type]
    found.add(graft.Delete("id"))
    assert found.open
    found.add(graft.Example("text", value=3.0))
    assert (found.open, found.result().task) == (False, "regression")


def test_all_of_a_list_is_looked_at_and_no_more_of_an_iterator_than_tells() -> None:
    rows: list[ChangeLike] = [("text", 1.0)] * 5000 + [("text", 0.0), ("text", NAN)]  # type: ignore[list-item]
    assert prepared(AdaptOptions(), rows).options.task == "single_label"
    taken = 0

    def source(first: Any) -> Iterator[ChangeLike]:
        nonlocal taken
        for target in (None, NAN, first, first, first):
            taken += 1
            yield ("text", target)

    ready = prepared(AdaptOptions(), source("a"))
    assert (taken, ready.options.task) == (3, "single_label")
    assert len(list(ready.changes)) == 5
    taken = 0
    assert prepared(AdaptOptions(task="regression"), source("a")).options.task == "regression"
    assert taken == 0


def test_changes_of_a_failing_source_are_sent_before_it_raises() -> None:
    def source() -> Iterator[ChangeLike]:
        yield ("one", None)
        yield ("two", None)
        raise RuntimeError("disk")

    ready = prepared(AdaptOptions(), source())
    changes = iter(ready.changes)
    assert [next(changes), next(changes)] == [("one", None), ("two", None)]
    with pytest.raises(RuntimeError, match="disk"):
        next(changes)


def test_asynchronous_changes_are_looked_at_alike() -> None:
    async def source() -> AsyncIterator[ChangeLike]:
        for target in (NAN, 0.0, 1.0, 2.0, 1.0):
            yield ("text", target)

    async def task() -> tuple[str, int]:
        ready = await prepared_async(AdaptOptions(), source())
        return ready.options.task, len([it async for it in ready.changes])  # type: ignore[union-attr]

    assert asyncio.run(task()) == ("single_label", 5)


def test_an_id_that_stands_for_two_inputs_in_a_list_is_refused_before_anything_is_sent() -> None:
    rows = [graft.Example(f"text {n}", "a", id=f"customer {n % 5}") for n in range(10)]
    with pytest.raises(ValueError, match="examples 0 and 5 have the same id and different inputs") as raised:
        prepared(AdaptOptions(), rows)
    assert "5 ids for 10 examples, 5 of them with different inputs" in str(raised.value)
    assert "id_repeats='replace'" in str(raised.value)
    assert prepared(AdaptOptions(id_repeats="replace"), rows).changes is rows
    assert prepared(AdaptOptions(), iter(rows)).options.task == "single_label"
    with pytest.raises(ValueError, match="id_repeats is 'keep'"):
        prepared(AdaptOptions(id_repeats="keep"), rows)


def test_corrections_repeats_and_deletions_are_no_other_use_of_an_id() -> None:
    prepared(AdaptOptions(), [graft.Example("x", "a", id="1"), graft.Example("x", "b", id="1")])
    prepared(
        AdaptOptions(), [graft.Example("x", "a", id="1"), graft.Delete("1"), graft.Example("y", "b", id="1")]
    )
    prepared(AdaptOptions(), [graft.Example("x", "a"), graft.Example("y", "b", id=NAN)])  # type: ignore[arg-type]


def test_each_use_of_an_id_is_told_apart() -> None:
    use = IdUse()
    rows = [("x", "a"), ("x", "a"), ("x", "b"), ("y", "b")]
    found = [use.add(graft.Example(text, label, id="1")) for text, label in rows]
    assert found == [Use.NEW, Use.SAME, Use.OTHER_TARGET, Use.OTHER_INPUT]
    assert (use.ids, use.examples, use.lost) == (1, 4, 2)
    assert use.add(graft.Example("z", id=1)) is Use.OTHER_INPUT  # type: ignore[arg-type]
    array = np.array([0.5, 1.0])
    assert use.add(graft.Example(array, id="2")) is Use.NEW
    assert use.add(graft.Example(array.copy(), id="2")) is Use.SAME
