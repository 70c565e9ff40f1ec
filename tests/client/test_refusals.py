"""Rows that were refused, as the commands tell them: by the reason, how many, and the first three with their lines."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from graft.cli.program import main


@pytest.fixture
def told(server: Any, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process: its exit code, output and what it says beside it."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["--server", server.target, *arguments])
        return (code, *capfd.readouterr())

    return run


def written(folder: Path, *rows: str, header: str = "text,label") -> str:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def new_model() -> str:
    return f"tests/refused-{uuid.uuid4().hex[:12]}"


BLANKS = [f'" ",{label}' for label in ("lock", "brake") * 3]


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_where_every_row_is_refused_the_reasons_are_told(
    told: Any, tmp_path: Path, options: list[str]
) -> None:
    code, _, said = told("adapt", new_model(), written(tmp_path, *BLANKS), *options)
    assert code == 1
    assert "6 examples were refused:\n  6 × INPUT_EMPTY, the first:\n" in said
    lines = [it for it in said.splitlines() if it.startswith("    line ")]
    assert lines == [
        f"    line {number}: the text is empty: give a text with something in it. (the row: ' ', '{label}')"
        for number, label in ((2, "lock"), (3, "brake"), (4, "lock"))
    ]
    assert "nothing to train on" not in said
    assert "upsert" not in said


def test_where_no_row_can_be_read_the_kinds_of_reasons_are_told(told: Any, tmp_path: Path) -> None:
    rows = ["one cell", "another", "a,b,c", *["still one"] * 3]
    for command in (("adapt", new_model()), ("adapt", new_model(), "--check")):
        code, _, said = told(*command[:2], written(tmp_path, *rows), *command[2:])
        assert code == 1
        assert "5 × rows that cannot be read, the first:\n    line 2: 1 cells" in said
        assert said.count("    line ") == 3
        assert "  line 4: 3 cells" in said


def test_a_check_reads_all_rows_and_fails_for_one(told: Any, tmp_path: Path) -> None:
    rows = [f"question {number},{'ab'[number % 2]}" for number in range(1_500)]
    code, out, said = told("adapt", new_model(), written(tmp_path, *rows), "--check")
    assert (code, out.startswith("1,500 of 1,500 examples would be taken")) == (0, True), said
    code, out, said = told("adapt", new_model(), written(tmp_path, *rows, '"\t",a'), "--check")
    assert (code, out.startswith("1,500 of 1,501 examples would be taken")) == (1, True), said
    assert "line 1502: the text is empty" in said
    assert "of 1,501 rows: 1,500 examples, 1 refused" in said
    code, out, said = told("adapt", new_model(), written(tmp_path, *rows, "one cell"), "--check", "--json")
    found = json.loads(out)
    assert (code, found["unread_count"], found["rows"]["read"], found["rows"]["refused"]) == (1, 1, 1_501, 1)
    (kind,) = found["refused_by_reason"]
    assert (kind["count"], [it["line"] for it in kind["first"]]) == (1, [1502])


def test_fewer_examples_than_rows_are_explained(told: Any, tmp_path: Path) -> None:
    rows = [
        *(f"r{number},my lock {number} is stuck,lock" for number in range(5)),
        *(f"b{number},the brake {number} squeals,brake" for number in range(5)),
        "",
        "r0,my lock 0 is stuck again,lock",
        "x, ,lock",
        "y,who knows,",
        "id,text,label",
        "z",
    ]
    data = written(tmp_path, *rows, header="id,text,label")
    options = ("--id", "id", "--id-repeats", "replace")
    code, out, said = told("adapt", new_model(), data, *options, "--json")
    assert code == 0
    line = (
        "of 16 rows: 10 examples, 1 replaced by a later row of the same id, 2 refused, 1 without a label, "
        "2 blank, or the header once more"
    )
    assert line in said
    counts = json.loads(out)["rows"]
    assert counts.pop("read") == sum(counts.values()) == len(rows)
    assert line in told("adapt", new_model(), data, *options, "--check")[2]
    code, _, said = told("adapt", new_model(), data, "--id", "id", "--id-repeats", "keep")
    assert (
        "10 examples, 2 refused, 1 without a label, 1 left out because an earlier row has the same id" in said
    )


def test_most_rows_refused_is_a_warning(told: Any, tmp_path: Path) -> None:
    rows = [
        "my lock is stuck,lock",
        "the key broke off,lock",
        "the brake squeals,brake",
        "it does not stop,brake",
    ]
    code, _, said = told("adapt", new_model(), written(tmp_path, *rows, *BLANKS))
    assert code == 0
    assert "warning: most rows were refused: 6 of 10" in said
    assert "6 × INPUT_EMPTY, the first:" in said


def test_an_evaluation_tells_the_reasons_too(told: Any, tmp_path: Path) -> None:
    model = new_model()
    rows = [
        "my lock is stuck,lock",
        "the key broke off,lock",
        "the brake squeals,brake",
        "it does not stop,brake",
    ]
    assert told("adapt", model, written(tmp_path, *rows))[0] == 0
    code, _, said = told("evaluate", model, written(tmp_path, *BLANKS))
    assert code == 1
    assert "6 × INPUT_EMPTY, the first:\n    line 2: the text is empty" in said
    assert "no figure can be stated: all 6 examples were refused" in said
