"""What an example must be: the limits, at their edges."""

from __future__ import annotations

import math

import pytest

from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import MAX_TEXT_BYTES, check_change, check_input, check_weight
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Change, Example, Input


def checked(targets: TargetRules = TargetRules(), **fields: object) -> Example:  # noqa: B008 (it is frozen)
    example = Example(**{"id": "", "input": Input("a text"), "label": "a", **fields})  # type: ignore[arg-type]
    change = check_change(Change(example), default_id="a/w/7", targets=targets)
    assert change.upsert is not None
    return change.upsert


def reason(**fields: object) -> str:
    with pytest.raises(InvalidError) as raised:
        checked(**fields)
    return raised.value.reason


def test_an_id_of_ones_own_stays_and_a_missing_one_is_made():
    assert checked(id="mine").id == "mine"
    assert checked().id == "a/w/7"


def test_a_text_may_have_all_the_bytes_there_are_and_not_one_more():
    assert check_input(Input("x" * MAX_TEXT_BYTES), "input")
    with pytest.raises(InvalidError):
        check_input(Input("x" * (MAX_TEXT_BYTES + 1)), "input")


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u2003\u3000"])
def test_a_blank_text_is_empty(text):
    assert reason(input=Input(text)) == "INPUT_EMPTY"


def test_a_text_is_not_changed():
    assert checked(input=Input("  Ｔext\n")).input.text == "  Ｔext\n"


def test_labels_are_normalised_and_trimmed_and_counted_in_bytes_after_that():
    assert checked(label=" cafe\u0301\n").label == "caf\u00e9"
    assert checked(label="é" * 128).label == "é" * 128
    assert reason(label="é" * 129) == "LABEL_TOO_LONG"
    assert checked(label=" " * 500 + "x" + " " * 500).label == "x"
    assert reason(label="x" * 257) == "LABEL_TOO_LONG"
    assert reason(label="\u3000") == "LABEL_EMPTY"


@pytest.mark.parametrize("field", ["id", "group", "subject", "origin"])
def test_ids_and_other_names_are_counted_in_bytes(field):
    assert getattr(checked(**{field: "é" * 128}), field) == "é" * 128
    assert reason(**{field: "é" * 129}) == "ID_TOO_LONG"


@pytest.mark.parametrize("weight", [0.0, 1e-300, 1e300])
def test_finite_weights_from_0_on_are_accepted(weight):
    assert check_weight(weight, "weight") == weight


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, -1e-300])
def test_other_weights_are_refused(weight):
    with pytest.raises(InvalidError, match="0 or greater"):
        check_weight(weight, "weight")


def test_closed_labels_are_compared_after_cleaning():
    example = Example("", Input("x"), " caf\u0065\u0301 ")
    assert check_change(Change(example), default_id="i", targets=TargetRules(labels={"caf\u00e9"})).upsert
    with pytest.raises(InvalidError, match="not among the 1 labels"):
        check_change(Change(example), default_id="i", targets=TargetRules(labels={"tea"}))
