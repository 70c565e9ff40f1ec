"""What became of each row: every row is counted once, and the counts add up."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import graft
from graft._records.adapting.row_counts import RowCounts, RowTally
from graft.v1 import adaptation_pb2, types_pb2


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture
def new_model() -> str:
    return f"tests/rows-{uuid.uuid4().hex[:12]}"


Change = adaptation_pb2.ExampleChange


def upsert(id_: str = "", label: str | None = "a") -> adaptation_pb2.ExampleChange:
    return Change(upsert=types_pb2.Example(id=id_, label=label))


def counts(changes: Sequence[adaptation_pb2.ExampleChange], refused: Sequence[int] = ()) -> RowCounts:
    tally = RowTally()
    for change in changes:
        tally.add(change)
    found = tally.counts(refused, len(refused))
    assert found is not None
    return found


def sum_of(found: RowCounts) -> int:
    return sum(getattr(found, it.name) for it in dataclasses.fields(found) if it.name != "read")


@pytest.mark.parametrize(
    ("changes", "refused", "expected"),
    [
        ([], [], {}),
        ([upsert(), upsert()], [], {"examples": 2}),
        ([upsert("1"), upsert("1"), upsert("1")], [], {"examples": 1, "replaced": 2}),
        ([upsert("1"), upsert("1")], [1], {"examples": 1, "refused": 1}),  # a refused row replaces nothing
        ([upsert("1"), upsert("1")], [0], {"examples": 1, "refused": 1}),
        ([upsert("1", None), upsert("1")], [], {"examples": 1, "replaced": 1}),
        ([upsert("1"), upsert("1", None)], [], {"replaced": 1, "unlabelled": 1}),
        ([upsert("", None)], [0], {"refused": 1}),
        ([upsert("1"), Change(delete_id="1")], [], {"deleted": 1, "deletions": 1}),
        ([upsert("1"), Change(delete_id="1")], [1], {"examples": 1, "refused": 1}),
        (
            [upsert("1"), Change(delete_id="1"), upsert("1")],
            [],
            {"examples": 1, "deleted": 1, "deletions": 1},
        ),
        ([Change(delete_id="9")], [], {"deletions": 1}),
    ],
)
def test_each_row_is_counted_once(
    changes: list[adaptation_pb2.ExampleChange], refused: list[int], expected: dict[str, int]
) -> None:
    assert counts(changes, refused) == RowCounts(read=len(changes), **({"examples": 0} | expected))


def test_the_counts_add_up_for_any_stream() -> None:
    draw = random.Random(0)  # noqa: S311
    for _ in range(300):
        size = draw.randrange(30)
        changes = [
            Change(delete_id=draw.choice("xyz"))
            if draw.random() < 0.1
            else upsert(draw.choice(["", "x", "y", "z"]), draw.choice(["a", None]))
            for _ in range(size)
        ]
        found = counts(changes, draw.sample(range(size), draw.randrange(size + 1)))
        assert found.read == size == sum_of(found)
        assert all(getattr(found, it.name) >= 0 for it in dataclasses.fields(found))


def test_rows_of_which_no_example_was_made_are_added() -> None:
    found = RowCounts(read=5, examples=5).with_more(refused=2, left_out=1, blank=3)
    assert (found.read, sum_of(found)) == (11, 11)
    assert found.said() == (
        "of 11 rows: 5 examples, 2 refused, 1 left out because an earlier row has the same id, "
        "3 blank, or the header once more"
    )


def test_a_resumed_stream_does_not_count_what_was_refused_before() -> None:
    tally = RowTally()
    tally.add(upsert())
    assert tally.counts([-3, -1], 2) == RowCounts(read=1, examples=1)


def test_an_adaptation_says_what_became_of_its_rows(client: graft.Client, new_model: str) -> None:
    examples = [
        *(graft.Example(f"refund {i}", "refund", id=f"r{i}") for i in range(6)),
        *(graft.Example(f"parcel {i}", "parcel") for i in range(6)),
        graft.Example("refund 0, please", "refund", id="r0"),
        graft.Example(" ", "refund"),
        graft.Example("who knows", None),
        graft.Delete("r5"),
    ]
    expected = RowCounts(read=16, examples=11, replaced=1, refused=1, unlabelled=1, deleted=1, deletions=1)
    assert client.check(new_model, examples).rows == expected
    result = client.adapt(new_model, iter(examples))
    assert result.rows == expected
    assert result.report.examples + result.report.validation_examples == expected.examples


def test_an_error_carries_the_rows_that_were_refused(client: graft.Client, new_model: str) -> None:
    with pytest.raises(graft.FailedPreconditionError) as raised:
        client.adapt(new_model, [(" ", "a"), ("", "b"), ("\n", "b")])
    error = raised.value
    assert [it.sequence for it in error.rejections] == [0, 1, 2]
    assert {it.reason for it in error.rejections} == {"INPUT_EMPTY"}
    assert (error.rejected_count, error.reason) == (3, "TOO_FEW_CLASSES")
    assert error.rejected_reasons == {"INPUT_EMPTY": 3}
    assert error.message.startswith("All 3 examples were refused (INPUT_EMPTY 3). ")


def test_an_error_says_what_came_in(client: graft.Client, new_model: str) -> None:
    examples = [*((f"text {i}", "only") for i in range(4)), (" ", "other"), ("who knows", None)]
    with pytest.raises(graft.FailedPreconditionError) as raised:
        client.adapt(new_model, examples)
    error = raised.value
    assert (
        "4 with a label, by label 'only' (4); 1 without a label; 1 refused (INPUT_EMPTY 1)" in error.message
    )
    assert {name: error.metadata[name] for name in ("examples", "unlabelled", "refused")} == {
        "examples": "5",
        "unlabelled": "1",
        "refused": "1",
    }
    assert [it.sequence for it in error.rejections] == [4]


def test_where_most_examples_are_refused_a_notice_says_why(client: graft.Client, new_model: str) -> None:
    good = [
        (f"{text} {number}", label) for number in range(3) for text, label in (("lock", "a"), ("bill", "b"))
    ]
    result = client.adapt(new_model, [*good, *[(" ", "a")] * 7])
    assert result.rejected_reasons == {"INPUT_EMPTY": 7}
    assert "most examples were refused: 7 of 13 (INPUT_EMPTY 7)" in result.notices
    assert not any("refused" in it for it in client.adapt(f"{new_model}-2", good).notices)
