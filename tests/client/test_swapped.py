"""Columns that look swapped are told, and asked about on a terminal; data as they are meant raise no alarm."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import DATA

import graft
from graft._records.inputs.swapped import SwapGuess

ASKED = [
    (f"where is my parcel number {number}, please?", ("parcel", "refund")[number % 2]) for number in range(12)
]


def likely(rows: list[tuple[str, str]]) -> bool:
    guess = SwapGuess()
    for text, label in rows:
        guess.add(text, label)
    return guess.likely


def swapped(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(label, text) for text, label in rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ASKED, False),
        (swapped(ASKED), True),
        (swapped(ASKED)[:7], False),  # too few to say anything
        (
            [(f"word{number}", f"a long name of a class {number}") for number in range(20)],
            False,
        ),  # one of each
        ([(f"word{number}", "a long name of a class") for number in range(20)], False),
        ([(f"word{number % 4}", f"class {number % 5} with a long name") for number in range(40)], False),
        ([("ok", "spam")] * 30, False),
        ([], False),
    ],
)
def test_labels_that_are_longer_and_more_diverse_than_inputs_look_swapped(
    rows: list[tuple[str, str]], expected: bool
) -> None:
    assert likely(rows) is expected


def real(name: str) -> list[tuple[str, str]]:
    if name == "banking77":
        with (DATA / name / "train.csv").open() as file:
            return [(text, label) for text, label in list(csv.reader(file))[1:]]
    if name == "clinc150":
        return [tuple(it) for it in json.loads((DATA / name / "data_full.json").read_text())["train"]]
    lines = (DATA / name / "SMSSpamCollection").read_text().split("\n")
    return [(text, label) for label, text in (it.split("\t", 1) for it in lines if it)]


@pytest.mark.parametrize("name", ["banking77", "clinc150", "sms_spam"])
@pytest.mark.parametrize("count", [8, 20, 100, 100_000])
def test_real_data_raise_no_alarm_and_swapped_ones_do(name: str, count: int) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    rows = real(name)
    step = max(1, len(rows) // count)
    assert not likely(rows[:count])
    assert not likely(rows[::step])
    assert likely(swapped(rows[:count]))
    assert likely(swapped(rows[::step])) or count <= 100  # of few rows of many classes no input recurs


def test_swapped_columns_are_noticed(server: Any, tmp_path: Path) -> None:
    with graft.Client(server.target) as client:
        checked = client.check("tests/swapped", swapped(ASKED))
        assert any("look swapped: 12 examples have 12 different labels" in it for it in checked.notices)
        assert not any("swapped" in it for it in client.check("tests/swapped", ASKED).notices)


def table(folder: Path) -> Path:
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "intent"), *ASKED])
    return path


def test_a_command_says_so_elsewhere_than_on_a_terminal(server: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graft.cli", "adapt", "tests/swapped", str(table(tmp_path)), "--check"]
    ended = subprocess.run(
        [*command, "--input", "intent", "--label", "text", "--server", server.target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    assert "warning: inputs and labels look swapped: 12 examples have 12 different labels" in ended.stderr
    assert "is --input text --label intent meant?" in ended.stderr


def test_a_stream_is_told_once_it_was_read(server: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graft.cli", "adapt", "tests/swapped", "-", "--check", "--json"]
    ended = subprocess.run(
        [*command, "--input", "intent", "--label", "text", "--server", server.target],
        input=table(tmp_path).read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "warning: inputs and labels look swapped: 12 examples have 12 different labels" in ended.stderr
    assert any("look swapped" in it for it in json.loads(ended.stdout)["notices"])


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [("s", 0, "12 examples of 2 classes"), ("", 1, "are to be named by --input and --label")],
)
def test_a_terminal_asks_about_swapped_columns(
    server: Any, tmp_path: Path, answer: str, code: int, told: str
) -> None:
    model = f"tests/swapped-{uuid.uuid4().hex}"
    command = [sys.executable, "-m", "graft.cli", "adapt", model, str(table(tmp_path))]
    command += ["--input", "intent", "--label", "text", "--server", server.target]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": "200"}
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how a terminal says that its other end is closed
                break
            if b"or stop? " not in shown and b"or stop? " in shown + piece:
                os.write(ours, f"{answer}\n".encode())
            shown += piece
    os.close(ours)
    assert "[s]wap them (--input text --label intent)" in " ".join(shown.decode().split())
    assert process.returncode == code, shown.decode()
    assert told in shown.decode()
