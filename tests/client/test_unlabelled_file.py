"""`graft adapt --unlabelled`: a file of inputs without labels, sent behind the data file."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import graft


def run(server: Any, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "graft.cli", words[0], "--server", server.target, *words[1:]]
    return subprocess.run(line, input="", capture_output=True, text=True, check=False, timeout=120)


def table(path: Path, header: list[str], rows: list[list[str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_inputs_of_another_file_come_in_without_labels(server: Any, model: str, tmp_path: Path) -> None:
    labelled = [[f"the lock of room {i} is stuck", "lock"] for i in range(8)]
    labelled += [[f"bill {i} is wrong", "bill"] for i in range(8)]
    data = table(tmp_path / "few.csv", ["text", "label"], labelled)
    inputs = [[f"door {i} does not open", ""] for i in range(10)]
    # A copy of a labelled input says nothing of its label, and an empty cell is refused by its place.
    rows = [*inputs, ["bill 3 is wrong", ""], ["", ""], ["", "empty"]]
    pool = table(tmp_path / "pool.csv", ["text", "note"], rows)
    assert run(server, "adapt", model, data, "--unlabelled", pool, "--check").returncode == 1
    adapted = run(server, "adapt", model, data, "--unlabelled", pool, "--json")
    result = json.loads(adapted.stdout)
    report = result["report"]
    assert (report["examples"], report["data"]["unlabelled_examples"]) == (16, 11)
    assert report["unlabelled"]["examples"] == 11
    assert result["rows"] == result["rows"] | {"examples": 16, "unlabelled": 11, "refused": 1, "blank": 1}
    (refused,) = [*result["unread"], *(it for kind in result["refused_by_reason"] for it in kind["first"])][
        :1
    ]
    assert refused["place"] == f"{pool}, line 14"
    with graft.Client(server.target) as client:
        stored = list(client.examples(model))
    assert sum(it.label is None for it in stored) == 11


def test_a_file_without_the_column_of_inputs_is_told_by_its_name(
    server: Any, model: str, tmp_path: Path
) -> None:
    data = table(tmp_path / "few.csv", ["text", "label"], [["a lock", "lock"], ["a bill", "bill"]])
    pool = table(tmp_path / "pool.csv", ["message"], [["a door"]])
    failed = run(server, "adapt", model, data, "--unlabelled", pool)
    assert failed.returncode != 0
    assert pool in failed.stderr
    assert "no column 'text'" in failed.stderr
    folder = run(server, "adapt", model, data, "--unlabelled", str(tmp_path))
    assert "is a folder" in folder.stderr


def test_a_stream_that_is_followed_takes_no_further_file(server: Any, model: str) -> None:
    failed = run(server, "adapt", model, "-", "--follow", "--unlabelled", "pool.csv")
    assert failed.returncode != 0
    assert "--unlabelled cannot be given with --follow" in failed.stderr
