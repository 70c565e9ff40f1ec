"""Data files in the shapes that people have: each is read as a person would read it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import graft

Rows = list[tuple[Any, Any]]
TWO: Rows = [("Where is my card?", "card"), ("The top-up failed", "top_up")]


@dataclass(frozen=True)
class Shape:
    """A file, how it is read, and what a person reads in it."""

    name: str
    content: bytes | Callable[[], bytes]
    rows: Rows = field(default_factory=lambda: TWO)
    options: dict[str, Any] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def written(self, folder: Path) -> Path:
        path = folder / self.name
        (folder / "b.png").write_bytes(PNG)  # what a shape with paths names
        path.write_bytes(self.content if isinstance(self.content, bytes) else self.content())
        return path


def text(content: str, encoding: str = "utf-8") -> bytes:
    return content.encode(encoding)


CSV = "text,label\nWhere is my card?,card\nThe top-up failed,top_up\n"
TSV = CSV.replace(",", "\t")
JSON = [{"text": a, "label": b} for a, b in TWO]


def excel(*rows: list[Any], title: str = "Sheet1", others: dict[str, list[list[Any]]] | None = None) -> bytes:
    book = openpyxl.Workbook()
    sheets = {title: list(rows), **(others or {})}
    book.remove(book.active)
    for name, cells in sheets.items():
        sheet = book.create_sheet(name)
        for row in cells:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata(metadata)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def class_labels(**features: Any) -> dict[str, str]:
    """What the data sets of Hugging Face write into a Parquet file's schema."""
    return {"huggingface": json.dumps({"info": {"features": features}})}


GERMAN = [("Gerät läuft nicht", "Störung"), ("Bitte zurückrufen", "Rückruf")]
PNG = b"\x89PNG\r\n\x1a\n0000"
SAID = [('"Great film"', "pos"), ("so boring", "neg"), ('he said "no"', "neg")]

SHAPES = {
    # Excel
    "excel, unicode text": Shape("a.txt", text("\ufeff" + TSV.replace("\n", "\r\n"), "utf-16-le")),
    "excel, unicode text, big end first": Shape("a.txt", text("\ufeff" + TSV, "utf-16-be")),
    "utf-16 without a mark": Shape("a.csv", text(CSV, "utf-16-le")),
    "utf-16 in cyrillic without a mark": Shape(
        "a.tsv", text("text\tlabel\nГде карта\tкарта\n", "utf-16-le"), [("Где карта", "карта")]
    ),
    "excel, csv utf-8": Shape("a.csv", text("\ufeff" + CSV.replace("\n", "\r\n"))),
    "excel, csv in german": Shape(
        "a.csv",
        text("text;label\r\nGerät läuft nicht;Störung\r\nBitte zurückrufen;Rückruf\r\n", "cp1252"),
        GERMAN,
        {"encoding": "cp1252"},
    ),
    "excel, csv utf-8 in german": Shape(
        "a.csv",
        text("\ufefftext;label\r\nGerät läuft nicht;Störung\r\nBitte zurückrufen;Rückruf\r\n"),
        GERMAN,
    ),
    "excel, its line with the separator": Shape("a.csv", text("sep=;\r\n" + CSV.replace(",", ";"))),
    "excel, csv with empty columns and rows behind": Shape(
        "a.csv", text("text,label,,\nWhere is my card?,card,,\nThe top-up failed,top_up,,\n,,,\n,,,\n")
    ),
    "excel, workbook": Shape("a.xlsx", lambda: excel(["text", "label"], *map(list, TWO))),
    "excel, workbook with notes on another sheet": Shape(
        "a.xlsx",
        lambda: excel(
            ["Notes"],
            ["made in May"],
            title="About",
            others={"Data": [["Label", "Text"], *map(list, [it[::-1] for it in TWO])]},
        ),
    ),
    "excel, numbers and truth as labels": Shape(
        "a.xlsx",
        lambda: excel(["text", "label"], ["a", 3], [7, True], [None, None], ["c", 2.5]),
        [("a", "3"), ("7", "TRUE"), ("c", "2.5")],
    ),
    "excel, rows that end early": Shape(
        "a.xlsx",
        lambda: excel(["label", "text", "note"], ["x", "a", "b"], ["y", "c"], ["x"]),
        [("a", "x"), ("c", "y")],
        refused=[4],
    ),
    "excel, one of several sheets": Shape(
        "a.xlsx",
        lambda: excel(
            ["text", "label"], ["x", "y"], title="2023", others={"2024": [["text", "label"], *map(list, TWO)]}
        ),
        options={"sheet": "2024"},
    ),
    # Delimiters and headers
    "semicolons": Shape("a.csv", text(CSV.replace(",", ";"))),
    "semicolons around quoted cells": Shape(
        "a.csv", text('text;label\n"a; b, c";x\n"d, e";y\n'), [("a; b, c", "x"), ("d, e", "y")]
    ),
    "semicolons with commas in texts": Shape(
        "a.csv", text("text;label\na, b, c;x\nd, e;y\n"), [("a, b, c", "x"), ("d, e", "y")]
    ),
    "pipes": Shape("a.txt", text(CSV.replace(",", "|"))),
    "tabs in a file that is called csv": Shape("a.csv", text(TSV)),
    "commas in a file without an ending": Shape("data", text(CSV)),
    "pandas, with its index": Shape(
        "a.csv", text(",text,label\n0,Where is my card?,card\n1,The top-up failed,top_up\n")
    ),
    "r, write.csv": Shape(
        "a.csv", text('"","text","label"\n"1","Where is my card?","card"\n"2","The top-up failed","top_up"\n')
    ),
    "r, write.table": Shape(
        "a.txt", text('"text" "label"\n"1" "Where is my card?" "card"\n"2" "The top-up failed" "top_up"\n')
    ),
    "r, write.table with tabs, without quotes": Shape(
        "a.tsv", text("text\tlabel\n1\tWhere is my card?\tcard\n2\tThe top-up failed\ttop_up\n")
    ),
    "a delimiter behind the last cell": Shape(
        "a.csv", text("text,label\nWhere is my card?,card,\nThe top-up failed,top_up,\n")
    ),
    "headers of other case and with spaces": Shape(
        "a.csv", text(CSV.replace("text,label", " Text , LABEL "))
    ),
    "two headers of one name that nobody asks for": Shape(
        "a.csv", text("text,note,note,label\na,1,2,x\n"), [("a", "x")]
    ),
    "no header": Shape("a.csv", text(CSV.split("\n", 1)[1]), options={"columns": ["text", "label"]}),
    "no header, and columns that nobody needs": Shape(
        "a.tsv",
        text("1\ta\t9\tx\n2\tb\t9\ty\n"),
        [("a", "x"), ("b", "y")],
        {"columns": ["", "text", "", "label"]},
    ),
    # Line ends
    "line ends of windows": Shape("a.csv", text(CSV.replace("\n", "\r\n"))),
    "line ends of an old mac": Shape("a.csv", text(CSV.replace("\n", "\r"))),
    "empty lines, and the end of a file in DOS": Shape(
        "a.csv", text("\n" + CSV.replace("\n", "\r\n\r\n") + "\x1a")
    ),
    "no end of the last line": Shape("a.csv", text(CSV.rstrip("\n"))),
    "carriage returns within texts": Shape(
        "a.tsv", text("text\tlabel\na\rb\tx\nc\td\n"), [("a\rb", "x"), ("c", "d")]
    ),
    # Quotes
    "cells with line breaks, quotes and commas": Shape(
        "a.csv", text('text,label\n"a, ""b""\nc",x\n"d\n\ne",y\n'), [('a, "b"\nc', "x"), ("d\n\ne", "y")]
    ),
    "quotes within cells": Shape(
        "a.csv", text('text,label\n5" pipe,x\na "b" c,y\n'), [('5" pipe', "x"), ('a "b" c', "y")]
    ),
    "smart quotes": Shape(
        "a.csv",
        text("text,label\n“Great” – he’d say,x\n", "cp1252"),
        [("“Great” – he’d say", "x")],
        {"encoding": "cp1252"},
    ),
    "single quotes around cells": Shape("a.csv", text("'text','label'\n'a, b','x'\n"), [("a, b", "x")]),
    "backslashes before quotes": Shape(
        "a.csv",
        text('text,label\n"he said \\"no\\", ok",x\n"c:\\\\d \\"e\\"",y\nplain,z\n'),
        [('he said "no", ok', "x"), ('c:\\d "e"', "y"), ("plain", "z")],
    ),
    "backslashes before quotes at both ends": Shape(
        "a.csv",
        text('text,label\n"\\"no\\"",x\n"a\\"",y\nb,z\n"c \\"d\\", e",x\n'),
        [('"no"', "x"), ('a"', "y"), ("b", "z"), ('c "d", e', "x")],
    ),
    "tsv, quotes that are characters": Shape(
        "a.tsv",
        text(
            'text\tlabel\nfine here\ta\n"this movie is great\tpos\nso boring\tneg\n'
            'and then he left"\tneg\nfine again\tb\n'
        ),
        [
            ("fine here", "a"),
            ('"this movie is great', "pos"),
            ("so boring", "neg"),
            ('and then he left"', "neg"),
            ("fine again", "b"),
        ],
    ),
    "tsv, a quote that nothing closes": Shape(
        "a.tsv", text('text\tlabel\n"oh\tpos\nno\tneg\n'), [('"oh', "pos"), ("no", "neg")]
    ),
    "tsv, some texts in quotes": Shape(
        "a.tsv", text('text\tlabel\n"Great film"\tpos\nso boring\tneg\nhe said "no"\tneg\n'), SAID
    ),
    "tsv, quotes at both ends of a text with others": Shape(
        "a.tsv", text('text\tlabel\n"A" or "B"\tx\nC\ty\n'), [('"A" or "B"', "x"), ("C", "y")]
    ),
    "tsv, label first and quotes that are characters": Shape(
        "a.tsv",
        text('label\ttext\npos\t"great movie\nneg\tbad one\npos\tloved it"\n'),
        [('"great movie', "pos"), ("bad one", "neg"), ('loved it"', "pos")],
    ),
    "tsv from a spreadsheet, quoted where it must be": Shape(
        "a.tsv",
        text('text\tlabel\n"a ""b"" c"\tx\n"d\te"\ty\n"f\ng"\tz\nplain\tx\n'),
        [('a "b" c', "x"), ("d\te", "y"), ("f\ng", "z"), ("plain", "x")],
    ),
    "tsv, text last, with line breaks": Shape(
        "a.tsv", text('label\ttext\nx\t"a\nb"\ny\tc\n'), [("a\nb", "x"), ("c", "y")]
    ),
    "tsv, all cells quoted": Shape(
        "a.tsv", text('"text"\t"label"\n"a"\t"x"\n"b"\t"y"\n'), [("a", "x"), ("b", "y")]
    ),
    "tsv, said to be without quotes": Shape(
        "a.tsv", text('text\tlabel\n"a"\t"x"\n'), [('"a"', '"x"')], {"quote": "none"}
    ),
    # Databases
    "mysql, escaped tabs, line ends and NULL": Shape(
        "a.tsv",
        text("id\ttext\tlabel\n1\ta\\\tb\tx\n2\tc\\\nd\ty\n\\N\te\\\\f\tx\n"),
        [("a\tb", "x"), ("c\nd", "y"), ("e\\f", "x")],
        {"id": "id"},
    ),
    "postgres, copy": Shape(
        "a.tsv", text("text\tlabel\tnote\na\\nb\tx\t\\N\nc\ty\tn\n"), [("a\nb", "x"), ("c", "y")]
    ),
    # Numbers
    "decimal commas": Shape(
        "a.csv",
        text("text;hours\na;1,5\nb;1.234,25\nc;7\n"),
        [("a", 1.5), ("b", 1234.25), ("c", 7.0)],
        {"value": "hours"},
    ),
    "decimal points": Shape(
        "a.csv", text("text;hours\na;1.5\nb;1234.25\n"), [("a", 1.5), ("b", 1234.25)], {"value": "hours"}
    ),
    "decimal commas that are said": Shape(
        "a.csv", text("text;hours\na;1,500\n"), [("a", 1.5)], {"value": "hours", "decimal": ","}
    ),
    # Labels
    "columns of 0 and 1": Shape(
        "a.csv",
        text("text,toxic,insult\na,1,0\nb,0,0\nc,1.0,True\n"),
        [("a", ("toxic",)), ("b", ()), ("c", ("toxic", "insult"))],
        {"labels_from": ["toxic", "insult"]},
    ),
    # JSON
    "json lines": Shape("a.jsonl", text("\n".join(map(json.dumps, JSON)))),
    "json lines in a file that is called json, with a mark": Shape(
        "a.json", text("\ufeff" + "\r\n".join(map(json.dumps, JSON)))
    ),
    "a json list on one line": Shape("a.json", text(json.dumps(JSON))),
    "a json list on many lines": Shape("a.json", text(json.dumps(JSON, indent=2))),
    "a json list, an object a line": Shape(
        "a.json", text("[\n" + ",\n".join(map(json.dumps, JSON)) + "\n]\n")
    ),
    "json objects of many lines each": Shape(
        "a.json", text("\n".join(json.dumps(it, indent=1) for it in JSON))
    ),
    "a json object that holds the list": Shape(
        "a.json", text(json.dumps({"version": "1", "data": JSON}, indent=1))
    ),
    "a json object that holds the list, on one line": Shape(
        "a.json", text(json.dumps({"version": "1", "data": JSON}))
    ),
    "values within others": Shape(
        "a.jsonl",
        text("\n".join(json.dumps({"data": {"text": a}, "result": [{"choice": b}]}) for a, b in TWO)),
        options={"input": "data.text", "label": "result.0.choice"},
    ),
    "an export of an annotation tool": Shape(
        "a.json",
        text(
            json.dumps(
                [
                    {
                        "id": 1,
                        "data": {"text": "a"},
                        "annotations": [{"result": [{"value": {"choices": ["x"]}}]}],
                    }
                ],
                indent=2,
            )
        ),
        [("a", ("x",))],
        {"input": "data.text", "label": "annotations.0.result.0.value.choices"},
    ),
    "braces and quotes within json texts": Shape(
        "a.json",
        text(json.dumps([{"text": 'a } ] , " \\', "label": "[{"}, {"text": "b", "label": "y"}])),
        [('a } ] , " \\', "[{"), ("b", "y")],
    ),
    # Parquet
    "parquet": Shape(
        "a.parquet", lambda: parquet({"text": [a for a, _ in TWO], "label": [b for _, b in TWO]})
    ),
    "parquet under another name": Shape(
        "0000", lambda: parquet({"text": [a for a, _ in TWO], "label": [b for _, b in TWO]})
    ),
    "parquet with a dictionary": Shape(
        "a.parquet",
        lambda: parquet(
            {
                "text": pa.array([a for a, _ in TWO]).cast(pa.large_string()),
                "label": pa.array([b for _, b in TWO]).dictionary_encode(),
            }
        ),
    ),
    "parquet with numbers of classes": Shape(
        "a.parquet",
        lambda: parquet(
            {"text": [a for a, _ in TWO], "label": [1, 0]},
            class_labels(label={"names": ["top_up", "card"], "_type": "ClassLabel"}),
        ),
    ),
    "parquet with lists of classes": Shape(
        "a.parquet",
        lambda: parquet(
            {"text": ["a", "b"], "label": [[0, 1], []]},
            class_labels(
                label={"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "Sequence"}
            ),
        ),
        [("a", ("x", "y")), ("b", ())],
    ),
    "parquet with pictures": Shape(
        "a.parquet",
        lambda: parquet(
            {
                "image": [{"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "b.png"}],
                "label": ["x", "y"],
            }
        ),
        [(PNG, "x"), ("b.png", "y")],
        {"input": "image"},
    ),
    # Compressed
    "gzip": Shape("a.csv.gz", gzip.compress(text(CSV))),
    "gzip that is not called so": Shape("a.csv", gzip.compress(text(CSV))),
    "gzip of parquet": Shape(
        "a.parquet.gz",
        lambda: gzip.compress(parquet({"text": [a for a, _ in TWO], "label": [b for _, b in TWO]})),
    ),
    "what is called gzip and is none": Shape("a.tsv.gz", text(TSV)),
    "bzip2": Shape("a.csv.bz2", bz2.compress(text(CSV))),
    "xz": Shape("a.csv.xz", lzma.compress(text(CSV))),
    # Bad rows
    "short and long rows": Shape("a.csv", text(CSV + "only a text\na,b,c\n"), refused=[4, 5]),
    "a row in another encoding": Shape(
        "a.csv",
        text(CSV + "é,x\n") + b"caf\xe9,x\n" + text("ß,y\n"),
        [*TWO, ("é", "x"), ("ß", "y")],
        refused=[5],
    ),
    "a row with a NUL": Shape("a.csv", text(CSV + "a\0b,x\n"), refused=[4]),
    "a quote too many": Shape(
        "a.csv", text(CSV + '"a,x\nb,y\n"c, d",z\n'), [*TWO, ("b", "y"), ("c, d", "z")], refused=[4]
    ),
    "a quote that is not doubled": Shape(
        "a.csv", text(CSV + '"a "b" c",x\nd,y\n'), [*TWO, ("d", "y")], refused=[4]
    ),
    "a quote that is not doubled, in a text of several lines": Shape(
        "a.csv",
        text(CSV + '"Dear all\nhe said "no" again\nbye",card\nd,y\n'),
        [*TWO, ("d", "y")],
        refused=[4, 5, 6],
    ),
    "quotes that would join rows with known labels": Shape(
        "a.csv",
        text('text,label\na,pos\nb,neg\nc,pos\n"great,pos\nboring,neg\nleft",neg\nd,neg\n'),
        [("a", "pos"), ("b", "neg"), ("c", "pos"), ("d", "neg")],
        refused=[5],
    ),
    "files that were joined": Shape(
        "a.csv", text(CSV + "\ufefftext,label\nd,x\ntext,label\ntext,x\n"), [*TWO, ("d", "x"), ("text", "x")]
    ),
    "spaces between commas and quotes": Shape(
        "a.csv",
        text('"text", "label"\n"a, b", "x y"\nc, "z"\n"d ""e""", "z"\n"f",z\n'),
        [("a, b", "x y"), ("c", "z"), ('d "e"', "z"), ("f", "z")],
    ),
    "quotes within texts behind commas": Shape(
        "a.csv",
        text('label,text\nx, "a" is a letter\ny, "b" is, too\nx,c\n'),
        [(' "a" is a letter', "x"), ("c", "x")],
        refused=[3],
    ),
    "quotes that would join rows of numbers": Shape(
        "a.csv",
        text('text,label\na,0.5\nb,1\n"great,2.25\nboring,-3\nleft",4\nd,1e3\n'),
        [("a", 0.5), ("b", 1.0), ("d", 1000.0)],
        {"value": "label"},
        refused=[4],
    ),
    "quotes that would join labels": Shape(
        "a.csv",
        text('label,text\npos,a\nneg,b\npos,c\nneg,d\n"pos,great\nneg,boring\nneg",left\nneg,e\n'),
        [("a", "pos"), ("b", "neg"), ("c", "pos"), ("d", "neg"), ("e", "neg")],
        refused=[6],
    ),
    "a broken text of several lines, one of which looks like a row": Shape(
        "a.csv",
        text('text,label\na,pos\nb,neg\nc,pos\nd,neg\n"he "said" this\nand, more\nbye",pos\ne,neg\n'),
        [("a", "pos"), ("b", "neg"), ("c", "pos"), ("d", "neg"), ("e", "neg")],
        refused=[6, 7, 8],
    ),
    "tsv with doubled quotes, of which one row is broken": Shape(
        "a.tsv",
        text('text\tlabel\n"a ""b"" c"\tx\n"d ""e"""\ty\n"f\ng ""h"""\tx\n"i "j" k"\ty\nl\tx\n'),
        [('a "b" c', "x"), ('d "e"', "y"), ('f\ng "h"', "x"), ("l", "x")],
        refused=[6],
    ),
    "a quote that would join many rows": Shape(
        "a.csv",
        text('text,label\na,pos\nb,neg\n"c,pos\nd,neg\ne\nf,pos\n"g, h",neg\ni,pos\n'),
        [("a", "pos"), ("b", "neg"), ("d", "neg"), ("f", "pos"), ("g, h", "neg"), ("i", "pos")],
        refused=[4, 6],
    ),
    "bad objects within a json list": Shape(
        "a.json",
        text('[\n{"text": "a", "label": "x"},\n{"text": },\n7,\n{"text": "b", "label": "y"}\n]'),
        [("a", "x"), ("b", "y")],
        refused=[3, 4],
    ),
    "a byte in another encoding within a json list": Shape(
        "a.json",
        b'[{"text": "a", "label": "x"},\n{"text": "caf\xe9", "label": "x"},\n{"text": "\xc3\xa9", "label": "y"}]',
        [("a", "x"), ("é", "y")],
        refused=[2],
    ),
    "half a character in json": Shape(
        "a.jsonl",
        text('{"text": "a", "label": "x"}\n{"text": "\\ud83d", "label": "y"}\n'),
        [("a", "x")],
        refused=[2],
    ),
}


def target(example: graft.Example) -> Any:
    return next(it for it in (example.value, example.labels, example.label) if it is not None)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_file_is_read_as_a_person_would_read_it(tmp_path: Path, shape: Shape) -> None:
    refused: list[int] = []
    found = graft.read_examples(
        shape.written(tmp_path), on_error=lambda error: refused.append(error.line), **shape.options
    )
    rows = [(it.input.name if isinstance(it.input, Path) else it.input, target(it)) for it in found]
    assert rows == shape.rows
    assert refused == shape.refused


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 30
