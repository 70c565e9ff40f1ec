"""Data files: what is read, and what is said about those that cannot be."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest

import graft
from graft._data_files.files import DataFile


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(path: Path, **columns: str) -> list[tuple[str, str | None]]:
    return [(example.input, example.label) for example in graft.read_examples(path, **columns)]


def test_csv_with_quotes_line_breaks_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", '\ufefftext,label\n"a, ""b""\nc",x\n\nd,y\n')
    assert pairs(path) == [('a, "b"\nc', "x"), ("d", "y")]


def test_tsv_and_json_lines(tmp_path: Path) -> None:
    assert pairs(written(tmp_path / "a.tsv", "text\tlabel\na\tx\n")) == [("a", "x")]
    lines = '{"text": "a", "label": "x"}\n\n{"text": "b\\u00e9", "label": 7}\n'
    assert pairs(written(tmp_path / "a.jsonl", lines)) == [("a", "x"), ("bé", "7")]


def test_gzip_behind_any_format(tmp_path: Path) -> None:
    assert pairs(written(tmp_path / "a.csv.gz", gzip.compress(b"text,label\na,x\n"))) == [("a", "x")]
    jsonl = gzip.compress(b'{"text": "a", "label": "x"}\n')
    assert pairs(written(tmp_path / "a.JSONL.gz", jsonl)) == [("a", "x")]


def test_another_delimiter(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "text;label\na,b;x\n")
    assert [e.input for e in graft.read_examples(path, delimiter=";")] == ["a,b"]


def test_every_column_of_an_example(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "q,a,n,w,part,with,who\nhi,x,1,0.5,Train,g,s\nho,y,2,,,,\n")
    first, second = graft.read_examples(
        path, input="q", label="a", id="n", weight="w", split="part", group="with", subject="who"
    )
    assert first == graft.Example("hi", "x", id="1", weight=0.5, split="train", group="g", subject="s")
    assert second == graft.Example("ho", "y", id="2")


def test_standard_input_is_json_lines() -> None:
    with DataFile("-", source=io.BytesIO(b'{"text": "a"}\n{"text": "b"}\n')) as data:
        assert [(row.line, row.values["text"]) for row in data.rows()] == [(1, "a"), (2, "b")]


def test_rows_know_the_line_on_which_they_begin(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text,label\n"a\nb\nc",x\nd,y\n')
    with DataFile(path) as data:
        assert [row.line for row in data.rows()] == [2, 5]


def test_a_file_is_read_as_it_is_used(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\n" + "some words,x\n" * 100_000)
    with DataFile(path) as data:
        next(data.rows())
        assert 0 < data.position < data.size / 4


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.csv",
            "txt,label\na,x\n",
            "a.csv: no column 'text'; the columns are: txt, label; .* with --input txt",
        ),
        ("a.jsonl", '{"label": "x"}\n', "a.jsonl, line 1: no column 'text'; the columns are: label"),
        ("a.csv", "text,label\na,b,x\n", "a.csv, line 2: 3 cells, but the header has 2 columns"),
        ("a.csv", "", "a.csv: empty; the first line must name the columns"),
        (
            "a.csv",
            "text,text,label\na,b,x\n",
            "2 columns are named 'text', so that --input text can be any of them",
        ),
        ("a.csv", b"text,label\ncaf\xe9,x\n", "a.csv, line 2: byte 0xe9 is not .* --encoding cp1252"),
        ("a.csv", 'text,label\n"a,x\n', "a.csv, line 2: its quotes do not balance.*--quote none"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "a.jsonl, line 2: not JSON .*at character"),
        ("a.jsonl", '["a", "x"]\n', "a.jsonl, line 1: .* is not a JSON object"),
        ("a.jsonl", '{"text": 3, "label": "x"}\n', "line 1, column 'text': 3 is not a text"),
        (
            "a.jsonl",
            '{"text": "a", "label": [["x"]]}\n',
            r"line 1, column 'label': a label must be .*\['x'\]",
        ),
        ("a.csv.gz", gzip.compress(b"text,label\na,x\n", mtime=0)[:-6], "not a whole compressed file"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
    ],
)
def test_a_bad_file_is_told_where_and_what(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    with pytest.raises(graft.DataError, match=says):
        list(graft.read_examples(written(tmp_path / name, content)))


def test_bad_numbers_and_splits_name_line_and_column(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label,w\na,x,1\nb,y,much\n")
    with pytest.raises(graft.DataError, match=r"line 3, column 'w': 'much' is not a number"):
        list(graft.read_examples(path, weight="w"))
    path = written(tmp_path / "b.csv", "text,label,part\na,x,dev\n")
    with pytest.raises(graft.DataError, match=r"column 'part': 'dev' is none of 'train', 'validation'"):
        list(graft.read_examples(path, split="part"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(graft.DataError, match="No such file or directory"):
        list(graft.read_examples(tmp_path / "none.csv"))


def refused(path: Path, **options: Any) -> tuple[list[str | None], list[int]]:
    """The labels of the rows that are read, and the lines of those that are not."""
    bad: list[int] = []
    examples = graft.read_examples(path, on_error=lambda error: bad.append(error.line), **options)
    return [example.label for example in examples], bad


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", "text,label,w\na,x,1\nb\nc,y,much\nd,e,f,g\ne,z,2\n", [3, 4, 5]),
        (
            "a.jsonl",
            (
                '{"text": "a", "label": "x", "w": 1}\n{"text": \n[1]\n{"label": "y"}\n{"text": 3, "label": "y"}\n'
                '{"text": "e", "label": "z", "w": null}\n'
            ),
            [2, 3, 4, 5],
        ),
    ],
)
def test_a_bad_row_is_refused_alone(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    assert refused(written(tmp_path / name, content), weight="w") == (["x", "z"], lines)


def test_a_file_without_one_good_row_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\na\nb\n")
    with pytest.raises(graft.DataError, match=r"line 2: 1 cells.*\(none of the 2 rows can be used\)"):
        refused(path)
