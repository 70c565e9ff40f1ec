"""What small segments cost a stream of months, and what putting them together saves.

    python -m benchmarks.compaction

A stream that trickled left segments of one example each. Before and after `store.adaptations.compaction`: what a server
that starts on them needs until the writer can go on, and what a commit needs until its worker has all rows. In one
process, on a local folder, with features of the default backbone's size; the figures are ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, write
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.store.adaptations.compaction import compact
from graft_server.store.adaptations.segments import Record, content_digest
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


def main() -> None:
    """Measures, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=5_000)
    segments = parser.parse_args().segments
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as fresh:
        folder = Path(fresh)
        store = load(Objects.open(folder))
        trickle(store, segments)
        before = measure(folder, segments)
        began = time.perf_counter()
        compact(Objects.open(folder), store, ENCODER)
        took_s = time.perf_counter() - began
        after = measure(folder, segments)
    figures = [
        _figure("opening the store until the writer can go on", before["start"], after["start"]),
        _figure("a commit until its worker has all rows", before["commit"], after["commit"]),
        Figure("objects stored", after["objects"], "", reference=f"before: {before['objects']:,.0f}"),
        Figure("putting them together, a segment", 1e3 * took_s / segments, "ms"),
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
