"""What small segments cost a stream of months, and what putting them together saves.

    python -m benchmarks.compaction

A stream that trickled left segments of one example each. Before and after `store.adaptations.compaction`: what a server
that starts on them needs until the writer can go on, and what a commit needs until its worker has all rows. In one
process, on a local folder, with features of the default backbone's size; the figures are ratios.

Then a stream of one example a second for a month, as put together, with all its generations: what opening it takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, at_most, write
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.store.adaptations.compaction import FAN_IN, compact
from graft_server.store.adaptations.generations import Generation, Piece, new_name
from graft_server.store.adaptations.keys import index_key, writer_folder
from graft_server.store.adaptations.segments import (
    Record,
    Segment,
    content_digest,
    encode_index,
    encode_segment,
    segment_key,
)
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_rows
from graft_server.store.objects.objects import Objects

ENCODER, DIMENSION = "e", 384
REPEATS = 3
START = Start(AdaptationSettings("minilm"), datetime(2026, 1, 1, tzinfo=UTC))


def load(objects: Objects) -> AdaptationStore:
    """The adaptation, as a server that starts knows it."""
    return AdaptationStore.create(objects, "m", "a", START)


def trickle(store: AdaptationStore, segments: int) -> None:
    """Appends segments of one example each."""
    rng = np.random.default_rng(1)
    for n in range(segments):
        text = f"the lock of bike {n} does not open, and the app says that my ride goes on"
        record = Record(
            content_digest(text.encode()), Change(Example(str(n), Input(text), f"label {n % 12}"))
        )
        segment = store.writer("w").append([record])
        store.write_features(segment, ENCODER, {"pooled": rng.normal(size=(1, DIMENSION)).astype(np.float16)})


def fastest_s(work: Callable[[], object]) -> float:
    """The time of the fastest of some runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(folder: Path, segments: int) -> dict[str, float]:
    """Seconds of starting and of reading a commit's rows, and objects stored."""
    objects = Objects.open(folder)
    sources = [Source("a", {"w": segments})]
    return {
        "start": fastest_s(lambda: load(Objects.open(folder)).writer("w")),
        "commit": fastest_s(lambda: read_rows(objects, "m", sources, ENCODER)),
        "objects": len(objects.keys("models/")),
    }


def grow(objects: Objects, days: float) -> int:
    """Leaves what a stream of one example a second has come to, and returns its examples."""
    store = load(objects)
    examples, first, rewritten = int(days * 86_400), 0, []
    while first + FULL <= examples:
        rewritten.append(_joined(objects, store, first, FULL))
        first += FULL
    # What each join of 64 has entered: the segments of the lower levels are gone, their generations are not.
    for number, start in enumerate(range(0, first, FAN_IN), 1):
        written = rewritten[start // FULL] if start % FULL == FULL - FAN_IN else _passed(start)
        store.generations.append(Generation(datetime(2026, 1, 2, tzinfo=UTC), {"w": (written,)}), number)
    return first


MEMORY = Path("/dev/shm")  # noqa: S108 -- a folder within is made by tempfile
FULL = 64 * FAN_IN
"""Examples of a segment that is not joined further."""


def _passed(start: int) -> Piece:
    return Piece(start, start + FAN_IN, start + FAN_IN, new_name(start, start // FAN_IN + 1))


def _joined(objects: Objects, store: AdaptationStore, first: int, count: int) -> Piece:
    """Writes a segment that was joined of so many, and its index."""
    records = tuple(
        Record(
            content_digest(str(n).encode()), Change(Example(str(n), Input(f"text {n}"), f"label {n % 12}"))
        )
        for n in range(first, first + count)
    )
    name = new_name(first, (first + count) // FAN_IN)
    segment = Segment("w", first, first, records, ordinals=count, rewritten=name)
    folder = writer_folder(store.model, store.name, "w")
    objects.create(segment_key(folder, name), encode_segment(segment))
    objects.create(index_key(store.model, store.name, "w", name), encode_index(segment))
    return Piece(first, first + count, first + count, name)


def main() -> None:
    """Measures, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=5_000)
    parser.add_argument("--days", type=float, default=30.0, help="of one example a second")
    asked = parser.parse_args()
    segments = asked.segments
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as fresh:
        folder = Path(fresh)
        store = load(Objects.open(folder))
        trickle(store, segments)
        before = measure(folder, segments)
        began = time.perf_counter()
        compact(Objects.open(folder), store, ENCODER)
        took_s = time.perf_counter() - began
        after = measure(folder, segments)
    # What is measured is read from memory anyway, and 40,000 generations would be synced one by one.
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-", dir=memory) as fresh:
        folder = Path(fresh)
        examples = grow(Objects.open(folder), asked.days)
        opened_s = fastest_s(lambda: load(Objects.open(folder)).writer("w"))
        assert load(Objects.open(folder)).writer("w").next_sequence == examples
    figures = [
        _figure("opening the store until the writer can go on", before["start"], after["start"]),
        _figure("a commit until its worker has all rows", before["commit"], after["commit"]),
        Figure("objects stored", after["objects"], "", reference=f"before: {before['objects']:,.0f}"),
        Figure("putting them together, a segment", 1e3 * took_s / segments, "ms"),
        at_most(f"opening {examples:,} examples of {asked.days:g} days, one a second", opened_s, 2, "s"),
    ]
    write(
        "compaction",
        f"{segments:,} segments of one example each, put together",
        figures,
        ["How many times faster it is afterwards. A server puts 64 together as soon as it has so many."],
    )


def _figure(what: str, before_s: float, after_s: float) -> Figure:
    times = f"before: {before_s:.3f} s, after: {after_s:.3f} s"
    return Figure(what, before_s / after_s, "times faster", reference=times)


if __name__ == "__main__":
    main()
