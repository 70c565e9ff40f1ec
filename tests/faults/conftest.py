"""How often the fault tests kill, and the table of what they saw.

`make test` runs one short stream of each kind, `make test-slow` hundreds of kills. `make test-faults` asks for as many
in longer streams, for a file that keeps what each stream saw, so that a run that was cut off goes on where it was,
and for the table.
"""

from __future__ import annotations

import datetime
import itertools
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

KILLS = int(os.environ.get("GRAFT_FAULT_KILLS", "200"))
"""Of the server, and again of the worker, in all of STREAMS."""
KILLS_A_STREAM = 20
SHORT, KILLS_OF_SHORT = 0, 4
"""The number of the short stream, and how many kills it gets."""
KEPT = os.environ.get("GRAFT_FAULT_KEPT", "")
"""The file of what each stream saw, a line each; "": nothing is kept."""
REPORT = os.environ.get("GRAFT_FAULT_REPORT", "")
"""Where to write the table once all streams were run; "": nowhere."""
EXAMPLES = int(os.environ.get("GRAFT_FAULT_EXAMPLES", "600"))
"""Of a stream."""
STREAMS = range(1, 1 + -(-KILLS // KILLS_A_STREAM))
VICTIMS = ("server", "worker")


class Kill(msgspec.Struct, frozen=True):
    """One kill -9."""

    after_s: float
    """Since the server was up, or since the commit was durable."""
    stage: str
    """What the client said that was being done."""
    acknowledged: int
    """How many examples of the stream were acknowledged."""


class Seen(msgspec.Struct, frozen=True):
    """What one stream saw."""

    victim: str
    stream: int
    kills: list[Kill]
    lost: int
    """Acknowledged examples that are not stored."""
    repeated: int
    """Examples that are stored or trained on more than once, or at another place than they were sent."""
    difference: float
    """The largest difference of a test probability to the undisturbed run."""
    other_labels: int
    """How many labels differ from the undisturbed run's where that one's margin is larger than 1e-3."""


class Sightings:
    """What the streams saw, kept in a file that several processes may append to."""

    def __init__(self, kept: Path | None) -> None:
        self._kept = kept
        self._seen: list[Seen] = []

    def find(self, victim: str, stream: int) -> Seen | None:
        """What a stream saw in this run or in the one that was cut off before it."""
        return next((it for it in self.all() if (it.victim, it.stream) == (victim, stream)), None)

    def add(self, seen: Seen) -> None:
        self._seen.append(seen)
        if self._kept is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with self._kept.open("ab") as file:
                file.write(msgspec.json.encode(seen) + b"\n")

    def all(self) -> list[Seen]:
        if self._kept is None or not self._kept.exists():
            return self._seen
        return [msgspec.json.decode(line, type=Seen) for line in self._kept.read_bytes().splitlines()]


@pytest.fixture(scope="session")
def sightings() -> Iterator[Sightings]:
    """Takes what each stream saw; writes the table when all were run, and forgets them for the next run."""
    found = Sightings(Path(KEPT) if KEPT else None)
    yield found
    done = {(it.victim, it.stream) for it in found.all()}
    if REPORT and done == set(itertools.product(VICTIMS, STREAMS)):
        Path(REPORT).write_text(table(found.all()))
        if KEPT:
            Path(KEPT).replace(Path(REPORT).with_suffix(".jsonl"))


@pytest.fixture(scope="session")
def kills_of() -> Callable[[int], int]:
    """How many kills a stream gets, by its number."""

    def kills(stream: int) -> int:
        if stream == SHORT:
            return KILLS_OF_SHORT
        return min(KILLS_A_STREAM, KILLS - (stream - 1) * KILLS_A_STREAM)

    return kills


@pytest.fixture(scope="session")
def stream_rows(intents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows of a stream: all different."""
    rows = itertools.islice(itertools.cycle(intents), EXAMPLES)
    return [(f"{text} #{n // len(intents)}", label) for n, (text, label) in enumerate(rows)]


@pytest.fixture(scope="session")
def probes(intents: list[tuple[str, str]]) -> list[str]:
    """Texts that no stream has, to compare models by."""
    return [f"well, {text}" for text, _ in intents]


def table(seen: Sequence[Seen]) -> str:
    """The table of all streams, and what the kills met."""
    head = (
        "what was killed (-9)",
        "kills",
        f"streams of {EXAMPLES:,} examples, all completed",
        "acknowledged examples lost",
        "examples repeated",
        "largest difference of a probability to the undisturbed run (at most 1e-3)",
        "other labels where the margin is larger",
    )
    rows = [_row(victim, [it for it in seen if it.victim == victim]) for victim in VICTIMS]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    where = (
        f"cores: {len(os.sched_getaffinity(0))}, memory: {memory} GiB, python: {platform.python_version()}, "
        f"date: {datetime.datetime.now(datetime.UTC).date()}"
    )
    stages = [f"- the {victim}: {_stages(it for it in seen if it.victim == victim)}" for victim in VICTIMS]
    return "\n".join(
        (
            "# Kills at random moments",
            "",
            where,
            "",
            *("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)),
            "",
            "What the client said that was being done when the kills came:",
            "",
            *stages,
            "",
            "`make test-faults` runs all of it; [faults.jsonl](faults.jsonl) has every kill.",
            "",
        )
    )


def _row(victim: str, seen: Sequence[Seen]) -> tuple[str, ...]:
    return (
        f"the {victim}",
        str(sum(len(it.kills) for it in seen)),
        str(len(seen)),
        str(sum(it.lost for it in seen)),
        str(sum(it.repeated for it in seen)),
        f"{max(it.difference for it in seen):.1e}",
        str(sum(it.other_labels for it in seen)),
    )


def _stages(seen: Iterable[Seen]) -> str:
    counts = Counter(kill.stage for it in seen for kill in it.kills)
    return ", ".join(f"{stage} {count}" for stage, count in counts.most_common())
