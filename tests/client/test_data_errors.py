"""Data files that cannot be read as they are: the error names what is wrong, and the option or the way out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

import graft
from graft._data_files.columns import Columns
from graft._data_files.content import HEAD_BYTES
from graft._data_files.files import DataFile
from graft._data_files.reader import numbered_examples

CSV = "text,label\na,x\nb,y\n"
TEXT_AND_LABEL = Columns(input="text", label="label")


def zipped(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def workbook(**sheets: list[list[str]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def in_cp1252(rows: int) -> bytes:
    return b"text;label\n" + b"".join(
        f"Gerät läuft nicht {i};Störung\n".encode("cp1252") for i in range(rows)
    )


ASKED = [["text", "label"], ["a", "x"]]

ERRORS: dict[str, tuple[str, bytes | Callable[[], bytes], dict[str, Any], str]] = {
    "no header": ("a.csv", b"where is it?,x\nit failed,y\n", {}, r"no column 'text'; .*--columns A,B"),
    "a header with a quote too many": (
        "a.csv",
        b'"text,label\na,x\nb,y\n',
        {},
        "line 1: its quotes do not balance: .*; this line must name the columns",
    ),
    "another name": ("a.csv", b"texts,label\na,x\n", {}, "the columns are: texts, label; .*--input texts"),
    "columns of 0 and 1": (
        "a.csv",
        b"text,n,toxic,insult\na,7,0,1\n",
        {},
        "toxic, insult hold .*--labels-from toxic,insult",
    ),
    "two columns of one name": ("a.csv", b"text,label,label\na,x,y\n", {}, "2 columns are named 'label'"),
    "too few names given": (
        "a.csv",
        b"1,a,x\n2,b,y\n",
        {"columns": ["text", "label"]},
        "3 cells, but --columns names 2",
    ),
    "an unknown encoding": (
        "a.csv",
        CSV.encode(),
        {"encoding": "windows1252x"},
        "no encoding that is known; did you mean windows_1252",
    ),
    "what is no encoding of text": (
        "a.csv",
        CSV.encode(),
        {"encoding": "base64"},
        "no encoding that is known",
    ),
    "cp1252": ("a.csv", in_cp1252(30), {}, "line 2: byte 0xe4 is not UTF-8.*--encoding cp1252.*Gerät läuft"),
    "a header in cp1252": (
        "a.csv",
        "Größe,text,label\n1,a,x\n".encode("cp1252"),
        {},
        "line 1: byte .*--encoding cp1252",
    ),
    "cyrillic": (
        "a.csv",
        b"text,label\n" + "Где моя карта,карта\n".encode("cp1251") * 5,
        {},
        "--encoding cp1251.*Где",
    ),
    "japanese": (
        "a.csv",
        b"text,label\n" + "カードはどこですか,カード\n".encode("shift_jis") * 5,
        {},
        "--encoding shift_jis.*カード",
    ),
    "chinese": (
        "a.csv",
        b"text,label\n" + "我的卡在哪里呢请问,卡片\n".encode("gb18030") * 5,
        {},
        "--encoding gb18030.*我的卡",
    ),
    "an old mac": (
        "a.csv",
        b"text,label\n" + "où est ma carte bleue à présent ?,été\n".encode("mac_roman") * 5,
        {},
        "--encoding mac_roman.*où",
    ),
    "an old excel file": (
        "a.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600,
        {},
        r"old format \(.xls\).*save it as .xlsx",
    ),
    "a zip archive": ("a.csv", zipped(train_csv=CSV), {}, "a zip archive; unpack it"),
    "an opendocument file": (
        "a.ods",
        zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"),
        {},
        "OpenDocument.*as .xlsx or as CSV",
    ),
    "zstandard": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"\0" * 60, {}, "Zstandard; unpack it with unzstd"),
    "half a bzip2 file": ("a.csv.bz2", bz2.compress(CSV.encode())[:-12], {}, "not a whole compressed file"),
    "gzip that changed": (
        "a.csv.gz",
        gzip.compress(CSV.encode() * 99, mtime=0)[:-6] + b"123456",
        {},
        "not a whole compressed file",
    ),
    "no parquet": ("a.parquet", CSV.encode(), {}, "not a Parquet file"),
    "no excel": ("a.xlsx", CSV.encode(), {}, "not an Excel file"),
    "no such sheet": (
        "a.xlsx",
        lambda: workbook(one=ASKED),
        {"sheet": "two"},
        "no sheet 'two'; the sheets are: one",
    ),
    "sheets alike": (
        "a.xlsx",
        lambda: workbook(one=ASKED, two=ASKED),
        {},
        r"several sheets .*\(one, two\).*--sheet",
    ),
    "an empty sheet": ("a.xlsx", lambda: workbook(one=[]), {}, "'one' is empty"),
    "pandas' columns in json": (
        "a.json",
        json.dumps({"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}).encode(),
        {},
        "the columns text, label; .*orient='records', lines=True",
    ),
    "several lists in json": (
        "a.json",
        json.dumps({"train": [{"text": "a"}], "test": [{"text": "b"}]}).encode(),
        {},
        r"several lists \(train, test\)",
    ),
    "columns of lists in json": (
        "a.json",
        json.dumps({"text": ["a", "b"], "label": ["x", "y"]}).encode(),
        {},
        "the columns text, label; .*orient='records', lines=True",
    ),
    "half a json list": (
        "a.json",
        b'[{"text": "a", "label": "x"},\n{"text": "b", ',
        {},
        "the list does not end",
    ),
    "a comma that may be a decimal one": (
        "a.csv",
        b"text;n\na;1,500\n",
        {"value": "n"},
        "'1,500' is not a number; .*--decimal ,",
    ),
    "a point among decimal commas": (
        "a.csv",
        b"text;n\na;1,5\nb;2,25\nc;3.7\n",
        {"value": "n"},
        "'3.7' is not a number with a decimal comma",
    ),
    "neither 0 nor 1": (
        "a.csv",
        b"text,x,y\na,1,2\n",
        {"labels_from": ["x", "y"]},
        "column 'y': '2' is neither 1",
    ),
    "cells that need quotes": (
        "a.csv",
        b"text,label\na, b,x\n",
        {},
        "3 cells, but the header has 2 columns.*quote cells that contain ','",
    ),
    "no picture": (
        "a.jsonl",
        b'{"image": {"bytes": null, "path": null}, "label": "x"}\n',
        {"input": "image"},
        "neither the content nor the path",
    ),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS.keys())
def test_the_error_names_the_reason_and_the_way_out(
    tmp_path: Path, case: tuple[str, bytes | Callable[[], bytes], dict[str, Any], str]
) -> None:
    name, content, options, says = case
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content())
    with pytest.raises(graft.DataError, match=says):
        list(graft.read_examples(path, **options))


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("a.xlsx", "openpyxl", "excel"), ("a.parquet", "pyarrow", "parquet")]
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    path = tmp_path / name
    path.write_bytes(workbook(one=ASKED) if extra == "excel" else b"PAR1" * 9)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(graft.DataError, match=rf"pip install 'graft-serve\[{extra}\]'"):
        list(graft.read_examples(path))


def test_an_archive_of_files_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
    with pytest.raises(graft.DataError):
        list(graft.read_examples(path))


def piped(content: bytes, **options: Any) -> list[graft.Example]:
    """What is read from a pipe, in which there is no going back."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as end:
        end.write(content)  # fewer bytes than a pipe holds
    with (
        os.fdopen(read, "rb") as source,
        DataFile("-", source=source, columns=TEXT_AND_LABEL, **options) as data,
    ):
        return [it for _, it in numbered_examples(data, TEXT_AND_LABEL, lambda _: None)]


@pytest.mark.parametrize(
    "content",
    [
        CSV.encode(),
        CSV.replace(",", ";").encode(),
        CSV.replace(",", "\t").encode("utf-16"),
        gzip.compress(CSV.encode()),
        b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n',
        b'[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]',
        workbook(one=[["text", "label"], ["a", "x"], ["b", "y"]]),
    ],
    ids=["commas", "semicolons", "UTF-16", "gzip", "JSON lines", "a JSON list", "Excel"],
)
def test_standard_input_is_what_its_content_is(content: bytes) -> None:
    assert [(it.input, it.label) for it in piped(content)] == [("a", "x"), ("b", "y")]


def test_errors_in_excel_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(workbook(data=[["text", "label"], ["a", "x"], ["b", "#N/A"], ["#REF!", "x"]]))
    bad: list[graft.RowError] = []
    found = [(it.input, it.label) for it in graft.read_examples(path, on_error=bad.append)]
    assert found == [("a", "x"), ("b", None)]
    assert [(it.line, it.reason) for it in bad] == [(4, "column 'text': there is no text")]


def test_a_quote_far_behind_the_beginning_joins_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    rows = [f"some words of text number {number}\tl{number % 3}" for number in range(40_000)]
    rows[-10:-7] = ['"it began\tl0', "in the middle\tl1", 'and ended"\tl2']
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    assert path.stat().st_size > HEAD_BYTES
    found = [it.input for it in graft.read_examples(path)]
    assert len(found) == len(rows)
    assert found[-10:-7] == ['"it began', "in the middle", 'and ended"']


def test_a_quote_joins_no_rows_of_a_label_that_the_beginning_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"text {number},{'a' if number < 2_000 else 'b'}" for number in range(3_000)]
    rows[2_500:2_503] = ['"it began,b', "in the middle,b", 'and ended",b']
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    bad: list[graft.RowError] = []
    found = [it.label for it in graft.read_examples(path, on_error=bad.append)]
    assert (found.count("a"), found.count("b")) == (2_000, 997)
    assert [it.line for it in bad] == [2_502]
    assert "lines 2502 to 2504" in bad[0].reason


def test_a_quote_that_nothing_closes_costs_one_row_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"some words of text number {number},l{number % 3}" for number in range(30_000)]
    rows[7] = '"' + rows[7]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    bad: list[int] = []
    assert sum(1 for _ in graft.read_examples(path, on_error=lambda it: bad.append(it.line))) == len(rows) - 1
    assert bad == [9]


def test_a_json_list_on_one_line_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": f"text {i} \\ {{", "label": f"l{i % 3}"} for i in range(50_000)]))
    with DataFile(path) as data:
        rows = data.rows()
        assert next(rows).line == 1
        assert data.position < data.size / 4
        assert sum(1 for _ in rows) == 49_999
        assert data.unit == "row"
