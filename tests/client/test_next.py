"""`graft next` and `Client.suggest`: what to label next, and the way round: label, adapt, next."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import graft
from graft.cli import main

BIRDS = [
    f"a {bird} sings in the tree" for bird in ("robin", "blackbird", "finch", "thrush", "wren", "sparrow")
]
BILLS = [f"the bill of {month} is wrong" for month in ("may", "june", "july")]


@pytest.fixture
def client(server: Any) -> Any:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture
def command(server: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        ended = main(["--server", server.target, *arguments])
        out, said = capsys.readouterr()
        assert ended == code, said
        assert "Traceback" not in said
        return out, said

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_way_round_from_a_pool_to_labels_to_a_version_and_back(command, model, tmp_path):
    pool = write(
        tmp_path / "pool.csv", [{"ticket": at, "text": it} for at, it in enumerate([*BIRDS, *BILLS])]
    )
    todo = tmp_path / "next.csv"
    _, said = command("next", model, "--from", pool, "-n", "6", "--output", str(todo))
    assert f"{model} has no version yet" in said
    assert f"fill in the column label, then: graft adapt {model} {todo}" in said
    rows = read(todo)
    assert list(rows[0]) == ["ticket", "text", "label", "suggested", "why"]
    assert all(not it["label"] and it["why"] for it in rows)
    for row in rows:
        row["label"] = "bird" if "sings" in row["text"] else "bill"
    assert {it["label"] for it in rows} == {"bird", "bill"}
    write(todo, rows)
    command("adapt", model, str(todo))

    _, said = command("next", model, "--from", pool, "-n", "6", "--output", str(todo), code=1)
    assert "is there already; --overwrite replaces it" in said
    _, said = command("next", model, "--from", pool, "--output", str(todo), "--overwrite")
    assert "left out: 6 labelled already" in said
    again = read(todo)
    assert len(again) == 3
    assert {it["suggested"] for it in again} <= {"bird", "bill"}
    assert not {it["text"] for it in again} & {it["text"] for it in rows}


def test_the_unlabelled_examples_of_a_version_are_suggested_where_no_pool_is_named(
    command, client, model, few
):
    unlabelled = [graft.Example(text, id=f"u{at}") for at, text in enumerate(BIRDS)]
    client.adapt(model, [*few, *unlabelled])
    out, _ = command("next", model, "-n", "2")
    assert len(out.splitlines()) >= 3
    assert "sings in the tree" in out
    found = json.loads(command("next", model, "--json", "-n", "2")[0])
    assert [it["id"] for it in found["suggestions"]] == [it.id for it in client.suggest(model, n=2)]
    assert {it["input"] for it in found["suggestions"]} < set(BIRDS)


def test_lines_and_rows_that_cannot_be_read_are_told(command, server, few_model, tmp_path):
    pool = tmp_path / "pool.txt"
    pool.write_text("\n".join([BIRDS[0], "", BIRDS[1]]))
    out, _ = command("next", few_model, "--from", str(pool), "--json")
    assert sorted(it["line"] for it in json.loads(out)["suggestions"]) == [1, 3]
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "graft.cli",
            "--server",
            server.target,
            "next",
            few_model,
            "--from",
            "-",
            "--json",
        ],
        input="\n".join(BIRDS),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout)["candidates"] == len(BIRDS)
    pool = tmp_path / "pool.csv"
    pool.write_text(f"text,id\n{BIRDS[0]},1\n,2\n")
    _, said = command("next", few_model, "--from", str(pool))
    assert "1 candidate could not be read" in said
    assert "line 3" in said


def test_what_cannot_be_done_is_said(command, few_model, model, tmp_path):
    _, said = command("next", few_model, code=1)
    assert "has no unlabelled example stored, and none was given: name inputs with --from" in said
    _, said = command("next", model, code=1)
    assert "no model" in said
    (tmp_path / "empty.csv").write_text("text,id\n")
    _, said = command("next", few_model, "--from", str(tmp_path / "empty.csv"), code=1)
    assert "There is no candidate: give inputs with --from" in said
    _, said = command("next", few_model, "--from", str(tmp_path / "none.csv"), code=1)
    assert "none.csv" in said
    pool = write(tmp_path / "pool.csv", [{"text": BIRDS[0]}])
    _, said = command("next", few_model, "--from", pool, "--count", "2000", code=1)
    assert "1 to 1,000" in said
    _, said = command("next", few_model, "--from", pool, "--output", pool, code=1)
    assert "is the pool, too" in said
    for column in ("text", "why"):
        output = tmp_path / "next.csv"
        options = ("--from", pool, "--output", str(output), "--label", column)
        _, said = command("next", few_model, *options, code=1)
        assert f"the column '{column}' is" in said
        assert not output.exists()


def test_where_nothing_is_left_no_table_is_shown(command, few_model, few, tmp_path):
    out, said = command(
        "next", few_model, "--from", write(tmp_path / "pool.csv", [{"text": few[0][0]}]), code=1
    )
    assert "0 candidates ranked; left out: 1 labelled already" in said
    assert not out


def test_suggestions_are_a_list_and_a_frame(client, few_model, few):
    found = client.suggest(few_model, [few[0][0], *BIRDS, *BILLS], n=4)
    assert (found.version, found.labelled, found.candidates) == (1, 1, 9)
    first = found[0]
    assert first.input == [few[0][0], *BIRDS, *BILLS][first.index or 0]
    assert first.why
    assert first.prediction is not None
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": BIRDS, "ticket": range(6)})
    of_table = client.suggest(few_model, table, n=2)
    frame = of_table.to_frame()
    assert list(frame["text"]) == [BIRDS[it.index or 0] for it in of_table]
    assert {"score", "why", "similar", "label", "probability"} <= set(frame.columns)


def test_the_asyncio_client_suggests_the_same_of_what_comes_asynchronously(client, server, few_model):
    async def coming() -> Any:
        for text in [*BIRDS, *BILLS]:
            yield text

    async def asked() -> Any:
        async with graft.AsyncClient(server.target) as other:
            return await other.suggest(few_model, coming(), n=3)

    found = asyncio.run(asked())
    assert [it.index for it in found] == [it.index for it in client.suggest(few_model, [*BIRDS, *BILLS], n=3)]
