"""How often the fault tests kill, and the table of what they saw.

In CI a few kills each; `make test-faults` asks for hundreds, and for the table, by the two variables below.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KILLS = int(os.environ.get("GRAFT_FAULT_KILLS", "6"))
"""Of the server, and again of the worker."""
REPORT = os.environ.get("GRAFT_FAULT_REPORT", "")
"""Where to write the table; "": nowhere."""
EXAMPLES = 2_000
"""Of a stream."""


@dataclass
class Seen:
    """What a fault test saw."""

    rows: list[tuple[str, ...]] = field(default_factory=list)


@pytest.fixture(scope="session")
def seen() -> Iterator[Seen]:
    """Takes a row of the table: what was killed, kills, streams, lost, repeated, largest difference, labels."""
    found = Seen()
    yield found
    if REPORT and found.rows:
        Path(REPORT).write_text(_table(found))


@pytest.fixture(scope="session")
def kills() -> int:
    """How many kills of each kind."""
    return KILLS


@pytest.fixture(scope="session")
def stream_rows(intents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows of a stream: all different."""
    return [
        (f"{text} #{n // len(intents)}", label) for n in range(EXAMPLES) for text, label in [_at(intents, n)]
    ]


@pytest.fixture(scope="session")
def probes(intents: list[tuple[str, str]]) -> list[str]:
    """Texts that no stream has, to compare models by."""
    return [f"well, {text}" for text, _ in intents]


def _at(rows: list[tuple[str, str]], n: int) -> tuple[str, str]:
    return rows[n % len(rows)]


def _table(found: Seen) -> str:
    head = (
        "what was killed (-9)",
        "kills",
        f"streams of {EXAMPLES:,} examples, all completed",
        "acknowledged examples lost",
        "examples repeated",
        "largest difference of a probability to the undisturbed run (at most 1e-3)",
        "other labels where the margin is larger",
    )
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *found.rows)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    where = (
        f"cores: {len(os.sched_getaffinity(0))}, memory: {memory} GiB, python: {platform.python_version()}, "
        f"date: {datetime.datetime.now(datetime.UTC).date()}"
    )
    return f"# Kills at random moments\n\n{where}\n\n" + "\n".join(lines) + "\n"
