"""How fast `graft predict` answers a file, beside a loop over PredictStream: python -m benchmarks.predict_file.

Both answer other texts each time, so that nothing is answered from memory, and take turns. The file holds blank texts,
quotes, tabs, line breaks and texts that the server refuses; what comes of it is compared row by row.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import graft
from benchmarks.against import interval
from benchmarks.datasets import banking77
from benchmarks.harness import Figure, at_most, server, write

ROUNDS = 10
AWKWARD = 20
"""One row of so many is blank, of several lines, or the like."""
NOTE = (
    "`the command` is measured from its start to its end, with what Python's start and imports take; `the loop` calls "
    f"`predict_stream` on texts that are in memory, and drops the answers. Rates are medians of {ROUNDS} pairs "
    "in an order that alternates; the ratio has its 95% interval, of Student's t on its logarithm."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--exact-rows", type=int, default=10_000)
    rows = parser.parse_args()
    data = banking77()
    with server() as running, graft.Client(running.target) as client, tempfile.TemporaryDirectory() as folder:
        labels = sorted({*data.train_labels})[:10]
        taught = [
            (text, str(label))
            for text, label in zip(data.train, data.train_labels, strict=True)
            if label in labels
        ]
        client.adapt("bench", taught[:600])
        figures = [
            *_speed(running.target, client, data.train, rows.rows, Path(folder)),
            *_exact(running.target, data.train, rows.exact_rows, Path(folder)),
        ]
    write("predict_file", "Answering a file", figures, (NOTE,))


def _speed(target: str, client: graft.Client, texts: Sequence[str], rows: int, folder: Path) -> list[Figure]:
    loop, command = [], []
    _loop(client, _texts(texts, 256, "warm"))
    for number in range(ROUNDS):
        for which in ("loop", "file") if number % 2 else ("file", "loop"):
            asked = _texts(texts, rows, f"{which} {number}")
            if which == "loop":
                loop.append(rows / _loop(client, asked))
            else:
                command.append(rows / _command(target, asked, folder, f"{number}"))
    low, share, high = interval(np.log(np.array(command) / np.array(loop)))
    reference = f"the loop: {statistics.median(loop):.0f} rows/s"
    return [
        Figure(
            f"the command, {rows:,} rows of CSV", statistics.median(command), "rows/s", reference=reference
        ),
        Figure("the command over the loop", share, f"times ({low:.3f} to {high:.3f})", reference=reference),
    ]


def _texts(texts: Sequence[str], count: int, mark: str) -> list[str]:
    """Texts that no other call has."""
    return [f"{texts[at % len(texts)]} ({mark} {at})" for at in range(count)]


def _loop(client: graft.Client, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    for _ in client.predict_stream("bench", texts, top_k=1):
        pass
    return time.perf_counter() - began


def _command(target: str, texts: Sequence[str], folder: Path, name: str) -> float:
    source, out = folder / f"in-{name}.csv", folder / f"out-{name}.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([f"{at:06}", it] for at, it in enumerate(texts))])
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "graft.cli", "predict", "bench", source, "--output", out, "--server", target],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GRAFT_SERVER": target},
        check=False,
    )
    return time.perf_counter() - began


def _exact(target: str, texts: Sequence[str], rows: int, folder: Path) -> list[Figure]:
    """How many rows of an awkward file come out otherwise than they went in."""
    awkward = ["", "  ", 'a "quote", and more', "a\ttab", "two\nlines", "two\r\nlines", "x\0y", "ü" * 600_000]
    mixed = [
        awkward[at // AWKWARD % len(awkward)] if at % AWKWARD == 0 else it
        for at, it in enumerate(_texts(texts, rows, "exact"))
    ]
    # The largest texts cost nothing but bytes: a few are enough.
    mixed = [it if len(it) < 1_000 or at < AWKWARD * len(awkward) else "" for at, it in enumerate(mixed)]
    _command(target, mixed, folder, "exact")
    before, after = (_rows(folder / f"{name}-exact.csv") for name in ("in", "out"))
    moved = abs(len(before) - len(after)) + sum(
        one != other[:2] for one, other in zip(before, after, strict=False)
    )
    without = sum(bool(row[2]) == bool(row[7]) for row in after[1:])
    failed = sum(bool(row[7]) for row in after[1:])
    return [
        at_most(
            f"rows that differ, of {rows:,} awkward ones", moved, 0, "rows", f"{failed} rows with an error"
        ),
        at_most("rows with neither an answer nor an error, or both", without, 0, "rows"),
    ]


def _rows(path: Path) -> list[list[str]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


if __name__ == "__main__":
    main()
