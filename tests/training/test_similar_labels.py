"""Which labels a person reads as one, and what is not seen of a label."""

from __future__ import annotations

import pytest

from graft_server.domain.errors import InvalidError
from graft_server.domain.label_forms import (
    MAX_NAMED,
    MAX_SIMILAR,
    looks_like_a_list,
    reading,
    shows_nothing,
    similar,
    spelled,
)
from graft_server.domain.names import clean_label
from graft_server.domain.report import LabelCount, SimilarLabels

SAME = [
    ("card_arrival", "CARD_ARRIVAL"),
    ("card_arrival", "Card Arrival"),
    ("card_arrival", "card-arrival"),
    ("new card", "new\u00a0card"),
    ("new card", "new  card"),
    ("new card", "newcard"),
    ("spam", "sp\u00adam"),
    ("spam", "spam\u200b"),
    ("spam", "\ufeffspam"),
    ("spam", "\u202aspam\u202c"),
    ("spam", "\uff53\uff50\uff41\uff4d"),
    ("❤", "❤\ufe0f"),
    ("yes", "Yes."),
    ("yes", "'yes'"),
    ("don't know", "Don’t know"),
    ("straße", "STRASSE"),
    ("istanbul", "İstanbul"),
    ("1", "1.0"),
    ("1", "01"),
    ("-1", "-1.0"),
]
DIFFERENT = [
    ("C", "C++"),
    ("C", "C#"),
    ("1", "-1"),
    ("grade 1", "grade -1"),
    ("1 2", "12"),
    ("1.0", "1.1"),
    ("!", "?"),
    ("-", "_"),
    ("ve", "-ve"),
    ("a/b", "ab"),
    ("résumé", "resume"),
    ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏴"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_labels_that_a_person_reads_as_one_have_one_reading(one: str, other: str) -> None:
    assert reading(one) == reading(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_labels_that_differ_in_what_is_read_have_two(one: str, other: str) -> None:
    assert reading(one) != reading(other)


def test_groups_come_by_their_examples_with_the_most_frequent_label_first() -> None:
    counts = {"a": 1, "b": 7, "c": 5, "A": 3, "B": 9, "d": 4}
    assert similar(counts) == (
        SimilarLabels((LabelCount("B", 9), LabelCount("b", 7))),
        SimilarLabels((LabelCount("A", 3), LabelCount("a", 1))),
    )
    assert similar({"a": 1, "b": 2}) == ()


def test_of_many_groups_and_labels_the_first_are_listed() -> None:
    many = similar({f"{letter}{n}": 1 for n in range(100) for letter in "xX"})
    assert len(many) == MAX_SIMILAR
    (group,) = similar({"x" + "." * n: 1 for n in range(20)})
    assert len(group.labels) == MAX_NAMED


@pytest.mark.parametrize("label", ["\u200b", "\ufeff \u00ad", "\u2800", "\u3164", "\ufe0f\ufe0f", "\x07"])
def test_a_label_that_cannot_be_seen_is_refused_and_spelled_out(label: str) -> None:
    assert shows_nothing(label)
    with pytest.raises(InvalidError, match=r"\\u[0-9a-f]{4}|\\x07") as raised:
        clean_label(label, "upsert.label")
    assert raised.value.reason == "LABEL_EMPTY"
    assert raised.value.field == "upsert.label"


@pytest.mark.parametrize("label", ["a", "❤\ufe0f", "\u200ba", "۝", "-", "."])
def test_a_label_with_something_to_see_is_taken_as_it_is(label: str) -> None:
    assert clean_label(label, "upsert.label") == label


@pytest.mark.parametrize(
    "label", ["['a', 'b']", '["a"]', "('a',)", "{'a'}", "['a' 'b']", "array(['a'])", "[]"]
)
def test_what_a_program_writes_of_a_list_looks_like_one(label: str) -> None:
    assert looks_like_a_list(label)


@pytest.mark.parametrize("label", ["(other)", "[sic]", "'a'", "a (b)", "f('a')", "()"])
def test_a_label_in_brackets_does_not(label: str) -> None:
    assert not looks_like_a_list(label)


def test_what_is_not_seen_is_spelled_out() -> None:
    assert spelled("ca\u200bfé\ufe0f") == "'ca\\u200bfé\\ufe0f'"
