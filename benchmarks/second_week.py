"""From `graft adapt` to a corrected, republished model, as a person does it: commands, time, and what became of errors.

    python -m benchmarks.second_week [--rows N] [--classes K]

Five labels of a real data file are wrong: drawn at random, of examples and classes drawn at random, before anything is
measured. Two ways to mend them are walked, each with the real command line against a server of its own:

- `graft adapt`, then `graft review` on a terminal: keys are pressed as its questions come, always "c" (the suggested
  label) and at the end "y".
- `graft adapt`, `graft examples --probable-errors --output fixes.csv`, then `graft adapt MODEL fixes.csv`, after the
  column of suggestions was copied into that of labels.

A person also reads: the walk has no pause for that. Accuracy is that of `graft evaluate` on the data's own test split,
which no version was trained on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import datasets
from benchmarks.harness import Figure, server, write

PLANTED: Final = 5
SEED: Final = 2024
MOST_COMMANDS: Final = 3
MOST_SECONDS: Final = 120.0


@dataclass(slots=True)
class Data:
    """A training file with wrong labels, and a test file without."""

    train: Path
    test: Path
    right: dict[str, str]
    """The texts whose label is wrong, with the right one."""


@dataclass(slots=True)
class Walk:
    """One way from `adapt` to a corrected model."""

    target: str
    model: str
    steps: list[tuple[str, float]] = field(default_factory=list)
    """Each command, and how long it took in seconds."""

    def command(self, *words: str) -> str:
        """Runs a command and returns its standard output."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "graft.cli", *words, "--server", self.target],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"graft {' '.join(words)}: {done.stderr}")
        self.steps.append((f"graft {words[0]}", time.monotonic() - began))
        return done.stdout

    def asked(self, *words: str) -> dict[str, Any]:
        """A result for programs, which is none of the walk's commands."""
        found: dict[str, Any] = json.loads(self.command(*words, "--json"))
        self.steps.pop()
        return found

    def on_terminal(self, *words: str) -> str:
        """Runs a command on a terminal, and presses keys as it asks; returns all that it showed."""
        began = time.monotonic()
        person, program = pty.openpty()
        line = [sys.executable, "-m", "graft.cli", *words, "--server", self.target]
        process = subprocess.Popen(line, stdin=program, stdout=program, stderr=program)
        os.close(program)
        shown = _Shown(person)
        answered = 0
        while process.poll() is None:
            questions = shown.count("[q]uit?") + shown.count("[y]es, [n]o, [b]ack")
            if questions > answered:
                # The key that is wanted depends on the newest question.
                os.write(person, b"y" if shown.ends_with("[b]ack") else b"c")
                answered = questions
            time.sleep(0.02)
        shown.join()
        os.close(person)
        if process.returncode:
            raise RuntimeError(f"graft {' '.join(words)}: {shown.text}")
        self.steps.append((f"graft {words[0]}", time.monotonic() - began))
        return shown.text


class _Shown(threading.Thread):
    """What a program shows on a terminal."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self.text = ""
        self.start()

    def run(self) -> None:
        """Reads until the program's end is closed."""
        try:
            while data := os.read(self._fd, 4096):
                self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode("utf-8", "replace"))
        except OSError:
            return

    def count(self, question: str) -> int:
        """How often it has asked."""
        return self.text.count(question)

    def ends_with(self, question: str) -> bool:
        """Whether the newest question is this one."""
        return self.text.rstrip().endswith(question)


def data_in(folder: Path, rows: int, classes: int) -> Data:
    """Writes a part of Banking77 with five wrong labels, and its test split."""
    texts = datasets.banking77()
    rng = np.random.default_rng(SEED)
    kept = np.sort(rng.choice(len(texts.classes), classes, replace=False))
    pool = np.flatnonzero(np.isin(texts.train_labels, kept))
    chosen = rng.permutation(pool)[:rows]
    labels = [texts.classes[texts.train_labels[row]] for row in chosen]
    right: dict[str, str] = {}
    for at in rng.choice(len(chosen), PLANTED, replace=False):
        right[texts.train[chosen[at]]] = labels[at]
        others = [texts.classes[it] for it in kept if texts.classes[it] != labels[at]]
        labels[at] = others[rng.integers(len(others))]
    train, test = folder / "train.csv", folder / "test.csv"
    _write(train, [(texts.train[row], label) for row, label in zip(chosen, labels, strict=True)])
    measured = np.flatnonzero(np.isin(texts.test_labels, kept))
    _write(test, [(texts.test[row], texts.classes[texts.test_labels[row]]) for row in measured])
    return Data(train, test, right)


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def review(walk: Walk, data: Data, _: Path) -> None:
    """Corrects by the dialogue."""
    walk.command("adapt", walk.model, str(data.train))
    walk.on_terminal("review", walk.model)


def by_file(walk: Walk, data: Data, folder: Path) -> None:
    """Corrects by a file."""
    fixes = folder / "fixes.csv"
    walk.command("adapt", walk.model, str(data.train))
    walk.command("examples", walk.model, "--probable-errors", "--output", str(fixes))
    with fixes.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with fixes.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "label": row["suggested"]} for row in rows)
    walk.command("adapt", walk.model, str(fixes))


WAYS: Final[dict[str, Callable[[Walk, Data, Path], None]]] = {"review": review, "file": by_file}


def measured(name: str, walk: Walk, data: Data) -> tuple[list[Figure], list[str]]:
    """What a walk took and gave, and a line about it."""
    listed = walk.asked("report", walk.model, "--version", "1")["report"]
    found = {listed["quotes"]["found"][it["example"]["id"]]["text"] for it in listed["data"]["label_errors"]}
    lines = walk.command("examples", walk.model, "--version", "2", "--inputs", "--json").splitlines()
    walk.steps.pop()
    after = {it["text"]: it["label"] for it in map(json.loads, lines)}
    corrected = sum(after.get(text) == label for text, label in data.right.items())
    others = len(found - data.right.keys())
    accuracy = [
        float(walk.asked("evaluate", walk.model, str(data.test), "--version", version)["accuracy"])
        for version in ("1", "2")
    ]
    seconds = sum(took for _, took in walk.steps)
    planted = len(data.right)
    figures = [
        Figure(
            f"{name}: commands",
            len(walk.steps),
            "",
            f"at most {MOST_COMMANDS}",
            met=len(walk.steps) <= MOST_COMMANDS,
        ),
        Figure(f"{name}: time", seconds, "s", f"at most {MOST_SECONDS:g}", met=seconds <= MOST_SECONDS),
        Figure(f"{name}: planted errors that are listed", len(found & data.right.keys()), f"of {planted}"),
        Figure(f"{name}: planted errors that are corrected", corrected, f"of {planted}"),
        Figure(f"{name}: other labels that are listed, and were taken as suggested", others, ""),
        Figure(f"{name}: accuracy on held-out data before", 100 * accuracy[0], "%"),
        Figure(f"{name}: accuracy on held-out data after", 100 * accuracy[1], "%"),
    ]
    steps = ", ".join(f"`{step}` {took:.1f} s" for step, took in walk.steps)
    return figures, [f"{name}: {steps}."]


def main() -> None:
    """Walks both ways and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=400, help="training examples")
    parser.add_argument("--classes", type=int, default=12, help="classes of Banking77")
    args = parser.parse_args()
    figures: list[Figure] = []
    drawn = (
        f"{args.rows} examples of {args.classes} classes of Banking77, of which {PLANTED} have a wrong label"
    )
    how = "Commands run one after the other, without a pause for reading: keys are pressed as questions come"
    notes = [
        f"{drawn}, drawn at random (seed {SEED}). {how}. Held-out: the data's own test split of these classes."
    ]
    with tempfile.TemporaryDirectory(prefix="graft-second-week-") as folder, server() as running:
        data = data_in(Path(folder), args.rows, args.classes)
        for name, way in WAYS.items():
            walk = Walk(running.target, f"second-week/{name}")
            way(walk, data, Path(folder))
            found, lines = measured(name, walk, data)
            figures += found
            notes += lines
    write("second_week", "From adapt to a corrected, republished model", figures, notes)


if __name__ == "__main__":
    main()
