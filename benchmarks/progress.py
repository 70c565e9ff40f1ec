"""Whether progress moves: an adaptation of 10,000 rows, as somebody sees it at a terminal.

python -m benchmarks.progress [--rows 10000] [--runs 2] [--log FILE]

`graft adapt` runs on a terminal of its own, and beside it somebody watches the adaptation (WatchAdaptation). Measured
is the longest time in which nothing of what is seen changes but the clock and the spinner: on the terminal, and in
what the server tells, in each stage. And how far off the estimates are, from ten seconds after the commit on: the time
that is said to be left less the time that is left, as a share of what the commit takes as a whole. The first run is a
server's first training; at the second it knows how fast the machine is. With --log each message and each change of the
terminal's line is written to a file.
"""

from __future__ import annotations

import argparse
import csv
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

import graft
from benchmarks.datasets import Texts, banking77
from benchmarks.harness import Figure, at_most, server, write

MOST_S = 5.0
"""In which something has to change."""
COLUMNS = "120"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_MOVING = re.compile(r"[\u2800-\u28ff]|\d+:\d\d:\d\d.*$")
"""The spinner, and the clock with what follows it."""


@dataclass(slots=True)
class Seen:
    """What was seen, and when."""

    changes: list[tuple[float, str]] = field(default_factory=list)
    """When what is seen changed, and the stage that it showed then."""
    _last: str = ""

    def note(self, now: float, stage: str, what: str) -> bool:
        """Notes what is seen; whether it is new."""
        if what == self._last:
            return False
        self._last = what
        self.changes.append((now, stage))
        return True

    def longest(self) -> dict[str, float]:
        """The longest time without a change, by the stage in which it began."""
        found: dict[str, float] = {}
        for (before, stage), (now, _) in zip(self.changes, self.changes[1:], strict=False):
            found[stage] = max(found.get(stage, 0.0), now - before)
        return found


@dataclass(slots=True)
class Run:
    """One adaptation."""

    terminal: Seen = field(default_factory=Seen)
    told: Seen = field(default_factory=Seen)
    estimates: list[tuple[float, float]] = field(default_factory=list)
    """When an estimate was told, and the time that it said was left."""
    fractions: list[float] = field(default_factory=list)
    messages: int = 0
    committed: float = 0.0
    published: float = 0.0

    @property
    def errors(self) -> np.ndarray:
        """How far off the estimates are, as shares of the commit's time."""
        took = self.published - self.committed
        return np.array([abs(left - (self.published - at)) / took for at, left in self.estimates])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="examples (default: 10,000)")
    parser.add_argument("--runs", type=int, default=2, help="adaptations, one after the other (default: 2)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where each message and change is written")
    asked = parser.parse_args()
    data = banking77()
    with (
        tempfile.TemporaryDirectory(prefix="graft-benchmark-") as folder,
        server() as running,
        asked.log.open("w", encoding="utf-8") if asked.log else nullcontext() as log,
    ):
        path = Path(folder) / "train.csv"
        _write_rows(path, data, asked.rows)
        figures = []
        for number in range(asked.runs):
            run = _measured(path, running.target, f"banking{number}", log)
            figures += _figures(run, f"run {number + 1}: {asked.rows:,} examples, 77 classes")
    write("progress", "Progress that moves, as somebody at a terminal sees it", figures)


def _write_rows(path: Path, data: Texts, count: int) -> None:
    order = np.random.default_rng(0).permutation(len(data.train))[:count]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        table.writerows((data.train[row], data.classes[data.train_labels[row]]) for row in order)


def _measured(path: Path, target: str, model: str, log: TextIO | None) -> Run:
    run = Run()
    began = time.monotonic()
    watching = threading.Thread(target=_watch, args=(run, target, model, began, log), daemon=True)
    watching.start()
    command = [sys.executable, "-m", "graft.cli", "adapt", model, str(path)]
    command += ["--input", "text", "--label", "label", "--adaptation-id", "a", "--server", target]
    for line in _lines(command):
        now = time.monotonic() - began
        what = _MOVING.sub("", line).strip()
        stage = re.sub(r"[\d,.%━╸╺:]+.*", "", what).strip() or "between"
        if run.terminal.note(now, stage, what) and log is not None:
            log.write(f"{now:8.2f} terminal {line}\n")
    watching.join(60)
    return run


def _lines(command: Sequence[str]) -> Iterator[str]:
    """What a command shows on a terminal, line by line as it changes, up to the report."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": COLUMNS, "LINES": "40"}
    process = subprocess.Popen(command, stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, env=environment)
    os.close(slave)
    rest = ""
    while True:
        try:
            read = os.read(master, 65536)
        except OSError:  # the last one who wrote to it has gone
            break
        *shown, rest = re.split(r"[\r\n]+", rest + _ESCAPE.sub("", read.decode(errors="replace")))
        yield from (line for line in [*shown, rest] if line.strip())
    os.close(master)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def _watch(run: Run, target: str, model: str, began: float, log: TextIO | None) -> None:
    """Follows what the server tells."""
    with graft.Client(target) as client:
        while True:
            try:
                for event in client.watch(model, "a"):
                    _note(run, event, time.monotonic() - began, log)
            except graft.NotFoundError:
                time.sleep(0.05)  # it has not begun yet
            else:
                return


def _note(run: Run, event: graft.Event, now: float, log: TextIO | None) -> None:
    if event.kind == "committed":
        run.committed = now
    if event.kind == "published":
        run.published = now
    told = event.progress
    if told is None:
        return
    run.messages += 1
    seen = f"{told.stage} {told.done} {told.total} {told.fraction:.3f}"
    run.told.note(now, told.stage, seen)
    if told.commit_id:
        run.fractions.append(told.fraction)
        if told.eta_s is not None:
            run.estimates.append((now, told.eta_s))
    if log is not None:
        log.write(f"{now:8.2f} server   {seen} elapsed {told.elapsed_s} left {told.eta_s}\n")


def _figures(run: Run, what: str) -> list[Figure]:
    terminal, told = run.terminal.longest(), run.told.longest()
    figures = [
        at_most(
            f"{what}: longest time without a visible change, terminal",
            max(terminal.values()),
            MOST_S,
            "s",
            _by_stage(terminal),
        ),
        at_most(
            f"{what}: longest time without a change in what the server tells",
            max(told.values()),
            MOST_S,
            "s",
            _by_stage(told),
        ),
        Figure(f"{what}: from commit to published", run.published - run.committed, "s"),
        Figure(f"{what}: messages of progress", run.messages / run.published, "a second"),
        at_most(
            f"{what}: how often the fraction fell",
            float(np.count_nonzero(np.diff(run.fractions) < 0)),
            0,
            "times",
        ),
    ]
    if len(run.errors):
        figures += [
            Figure(
                f"{what}: estimates from 10 s on are off by, median",
                float(100 * np.median(run.errors)),
                "% of the commit's time",
                reference=f"first {100 * run.errors[0]:.0f}%, worst {100 * run.errors.max():.0f}%",
            )
        ]
    return figures


def _by_stage(longest: dict[str, float]) -> str:
    return ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in longest.items() if seconds >= 0.5)


if __name__ == "__main__":
    main()
