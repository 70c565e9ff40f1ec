"""What extending a model costs, and what twelve corrections do to its accuracy.

    GRAFT_DATA=… python -m benchmarks.extending

A base of 100,000 short texts is opened as an adaptation opens it, and all of them are sent again: what is measured is
processor time, with the reading of the same stored examples as the reference, and the memory that is held. Then, over
draws of 400 examples of 12 classes of BANKING77, of which 12 have a wrong label, the 12 are sent once more with the
right one: extending the version, and in its place.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import graft
from benchmarks.datasets import Texts, banking77
from benchmarks.harness import Figure, at_least, at_most, server, write
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.matching import StoredMatching
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.store.adaptations.segments import Record
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_inputs
from graft_server.store.objects.objects import Objects

CLASSES, EXAMPLES, CORRECTIONS = 12, 400, 12
SEGMENT = 1_024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000, help="of the large base; default: 100000")
    parser.add_argument("--draws", type=int, default=5, help="of 400 examples; default: 5")
    args = parser.parse_args()
    write("extending", "Extending a model", [*large_base(args.examples), *corrections(args.draws)])


def large_base(count: int) -> list[Figure]:
    """Opens a large base and sends all of it again."""
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as folder:
        objects = Objects.open(Path(folder))
        stored = AdaptationStore.create(objects, "m", "a", _start())
        log = stored.writer("w")
        for first in range(0, count, SEGMENT):
            rows = range(first, min(first + SEGMENT, count))
            log.append([Record(n + 1, Change(upsert=_example("a", n))) for n in rows])
        sources = (Source("a", {"w": count}),)
        began = time.process_time()
        read_inputs(objects, "m", sources)
        reading_s = time.process_time() - began
        began = time.process_time()
        matching = _opened(objects, sources)
        opening_s = time.process_time() - began
        sent = [Incoming(n + 1, Change(upsert=_example("b", n)), False, False) for n in range(count)]
        began = time.process_time()
        found = matching.records(sent)
        matching_s = time.process_time() - began
        assert all(it.unchanged for it in found)
        del sent, found, matching
        gc.collect()
        tracemalloc.start()
        held = _opened(objects, sources)
        gc.collect()
        bytes_held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del held
    read = f"reading them: {reading_s:.2f} s"
    return [
        at_most(f"opening a base of {count:,} examples, processor time", opening_s, 4 * reading_s, "s", read),
        Figure(
            "matching one example that is there already", 1e6 * matching_s / count, "µs of processor time"
        ),
        at_most("memory held for an example of the base", bytes_held / count, 300, "bytes"),
    ]


def corrections(draws: int) -> list[Figure]:
    """Corrects 12 of 400 examples, in both ways."""
    data = banking77()
    with server() as running, graft.Client(running.target) as client:
        accuracies = [_corrected(client, data, seed) for seed in range(draws)]
    before, extended, replaced = map(float, np.mean(accuracies, axis=0))
    of = f"before: {100 * before:.1f} %, over {draws} draws"
    return [
        at_least("accuracy with 12 corrections that extend", 100 * extended, 100 * before, "%", of),
        Figure("accuracy of the 12 corrections in the version's place", 100 * replaced, "%", "", of),
    ]


def _corrected(client: graft.Client, data: Texts, seed: int) -> tuple[float, float, float]:
    """Returns the accuracy on held-out texts before, after extending, and after replacing."""
    chance = random.Random(seed)  # noqa: S311
    chosen = set(chance.sample(range(len(data.classes)), CLASSES))
    rows = [(text, int(it)) for text, it in zip(data.train, data.train_labels, strict=True) if it in chosen]
    chance.shuffle(rows)
    right = [(text, data.classes[it]) for text, it in rows[:EXAMPLES]]
    fixes = right[:CORRECTIONS]
    wrong = [(text, chance.choice([data.classes[it] for it in chosen])) for text, _ in fixes]
    held_out = [
        (text, data.classes[it]) for text, it in zip(data.test, data.test_labels, strict=True) if it in chosen
    ]
    model = f"benchmark/{seed}"
    client.adapt(model, wrong + right[CORRECTIONS:], seed=seed)
    before = client.evaluate(model, held_out).accuracy
    result = client.adapt(model, fixes, extend=True, seed=seed)
    assert result.extension is not None
    assert result.extension.added == 0
    extended = client.evaluate(model, held_out).accuracy
    client.adapt(model, fixes, seed=seed)
    replaced = client.evaluate(model, held_out).accuracy
    return before or 0.0, extended or 0.0, replaced or 0.0


def _start(sources: tuple[Source, ...] = ()) -> Start:
    settings = AdaptationSettings("minilm", base_version=len(sources), match_content=True)
    return Start(settings, datetime.now(UTC), sources)


def _example(adaptation_id: str, n: int) -> Example:
    text = (
        f"where is the parcel that I ordered on day {n}? It should have been here by now, please have a look"
    )
    return Example(f"{adaptation_id}/w/{n}", Input(text), f"label {n % 50}")


def _opened(objects: Objects, sources: tuple[Source, ...]) -> StoredMatching:
    matching = StoredMatching(objects, AdaptationStore.create(objects, "m", "b", _start(sources)))
    matching.follow()
    return matching


if __name__ == "__main__":
    main()
