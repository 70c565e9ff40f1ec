"""`graft predict` of a file: every row has its row, in order and as it was, with its answer behind it."""

from __future__ import annotations

import csv
import decimal
import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import graft
from graft._client.sync import Client
from graft.cli import main

ANSWERS = ["label", "probability", "abstained", "truncated", "novelty", "error"]

NULL = "\\N"
"""What databases write for a missing value."""


@pytest.fixture
def predict(server: Any, few_model: str, tmp_path: Path) -> Callable[..., int]:
    """Runs `graft predict` of the model of two labels, in a folder of its own."""

    def run(*arguments: str | Path) -> int:
        return main(["predict", few_model, *map(str, arguments), "--server", server.target])

    return run


def rows_of(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> list[list[str]]:
    with path.open(encoding=encoding, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def awkward_texts(count: int) -> list[str]:
    """Texts that hurt files: blank, with quotes, tabs, line breaks, too long, and others."""
    generator = random.Random(5)  # noqa: S311
    kinds = [
        "the lock is stuck",
        "",
        "   ",
        'she said "the lock, is" stuck',
        '"',
        "a\ttab",
        "two\nlines",
        "windows\r\nlines",
        "line\u2028separator\x85and\x0bmore",
        "007",
        "ünïcödé 錠",
        "\ufeffmark",
        "=1+1",
        "back\\slash \\N \\t",
        NULL,
        "nan",
        "x" * 1_000_001,
        "'single' quotes; semicolons | bars",
    ]
    return [kinds[at] if at < len(kinds) else f"{generator.choice(kinds[:-2])} {at}" for at in range(count)]


def table(path: Path, count: int, **dialect: Any) -> list[list[str]]:
    """Writes a table of awkward rows, and returns it."""
    rows = [
        ["id", "text", "label", "note", "note", ""],
        *([f"{at:05}", text, f"l{at}", "1.00", ' "n" ', "x"] for at, text in enumerate(awkward_texts(count))),
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **dialect).writerows(rows)
    return rows


def answered_alone(target: str, model: str, texts: list[str]) -> list[graft.Prediction | None]:
    """What the model says of each text; None where it is refused."""
    with graft.Client(target) as client:
        found = client.predict(model, texts)
    return [None if it.error else it for it in found]


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_row_of_a_table_has_its_row(
    predict: Callable[..., int], server: Any, few_model: str, tmp_path: Path, count: int
) -> None:
    rows = table(tmp_path / "in.csv", count)
    expected = answered_alone(server.target, few_model, [row[1] for row in rows[1:]])
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 1  # blank texts fail
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == [*rows[0], "predicted_label", *ANSWERS[1:]]
    assert [row[:6] for row in found] == rows
    for row, answer in zip(found[1:], expected, strict=True):
        if answer is None or row[1] == NULL:
            assert row[6:11] == ["", "", "", "", ""]
            assert row[11].startswith("column 'text': there is no text" if row[1] == NULL else "the text is")
        else:
            assert (row[6], row[11]) == (answer.label, "")
            assert answer.probability is not None
            assert float(row[7]) == pytest.approx(answer.probability, rel=1e-5)
    assert not list(tmp_path.glob("*.part*"))


def test_a_table_of_tabs_and_json_lines_have_every_row_too(
    predict: Callable[..., int], tmp_path: Path
) -> None:
    rows = table(tmp_path / "in.tsv", 60, delimiter="\t", quoting=csv.QUOTE_ALL)
    assert predict(tmp_path / "in.tsv", "--output", tmp_path / "out.tsv", "--quote", '"') == 1
    assert [row[:6] for row in rows_of(tmp_path / "out.tsv", "\t")] == rows
    objects = [{"text": text, "n": at, "deep": {"a": [1.50]}} for at, text in enumerate(awkward_texts(60))]
    lines = [json.dumps(it, ensure_ascii=at % 2 == 0) for at, it in enumerate(objects)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "no json", '{"other": 1e400}']), "utf-8")
    assert predict(tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl") == 1
    written = (tmp_path / "out.jsonl").read_text("utf-8").removesuffix("\n").split("\n")
    assert len(written) == 62
    for line, before in zip(written, lines, strict=False):
        assert line.startswith(f"{before[:-1]}, ")  # as it stands in the input
        assert [*json.loads(line)][3:] == ANSWERS
    assert json.loads(written[60])["row"] == "no json"
    assert "not JSON" in json.loads(written[60])["error"]
    assert written[61].startswith('{"other": 1e400, "label": null')
    assert "no column 'text'" in json.loads(written[61])["error"]


def test_an_object_with_the_input_is_a_row_whatever_it_holds(
    predict: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "the lock", "spans": [{"text": "lock"}, {"text": "the"}]}\n')
    assert predict(tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl") == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["text"], row["label"], len(row["spans"])) == ("the lock", "lock", 2)


def test_a_bad_row_keeps_its_place(predict: Callable[..., int], tmp_path: Path) -> None:
    text = 'id,text,n\n1,the lock,1\n2,the bill\n3,the bill, it,3\n\n4,a "quote" inside,4\n,,\n5,the lock,5'
    (tmp_path / "in.csv").write_text(text)
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 1
    written = (tmp_path / "out.csv").read_text().split("\n")
    assert written[4] == ""  # an empty line is no row, and stays
    found = rows_of(tmp_path / "out.csv")
    assert [row[:3] for row in found if row] == [
        ["id", "text", "n"],
        ["1", "the lock", "1"],
        ["2", "the bill", ""],
        ["3", "the bill", " it,3"],
        ["4", 'a "quote" inside', "4"],
        ["", "", ""],
        ["5", "the lock", "5"],
    ]
    assert {len(row) for row in found if row} == {9}
    assert [bool(row[8]) for row in found[1:] if row] == [False, True, True, False, True, False]
    assert "2 cells, but the header has 3 columns" in found[2][8]


@pytest.mark.parametrize(
    ("encoding", "options"),
    [("utf-8-sig", []), ("utf-16", []), ("utf-16-be", []), ("cp1252", ["--encoding", "cp1252"])],
)
def test_the_encoding_stays(
    predict: Callable[..., int], tmp_path: Path, encoding: str, options: list[str]
) -> None:
    head, row = "id,text\r\n", '01,"Schlösser, klemmen"\r\n'
    (tmp_path / "in.csv").write_bytes((head + row * 3).encode(encoding))
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv", *options) == 0
    written = (tmp_path / "out.csv").read_bytes()
    mark = b"" if encoding != "utf-16-be" else "".encode("utf-16-be")
    assert written.startswith(mark + head.removesuffix("\r\n").encode(encoding))
    lines = written.decode(encoding).split("\r\n")
    assert lines[0] == "id,text," + ",".join(ANSWERS)
    assert all(line.startswith('01,"Schlösser, klemmen",') for line in lines[1:4])
    assert lines[4:] == [""]


@pytest.mark.slow
def test_labels_that_the_encoding_cannot_write_make_it_utf_8(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"files/{tmp_path.name}"
    with graft.Client(server.target) as client:
        client.adapt(model, [(f"{it} {n}", f"錠 {it}") for n in range(6) for it in ("lock", "bill")])
    (tmp_path / "in.csv").write_bytes('id,text\n1,"Schlösser, lock"\n'.encode("cp1252"))
    arguments = [str(tmp_path / "in.csv"), "--encoding", "cp1252", "--output", str(tmp_path / "out.csv")]
    assert main(["predict", model, *arguments, "--server", server.target]) == 0
    assert rows_of(tmp_path / "out.csv")[1][:3] == ["1", "Schlösser, lock", "錠 lock"]
    assert "is in UTF-8, because cp1252 has no way to write" in capsys.readouterr().err


def test_a_table_of_one_column_needs_no_quotes(predict: Callable[..., int], tmp_path: Path) -> None:
    lines = ["the lock, it is stuck", '"the bill, too"', 'the "lock", "it" is', "", "the bill,"]
    (tmp_path / "in.csv").write_text("\n".join(["text", *lines]))
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 0
    found = rows_of(tmp_path / "out.csv")
    assert [row[:2] for row in found[1:]] == [
        ["the lock, it is stuck", "lock"],
        ["the bill, too", "bill"],
        ['the "lock", "it" is', "lock"],
        [],
        ["the bill", "bill"],
    ]
    assert {len(row) for row in found if row} == {7}
    (tmp_path / "wide.csv").write_text("id,text\n1,the lock,,\n2,the bill\n")
    assert predict(tmp_path / "wide.csv", "--output", tmp_path / "wide-out.csv") == 0
    assert [row[:3] for row in rows_of(tmp_path / "wide-out.csv")[1:]] == [
        ["1", "the lock", "lock"],
        ["2", "the bill", "bill"],
    ]


def test_bytes_that_cannot_be_read_stay(predict: Callable[..., int], tmp_path: Path) -> None:
    lines = [b"id,text", *[f"{it},the lock".encode() for it in range(60)], b"x,b\xff\xfe d", b"y,the bill"]
    (tmp_path / "in.csv").write_bytes(b"\n".join(lines) + b"\n")
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 1
    written = (tmp_path / "out.csv").read_bytes().split(b"\n")
    assert written[61].startswith(b"x,b\xff\xfe d,,,,,,")
    assert b"is not UTF-8" in written[61]
    assert written[62].startswith(b"y,the bill,bill,")


def test_names_never_collide(predict: Callable[..., int], tmp_path: Path) -> None:
    header = ["Label", "predicted_label", "text", "text2", "error", "error"]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, ["a", "b", "the lock", "c", "d", "e"]])
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 0
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == [
        *header,
        "predicted_label_2",
        *ANSWERS[1:5],
        "predicted_error",
    ]
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.jsonl", "--prefix", "graft_") == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["error"] == "d"
    assert row["error_2"] == "e"
    assert row["graft_label"] == "lock"


def test_other_dialects_are_written_as_they_are_read(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('sep=;\nid;text;n\n1;the lock, stuck;1,5\n2;"the; bill";2,5\n')
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.csv") == 0
    lines = (tmp_path / "out.csv").read_text().split("\n")
    assert lines[:2] == ["sep=;", "id;text;n;" + ";".join(ANSWERS)]
    assert lines[2].startswith("1;the lock, stuck;1,5;lock;0.")
    assert lines[3].startswith('2;"the; bill";2,5;bill;0.')
    (tmp_path / "in.tsv").write_text('id\ttext\n1\tthe "lock\n2\ta 5" bill\n3\tthe lock\n')
    assert predict(tmp_path / "in.tsv", "--output", tmp_path / "out.tsv") == 0
    lines = (tmp_path / "out.tsv").read_text().split("\n")
    assert lines[1].startswith('1\tthe "lock\tlock\t0.')
    assert lines[2].startswith('2\ta 5" bill\t')


def test_files_without_a_header_joined_files_and_workbooks(
    predict: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("7,the lock\n8,the bill\n")
    assert predict(tmp_path / "in.csv", "--columns", "id,text", "--output", tmp_path / "out.csv") == 0
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == ["id", "text", *ANSWERS]
    assert [row[:3] for row in found[1:]] == [["7", "the lock", "lock"], ["8", "the bill", "bill"]]
    (tmp_path / "joined.csv").write_text("id,text\n1,the lock\nid,text\n2,the bill\n")
    assert predict(tmp_path / "joined.csv", "--output", tmp_path / "joined-out.csv") == 0
    found = rows_of(tmp_path / "joined-out.csv")
    assert found[2] == found[0]
    assert [row[2] for row in found] == ["label", "lock", "label", "bill"]
    book = openpyxl.Workbook()
    for row in (["id", "text"], [7, "the lock"], [8, None], [9, "the bill"]):
        book.active.append(row)
    book.save(tmp_path / "in.xlsx")
    assert predict(tmp_path / "in.xlsx", "--output", tmp_path / "book.csv") == 1
    assert [row[:3] for row in rows_of(tmp_path / "book.csv")[1:]] == [
        ["7", "the lock", "lock"],
        ["8", "", ""],
        ["9", "the bill", "bill"],
    ]


def test_formats_change_by_the_name(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"text": "the lock", "n": 1, "deep": {"a": [1]}}\n{"late": true, "text": "the bill", "n": null}\n'
    )
    assert predict(tmp_path / "in.jsonl", "--output", tmp_path / "out.csv") == 0
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == ["text", "n", "deep", "late", *ANSWERS]
    assert [row[:5] for row in found[1:]] == [
        ["the lock", "1", '{"a": [1]}', "", "lock"],
        ["the bill", "", "", "true", "bill"],
    ]
    assert predict(tmp_path / "out.csv", "--output", tmp_path / "out.json.gz", "--prefix", "p_") == 0
    listed = json.loads(gzip.decompress((tmp_path / "out.json.gz").read_bytes()))
    assert [(it["text"], it["deep"], it["p_label"]) for it in listed] == [
        ("the lock", '{"a": [1]}', "lock"),
        ("the bill", "", "bill"),
    ]
    (tmp_path / "lines.txt").write_text('the lock\n\nthe "bill", twice\n')
    assert predict(tmp_path / "lines.txt", "--output", tmp_path / "lines.csv") == 1
    assert [row[:2] for row in rows_of(tmp_path / "lines.csv")] == [
        ["text", "label"],
        ["the lock", "lock"],
        ["", ""],
        ['the "bill", twice', "bill"],
    ]


def test_standard_input_is_a_table_where_a_column_is_named(
    server: Any, few_model: str, tmp_path: Path
) -> None:
    def run(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "graft.cli",
                "predict",
                few_model,
                "-",
                "--server",
                server.target,
                *options,
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    lines = '{"text": "the lock", "n": 1.50}\n{"text": "the bill", "label": "x"}\n'
    ended = run(lines, "--input", "text")
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(it) for it in ended.stdout.splitlines()]
    assert ended.stdout.startswith('{"text": "the lock", "n": 1.50, "predicted_label": "lock"')
    assert [it["predicted_label"] for it in rows] == ["lock", "bill"]
    assert rows[1]["label"] == "x"
    ended = run(lines, "--input", "text", "--output", str(tmp_path / "out.csv"))
    assert ended.returncode == 0, ended.stderr
    assert [row[:4] for row in rows_of(tmp_path / "out.csv")] == [
        ["text", "n", "label", "predicted_label"],
        ["the lock", "1.5", "", "lock"],
        ["the bill", "", "x", "bill"],
    ]


def test_parquet_stays_parquet(predict: Callable[..., int], tmp_path: Path) -> None:
    features = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}}}}
    own = pa.schema(
        [
            pa.field("text", pa.string()),
            pa.field("when", pa.timestamp("ns", "UTC")),
            pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
            pa.field("content", pa.struct([("bytes", pa.binary()), ("n", pa.list_(pa.decimal128(9, 2)))])),
        ],
        metadata={"huggingface": json.dumps(features)},
    )
    rows = [
        {
            "text": None if at == 2 else f"the {'lock' if at % 3 else 'bill'} {at}",
            "when": at * 1_000_000_007,
            "kind": ("a", "b", None)[at % 3],
            "content": {"bytes": b"\xff", "n": ["1.50"] if at % 2 else None},
        }
        for at in range(300)
    ]
    for row in rows:
        numbers = row["content"]["n"]  # type: ignore[index, call-overload]
        row["content"]["n"] = numbers and [decimal.Decimal(it) for it in numbers]  # type: ignore[index]
    pq.write_table(pa.Table.from_pylist(rows, schema=own), tmp_path / "in.parquet")
    assert predict(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet") == 1
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(own.names).equals(pq.read_table(tmp_path / "in.parquet"))
    assert found.schema.names == [*own.names, *ANSWERS]
    labels = ["lock" if at % 3 else "bill" for at in range(300)]
    assert [*enumerate(found["label"].to_pylist())] == [
        (at, None if at == 2 else it) for at, it in enumerate(labels)
    ]
    assert found["error"].to_pylist()[2] == "column 'text': there is no text"
    known = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    assert [*known] == ["text", *ANSWERS]
    assert not list(tmp_path.glob("*.part*"))


def test_other_files_become_parquet(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text,id,\n007,the lock,1,2\n008,the bill\n")
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "csv.parquet") == 1
    found = pq.read_table(tmp_path / "csv.parquet")
    assert found.schema.names == ["id", "text", "id_2", "column_4", *ANSWERS]
    assert found["id"].to_pylist() == ["007", "008"]
    assert found["label"].to_pylist() == ["lock", None]
    assert [str(it) for it in found.schema.types[4:]] == [
        *("string", "double", "bool", "bool", "double", "string")
    ]
    lines = ['{"text": "the lock", "n": 1, "x": 1, "b": true, "d": {"a": 1}, "m": 1}', "{}"]
    lines.append('{"text": "the bill", "n": 9007199254740993, "x": 0.5, "b": null, "m": "two", "late": [1]}')
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert predict(tmp_path / "in.jsonl", "--output", tmp_path / "json.parquet") == 1
    found = pq.read_table(tmp_path / "json.parquet")
    assert found.select(["n", "x", "b", "d", "m", "late"]).to_pydict() == {
        "n": [1, None, 9007199254740993],
        "x": [1.0, None, 0.5],
        "b": [True, None, None],
        "d": ['{"a": 1}', None, None],
        "m": ["1", None, "two"],
        "late": [None, None, "[1]"],
    }


def test_missing_files_are_rows_with_errors(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "in.csv").write_text("path,id\nnone.png,1\nnotes.png,2\n,3\n")
    out = tmp_path / "out.csv"
    assert predict(tmp_path / "in.csv", "--path", "path", "--output", out) == 1
    found = rows_of(out)
    assert [row[:2] for row in found[1:]] == [["none.png", "1"], ["notes.png", "2"], ["", "3"]]
    assert "none.png: it cannot be read: No such file" in found[1][7]
    assert "neither an image" in found[2][7]
    assert found[3][7]


def test_a_folder_is_its_pictures_in_order(predict: Callable[..., int], tmp_path: Path) -> None:
    for name in ("b/2.png", "a.JPG", "b/1.png", "notes.md", ".hidden/3.png", "b/10.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert predict(tmp_path / "photos", "--output", tmp_path / "out.csv") == 1  # the model reads texts
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == ["path", *ANSWERS]
    assert [row[0] for row in found[1:]] == ["a.JPG", "b/1.png", "b/10.png", "b/2.png"]
    assert all(row[6] for row in found[1:])


def test_the_answers_go_to_standard_output_without_a_name(
    predict: Callable[..., int], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,the lock\n")
    assert predict(tmp_path / "in.csv") == 0
    out = capfdbinary.readouterr().out.decode()
    assert next(csv.DictReader(io.StringIO(out)))["label"] == "lock"
    assert predict(tmp_path / "in.csv", "--json") == 0
    assert json.loads(capfdbinary.readouterr().out)["label"] == "lock"


def test_every_label_has_its_probability(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nthe lock\n")
    assert predict(tmp_path / "in.csv", "--scores", "--top-k", "2", "--output", tmp_path / "out.csv") == 0
    row = dict(zip(*rows_of(tmp_path / "out.csv"), strict=True))
    assert (row["label"], row["label_2"]) == ("lock", "bill")
    assert row["probability:lock"] == row["probability"]
    assert row["probability:bill"] == row["probability_2"]


class Breaking(Client):
    """A client whose streams of answers break off."""

    answers = 0

    def predict_stream(self, *arguments: Any, **named: Any) -> Iterator[graft.Prediction]:
        for number, it in enumerate(super().predict_stream(*arguments, **named)):
            if number == self.answers:
                raise graft.UnavailableError("The server is gone.")
            yield it


def test_an_interrupted_run_goes_on_by_its_version(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"files/{tmp_path.name}"
    arguments = ["predict", model, str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    arguments += ["--server", server.target]
    few = [(f"{text} {n}", label) for n in range(6) for text, label in (("lock", "a"), ("bill", "b"))]
    rows = [["id", "text"], *([str(at), f"the {('lock', 'bill')[at % 2]}\n{at}"] for at in range(300))]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with graft.Client(server.target) as client:
        client.adapt(model, few)
        with monkeypatch.context() as broken:
            broken.setattr("graft.cli.running.Client", Breaking)
            broken.setattr(Breaking, "answers", 130)
            assert main(arguments) == 1
        part = (tmp_path / "out.csv.part").read_text()
        assert not (tmp_path / "out.csv").exists()
        # What was written behind the last note is written once more, and once alone.
        with (tmp_path / "out.csv.part").open("a") as file:
            file.write("300,half a r")
        client.adapt(model, [(text, label.upper()) for text, label in few])
        assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "going on behind 130 rows that are answered by version 1" in said
    assert "300 rows answered by version 1" in said
    found = rows_of(tmp_path / "out.csv")
    assert [row[:2] for row in found] == rows
    assert {row[2] for row in found[1:]} == {"a", "b"}
    assert (tmp_path / "out.csv").read_text().startswith(part)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_an_interrupted_run_is_not_mixed_with_another(
    server: Any, few_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    arguments = ["predict", few_model, str(source), "--output", str(out), "--server", server.target]
    source.write_text("id,text\n" + "".join(f"{at},the lock {at}\n" for at in range(200)))
    with monkeypatch.context() as broken:
        broken.setattr("graft.cli.running.Client", Breaking)
        broken.setattr(Breaking, "answers", 50)
        assert main(arguments) == 1
    before = (tmp_path / "out.csv.part").read_bytes()
    assert main([*arguments, "--top-k", "2"]) == 1
    source.write_text(source.read_text().replace("the lock 7\n", "the lock 8\n"))
    assert main(arguments) == 1
    assert (tmp_path / "out.csv.part").read_bytes() == before
    source.write_text(source.read_text().replace("7,the lock 8\n", "7,the lock 7\n") + "200,the bill\n")
    assert main(arguments) == 0  # a file that grew is the same as far as it was answered
    assert [row[0] for row in rows_of(out)[1:]] == [str(at) for at in range(201)]


def test_nothing_is_replaced_without_a_word(predict: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nthe lock\n")
    out = tmp_path / "out.csv"
    out.write_text("precious")
    assert predict(tmp_path / "in.csv", "--output", out) == 1
    assert out.read_text() == "precious"
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "in.csv", "--overwrite") == 1
    assert predict(tmp_path / "in.csv", "--output", tmp_path) == 1
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "none" / "out.csv") == 1
    assert predict(tmp_path / "in.csv", "--output", tmp_path / "out.xlsx") == 1
    (tmp_path / "out.csv.part").write_text("somebody's")
    assert predict(tmp_path / "in.csv", "--output", out, "--overwrite") == 1
    assert (tmp_path / "out.csv.part").read_text() == "somebody's"
    assert (tmp_path / "in.csv").read_text() == "text\nthe lock\n"
    (tmp_path / "out.csv.part").unlink()
    assert predict(tmp_path / "in.csv", "--output", out, "--overwrite") == 0
    assert out.read_text().startswith("text,label")
