"""The rows of a file of answers, without a server: each is the input's row, whatever it holds, in any dialect."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from graft._data_files.answers.asked import AskedFile, Asking
from graft._data_files.answers.writers import JsonWriter, Layout, TableWriter
from graft._data_files.columns import Columns
from graft._data_files.options import Reading
from graft._records.predicting.answer_columns import AnswerColumns

PARTS = [
    *("a", "lock", " ", '"', '""', "'", ",", ";", "\t", "\n", "\r\n", "|", "\\", "\\N", "é", "錠", "1.5"),
    *("\u2028", "\x0b", "\x1c", "\x85", '"x"', ', "y"', '\\"', "\\n", "\ufeff", "=1"),
]
HEADERS = (["id", "text"], ["text", "id"], ["id", "text", "label", "x"], ["text", "id", "text2", "id"])
COLUMNS = AnswerColumns("single_label")
ANSWER = ['the "label", so', 0.5, False, True, 0.25, None]


def answered(source: Path, out: Path, output_format: str) -> None:
    """Writes each row of a file once more, with the same answer."""
    asking = Asking(Columns(input="text", label=""), Reading())
    with AskedFile(source, asking) as data, out.open("wb") as file:
        layout = Layout(data.form, data.form.names, COLUMNS.names)
        writer = (
            JsonWriter(file, layout, listed=False, begun=False)
            if output_format == "jsonl"
            else TableWriter(file, layout, output_format)
        )
        writer.begin()
        for asked in data.rows():
            if asked.asks:
                writer.row(asked, COLUMNS.values(asked.error) if asked.error else ANSWER)
            else:
                writer.between(asked.whole)
        writer.end()


def cell(generator: random.Random, plain: float, parts: list[str]) -> str:
    if generator.random() < plain:
        return generator.choice(["hello world", "my lock is stuck", "12"])
    return "".join(generator.choice(parts) for _ in range(generator.randint(0, 6)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_any_dialect_come_out_as_they_went_in(tmp_path: Path, delimiter: str) -> None:
    name = "tsv" if delimiter == "\t" else "csv"
    source, out = tmp_path / f"in.{name}", tmp_path / f"out.{name}"
    for seed in range(15):
        generator = random.Random(seed)  # noqa: S311
        header, plain = generator.choice(HEADERS), generator.random()
        rows = [[cell(generator, plain, PARTS) for _ in header] for _ in range(generator.choice([3, 30]))]
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(
                file, delimiter=delimiter, quoting=generator.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
            ).writerows([header, *rows])
        answered(source, out, name)
        with out.open(newline="", encoding="utf-8") as file:
            found = list(csv.reader(file, delimiter=delimiter))
        assert [row[: len(header)] for row in found] == [header, *rows], seed
        assert {len(row) for row in found} == {len(header) + len(COLUMNS.names)}, seed


def value(generator: random.Random, depth: int = 0) -> Any:
    match generator.randrange(7):
        case 0:
            return cell(generator, 0.0, [*PARTS, "{", "]", ":", "😀", "\0"])
        case 1:
            return generator.random()
        case 2:
            return generator.randint(-(10**20), 10**20)
        case 3 if depth < 3:
            return [value(generator, depth + 1) for _ in range(generator.randrange(3))]
        case 4 if depth < 3:
            return {
                cell(generator, 0.0, PARTS): value(generator, depth + 1)
                for _ in range(generator.randrange(3))
            }
        case it:
            return (None, True)[it % 2]


@pytest.mark.parametrize("layout", ["lines", "list", "pretty"])
def test_objects_of_any_layout_come_out_as_they_went_in(tmp_path: Path, layout: str) -> None:
    source, out = tmp_path / ("in.jsonl" if layout == "lines" else "in.json"), tmp_path / "out.jsonl"
    for seed in range(15):
        generator = random.Random(seed)  # noqa: S311
        rows = [
            {f"k{at}": value(generator) for at in range(generator.randrange(4))}
            | {"text": cell(generator, 0.3, PARTS)}
            for _ in range(generator.choice([1, 2, 20]))
        ]
        escaped = seed % 2 == 0
        if layout == "lines":
            text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
        else:
            text = json.dumps(rows, ensure_ascii=escaped, indent=2 if layout == "pretty" else None)
        source.write_text(text, encoding="utf-8", newline="")
        answered(source, out, "jsonl")
        found = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
        assert [dict([*row.items()][:-6]) for row in found] == rows, seed
        assert {tuple(row)[-6:] for row in found} == {COLUMNS.names}, seed
