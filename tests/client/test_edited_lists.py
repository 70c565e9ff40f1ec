"""Lists of stored examples in files: written, known again, read back exactly, and what an edit of them means."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

import graft
from graft._data_files.columns import RowError
from graft._data_files.corrections.reading import Found, list_rows, take
from graft._data_files.corrections.writing import Listed, written
from graft._data_files.files import DataFile
from graft._data_files.formats.edited_list import are_of_list
from graft._records.evaluation.probable_errors import ProbableError, probable_errors
from graft._records.evaluation.reports import ExampleRef, LabelError

PIECES = (
    *('"', "'", ",", ";", "\t", "\n", "\r\n", "\r", "=1+1", "-5,lock\n7,bill", "|", "\\", '""', '\\"', "é"),
    *("\u2028", "\x0b", "{", "[", ":", "#", "id,text,label", " x,lock,,,", "lock\n", "\x1c", "\ufeff", " "),
)
TEXTS = (
    "=SUM(A1)",
    '"quoted"',
    "a\nb,lock\nc",
    "tab\there",
    " space ",
    "x\r\ny",
    '=HYPERLINK("a")',
    "@a",
    "+1",
)


def stored(id_: str, text: Any = "a text", **fields: Any) -> graft.StoredExample:
    target = {"label": "lock"} if not {"labels", "value", "distribution"} & fields.keys() else {"label": None}
    facts = {"adaptation_id": "a", "writer_id": "w", "sequence": 0, "split": "", "group": "", "subject": ""}
    shown = text if isinstance(text, str) else None
    return graft.StoredExample(
        **{**facts, **target, "deleted": False, "text": shown, **fields}, id=id_, input=text
    )


def write(path: Path, listed: Iterable[Listed], version: int = 3) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        written(listed, file, version=version, as_json=path.suffix == ".jsonl")
    return path


def read(
    path: Path, examples: Sequence[graft.StoredExample], task: str = "single_label"
) -> tuple[Found, list[RowError]]:
    """What a file changes of the examples, and which rows cannot be used."""
    bad: list[RowError] = []
    found, known = Found(), {it.id: it for it in examples}
    with DataFile(path) as data:
        assert data.is_list
        for row in list(list_rows(data, task, bad.append)):
            try:
                take(row, known.get(row.id), found)
            except RowError as error:
                bad.append(error)
    return found, bad


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_whatever_a_text_holds_a_list_that_nobody_edited_changes_nothing(tmp_path, ending):
    rng = random.Random(1)  # noqa: S311
    texts = [*TEXTS, *("".join(rng.choices(PIECES, k=rng.randint(1, 12))) + "z" for _ in range(300))]
    labels = ("lock", "a,b", 'x "y"', "=1")
    examples = [
        stored(
            f"{text[:9]}{n}",
            text,
            label=rng.choice(labels),
            group=f"g{n % 3}",
            origin=f"f.csv:{n}",
            weight=0.3,
        )
        for n, text in enumerate(texts)
    ]
    path = write(tmp_path / f"list{ending}", map(Listed, examples))
    found, bad = read(path, examples)
    assert (found.said(), bad, found.same, found.texts) == ("", [], len(texts), 0)
    with DataFile(path) as data:
        assert [row.text for row in list_rows(data, "single_label", bad.append)] == texts


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("multi_label", {"labels": ("bill", "lock")}),
        ("multi_label", {"labels": ()}),
        ("multi_label", {"labels": ("a,b", '"c"')}),
        ("regression", {"value": 0.1}),
        ("single_label", {"distribution": {"bill": 0.75, "lock": 0.25}}),
        ("single_label", {"label": None}),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_targets_of_every_kind_are_read_back(tmp_path, task, fields, ending):
    examples = [stored("i", **fields), stored("j", graft.TextPair("one", "two"), **fields)]
    path = write(tmp_path / f"list{ending}", map(Listed, examples))
    found, bad = read(path, examples, task)
    assert (found.said(), bad, found.same) == ("", [], 2)


def edited(tmp_path: Path, examples: Sequence[graft.StoredExample], *changes: dict[str, str]) -> Path:
    """A list whose rows were changed in a spreadsheet, which also writes line ends and delimiters of its own."""
    file = io.StringIO(newline="")
    written(map(Listed, examples), file, version=3, as_json=False)
    rows = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    path = tmp_path / "edited.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys(), delimiter=";", restval="")
        writer.writeheader()
        writer.writerows([*({**row, **change} for row, change in zip(rows, changes, strict=False))])
        writer.writerows(changes[len(rows) :])
    return path


def test_an_edit_corrects_confirms_deletes_or_adds(tmp_path):
    examples = [stored(f"i{n}", f"text {n}", confirmed=n == 4, weight=2.0) for n in range(7)]
    path = edited(
        tmp_path,
        examples,
        {"label": "bill"},
        {"confirmed": "TRUE"},
        {"delete": "x"},
        {},
        {"confirmed": ""},
        {"group": "g"},
        {"text": "another text"},
        {"text": "a new one", "label": "bill"},
    )
    found, bad = read(path, examples)
    assert bad == []
    assert found.counts == {"corrected": 1, "confirmed": 1, "deleted": 1, "added": 1, "changed otherwise": 2}
    assert (found.same, found.texts) == (2, 1)
    corrected, confirmed, unconfirmed, grouped = found.edits
    assert corrected.fields == {"label": "bill", "confirmed": True}
    assert confirmed.fields == {"confirmed": True}
    assert (unconfirmed.fields, unconfirmed.unconfirmed) == ({"confirmed": False}, True)
    assert grouped.fields == {"group": "g", "confirmed": False}
    assert found.deleted == [(4, "i2")]
    assert found.added == [(9, graft.Example("a new one", "bill", split="", group="", subject=""))]
    assert examples[0].example(**corrected.fields).weight == 2.0


def test_a_list_that_was_saved_as_a_workbook_is_known_and_read_as_well(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    examples = [stored(f"i{n}", f"text {n}", weight=2.0) for n in range(3)]
    file = io.StringIO(newline="")
    written(map(Listed, examples), file, version=3, as_json=False)
    book = openpyxl.Workbook()
    for n, cells in enumerate(csv.reader(io.StringIO(file.getvalue(), newline=""))):
        book.active.append([{"2.0": 2, "3": 3}.get(it, it or None) for it in cells])
        if n == 2:
            book.active.cell(3, 4, True)
    assert book.active.cell(1, 4).value == "confirmed"
    book.save(tmp_path / "list.xlsx")
    found, bad = read(tmp_path / "list.xlsx", examples)
    assert (bad, found.said(), found.same) == ([], "1 confirmed", 2)


def test_rows_that_were_removed_from_a_list_stay_as_they_are(tmp_path):
    examples = [stored(f"i{n}") for n in range(5)]
    path = edited(tmp_path, examples[:2], {}, {"label": "bill"})
    found, _ = read(path, examples)
    assert found.counts == {"corrected": 1, "confirmed": 0, "deleted": 0, "added": 0, "changed otherwise": 0}


def test_the_labels_that_a_list_gives_are_counted(tmp_path):
    examples = [stored(f"i{n}") for n in range(4)]
    edits = ({"label": "lcok "}, {"label": "bill"}, {}, {"label": "bill"}, {"id": "", "label": "key"})
    found, _ = read(edited(tmp_path, [*examples, stored("new")], *edits), examples)
    assert found.labels == {"lcok ": 1, "bill": 2, "key": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": ""}, "there is no label"),
        ({"id": "gone"}, "no example with the id 'gone' is there"),
        ({"confirmed": "perhaps"}, "'perhaps' is neither yes nor no"),
        ({"id": "", "delete": "yes"}, "it says delete, but has no id"),
        ({"id": "", "text": ""}, "neither the id of an example nor a text"),
        ({"split": "test"}, "'test' is none of 'train', 'validation'"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_alone(tmp_path, change, reason):
    examples = [stored("i0"), stored("i1")]
    found, bad = read(edited(tmp_path, examples, change, {"label": "bill"}), examples)
    assert [reason in it.reason for it in bad] == [True]
    assert bad[0].line == 2
    assert found.said() == "1 corrected"


def test_what_somebody_changed_in_the_same_way_meanwhile_is_left_out(tmp_path):
    examples = [stored(f"i{n}") for n in range(4)]
    path = edited(
        tmp_path, examples, {"label": "bill"}, {"label": "bill"}, {"delete": "yes"}, {"delete": "yes"}
    )
    found, _ = read(path, examples)
    newest = [stored("i0", label="bill", confirmed=True), stored("i1", label="day"), stored("i2")]
    found.on_top_of({it.id: it for it in newest})
    assert ([it.id for it in found.edits], found.deleted, found.same) == (["i1"], [(4, "i2")], 2)
    assert found.said() == "1 corrected, 1 deleted"


def test_a_list_of_errors_has_what_is_suggested_and_is_ordered_by_what_is_shown(tmp_path):
    errors = [
        LabelError(ExampleRef(f"i{n}", "w", n, "lock"), "bill", probability, 1 - probability)
        for n, probability in enumerate((0.2, 0.05, 0.1))
    ]
    examples = {f"i{n}": stored(f"i{n}", origin=f"a.csv:{n}") for n in range(3)}
    listed = [Listed(it.example, it) for it in probable_errors(errors, examples, ["bill", "lock"])]
    path = write(tmp_path / "fixes.jsonl", listed)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["probability"] for row in rows] == [0.05, 0.1, 0.2]
    assert rows[0] == {
        "id": "i1",
        "text": "a text",
        "label": "lock",
        "suggested": "bill",
        "probability": 0.05,
        "suggested_probability": 0.95,
        "confirmed": "",
        "delete": "",
        "origin": "a.csv:1",
        "version": 3,
    }


def test_what_is_suggested_of_several_labels_is_one_set_for_each_example():
    classes = ["a", "b, c", "d"]
    errors = [
        LabelError(ExampleRef("i", "w", 0, "a"), suggested, probability, 1 - probability)
        for suggested, probability in (("a, b, c", 0.2), ("", 0.1), ("a, d", 0.3))
    ]
    (found,) = probable_errors(errors, {"i": stored("i", labels=("a",))}, classes)
    assert isinstance(found, ProbableError)
    assert (found.suggested, found.probability) == (("b, c", "d"), 0.1)
    assert found.suggested_cell == '["b, c", "d"]'
    assert found.corrected().labels == ("b, c", "d")
    assert found.corrected("d") == graft.Example("a text", id="i", weight=1.0, labels=("d",), confirmed=True)
    assert found.kept().confirmed
    assert probable_errors(errors, {"i": stored("i", labels=("a",), confirmed=True)}, classes) == []
    assert probable_errors(errors, {}, classes) == []


@pytest.mark.parametrize(
    ("columns", "is_one"),
    [
        ("id,text,label,suggested,probability,suggested_probability,confirmed,delete,origin,version", True),
        ("id,label,confirmed,delete,version", True),
        ("ID,Label,Suggested,Confirmed,Version", True),
        ("id,value,confirmed,delete,version", True),
        ("id,text,label", False),
        ("id,text,label,version", False),
        ("text,label,suggested,confirmed,delete,version", False),
    ],
)
def test_a_list_is_known_by_its_columns_and_no_other_file_is_taken_for_one(columns, is_one):
    assert are_of_list(columns.split(",")) is is_one
