"""Listing what a version was made of, and what a person confirmed, by the client against a live server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import graft


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as opened:
        yield opened


def test_a_versions_examples_are_listed_by_id_and_in_the_state_that_it_was_made_with(client, model, few):
    rows = [graft.Example(*row, id=f"r{n}", origin=f"few.csv:{n + 2}") for n, row in enumerate(few)]
    client.adapt(model, rows, adaptation_id="first")
    kept = graft.Example(*few[1], id="r1", confirmed=True, split="train")
    changes = [graft.Example("my key is lost", "lock", id="r0"), kept, graft.Delete("r2")]
    assert client.adapt(model, changes, adaptation_id="second", base_version=1).version == 2
    assert [it.id for it in client.examples(model, version=1)] == [it.id for it in rows]
    second = client.examples(model, version=2, include_inputs=True)
    assert [it.id for it in second] == [*(it.id for it in rows[3:]), "r0", "r1"]
    assert (second[-2].text, second[-2].input, second[-2].origin) == ("my key is lost",) * 2 + ("",)
    assert (second[-1].confirmed, second[-1].split, second[0].origin) == (True, "train", "few.csv:5")
    assert len(client.examples(model)) == len(rows) + 2
    assert [it.text for it in client.examples(model, ids=["r0"], include_inputs=True)] == [
        few[0][0],
        "my key is lost",
    ]
    assert [it.id for it in client.examples(model, ids=["r0", "r2", "?"], version=2)] == ["r0"]
    assert [it.id for it in client.examples(model, version=2, split="train")] == ["r1"]
    labels = {it.label for it in client.examples(model, version=2, label="bill")}
    assert labels == {"bill"}
    assert client.examples(model, ids=[]) == []
    report = client.version(model, 2).report
    assert report.data is not None
    assert (report.examples, report.data.confirmed_examples) == (len(second), 1)
    # The same input and label, sent again without a word of it, and in a version that goes on from there.
    again = client.adapt(model, [graft.Example(*few[1], id="r1")], base_version=2)
    assert again.report.data is not None
    assert again.report.data.confirmed_examples == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"version": 9}, "has no version 9"),
        ({"version": -1}, "versions count from 1"),
        ({"ids": [""]}, "ids has an empty entry"),
        ({"adaptation_id": "none"}, "has no adaptation"),
    ],
)
def test_what_cannot_be_listed_is_said(
    client: graft.Client, few_model: str, asked: Any, message: str
) -> None:
    with pytest.raises(graft.GraftError, match=message):
        client.examples(few_model, **asked)


def test_a_stored_example_can_be_sent_again_with_a_change() -> None:
    facts: dict[str, Any] = {
        "adaptation_id": "a",
        "writer_id": "w",
        "sequence": 0,
        "deleted": False,
        "text": "x",
    }
    stored = graft.StoredExample(
        **facts,
        id="i",
        label="no",
        split="train",
        group="g",
        subject="s",
        weight=2.0,
        origin="o:1",
        input="x",
    )
    changed = stored.example(label="yes", confirmed=True)
    assert changed == graft.Example("x", "yes", "i", 2.0, "train", "g", "s", origin="o:1", confirmed=True)
    sets = graft.StoredExample(
        **facts, id="i", label=None, split="", group="", subject="", labels=("a",), input=b"png"
    )
    assert sets.example() == graft.Example(b"png", id="i", weight=1.0, labels=("a",))
    assert sets.example(labels=("b",)).labels == ("b",)
    with pytest.raises(ValueError, match="was not requested"):
        graft.StoredExample(**facts, id="i", label="no", split="", group="", subject="").example()
