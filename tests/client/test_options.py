"""Options of the command line that reach the server or the reader of files: each changes what comes of a command."""

from __future__ import annotations

import csv
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from graft.cli import main


class Shell:
    """Runs commands in this process, on the shared server."""

    def __init__(self, target: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._target = target
        self._capsys = capsys
        self.said = ""
        """What the last command wrote to standard error."""

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Returns what a command writes to standard output; it ends with `code`."""
        ended = main(["--server", self._target, *map(str, arguments)])
        out, self.said = self._capsys.readouterr()
        assert ended == code, self.said
        return out


@pytest.fixture
def shell(server: Any, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(server.target, capsys)


def write(path: Path, rows: list[list[str]], columns: str = "text,label") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def test_columns_and_ways_to_adapt_reach_the_version(shell: Shell, tmp_path: Path, few: Any) -> None:
    model = f"tests/{uuid.uuid4().hex}"
    rows = [[*row, "2.5", "validation" if n % 3 == 0 else "train", "yes"] for n, row in enumerate(few)]
    data = write(tmp_path / "rows.dat", rows, "text,label,counts,part,looked")
    columns = ("--format", "csv", "--weight", "counts", "--split", "part", "--confirmed", "looked")
    way = ("--method", "frozen", "--seed", "7", "--labels", "lock,bill", "--closed-labels")
    shell("adapt", model, data, *columns, *way, "--writer-id", "feeder", "--adaptation-id", "one")
    report = json.loads(shell("report", model, "--json"))["report"]
    assert (report["seed"], report["validation_examples"]) == (7, 4)
    assert report["data"]["confirmed_examples"] > 0
    stored = [json.loads(it) for it in shell("examples", model, "--version", "1", "--json").splitlines()]
    assert {(it["weight"], it["writer_id"]) for it in stored} == {(2.5, "feeder")}

    events = [json.loads(it)["number"] for it in shell("watch", model, "one", "--json").splitlines()]
    later = shell("watch", model, "one", "--from-event", str(events[1]), "--json").splitlines()
    assert [json.loads(it)["number"] for it in later] == events[1:]

    new = write(tmp_path / "new.csv", [*map(list, few), ["where is my key?", "key"]])
    shell("adapt", model, new, "--check", "--replace", *way, code=1)
    assert "LABEL_UNKNOWN" in shell.said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--layers", "1"), ("--epochs", "2"), ("--learning-rate", "0.001"), ("--time-budget", "9")],
)
def test_how_to_tune_reaches_the_server(
    shell: Shell, tmp_path: Path, few: Any, option: str, value: str
) -> None:
    data = write(tmp_path / "rows.csv", list(map(list, few)))
    for check in (("--check",), ()):
        shell("adapt", "tests/tuned", data, *check, "--method", "frozen", option, value, code=1)
        assert "FINE_TUNING_UNUSED" in shell.said


def test_an_open_adaptation_is_asked(shell: Shell, wire: Any, model: str, few: Any) -> None:
    call = wire.adapt(model=model, adaptation_id="open")
    call.next("started")
    call.examples(0, few)
    call.accepted(len(few))
    assert shell("predict", model, "the lock is stuck", "--adaptation", "open").split("\t")[0] == "lock"


def test_answers_are_written_anew_and_in_another_format(shell: Shell, tmp_path: Path, few_model: str) -> None:
    data = write(tmp_path / "in.csv", [["my bill is wrong"], ["the lock is stuck"]], "text")
    out = tmp_path / "out.dat"
    for again in ((), ("--restart", "--overwrite")):
        shell("predict", few_model, data, "--output", out, "--output-format", "jsonl", *again)
        assert [json.loads(it)["label"] for it in out.read_text().splitlines()] == ["bill", "lock"]


def test_conflicts_and_duplicates_are_gone_through(
    shell: Shell, wire: Any, few: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"tests/{uuid.uuid4().hex}"
    wire.publish(model, [*few, ("the lock is stuck 0", "lock"), ("the lock is stuck 1", "bill")])
    for kind, text in (("--conflicts", "the lock is stuck 1"), ("--duplicates", "the lock is stuck 0")):
        (tmp_path / "answers").write_text("q\n")
        with (tmp_path / "answers").open() as answers:
            monkeypatch.setattr("sys.stdin", answers)
            shell("review", model, kind)
        assert text in shell.said


def test_a_comparison_shows_as_many_changes_as_are_asked_for(
    shell: Shell, wire: Any, model: str, few: Any, tmp_path: Path
) -> None:
    wire.publish(model, few)
    wire.publish(model, [(text, {"lock": "bill", "bill": "lock"}[label]) for text, label in few])
    data = write(tmp_path / "test.csv", [[f"is the lock stuck {n}?", "lock"] for n in range(5)])
    shell("compare", model, "1", "2", data, "--changes", "2")
    assert "and 3 more answers that changed; --output FILE writes all of them" in shell.said
    shell("compare", model, "1", "2", data, "--changes", "2", "--output", tmp_path / "changes.csv")
    assert shell.said.count("more answers that changed") == 1
    assert "--output FILE" not in shell.said
