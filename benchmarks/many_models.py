"""What many models and many versions cost: the start, memory, first answers, lists, following the catalogue.

    python -m benchmarks.many_models

Ten thousand models are made through the store's own code, each with a head of 77 classes; then a server starts on them.
Beside it a second server follows the same catalogue. Then two thousand versions of one model are published one after
the other, and each is asked for once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import graft
from benchmarks.harness import Figure, Server, at_most, server, write
from graft_server.backbones.source import DEFAULT_NAME
from graft_server.domain.examples import Label
from graft_server.domain.model import Manifest, ManifestRef
from graft_server.heads.codec import encode
from graft_server.heads.maps import LinearMap, Member
from graft_server.heads.novelty import Novelty
from graft_server.heads.single_label import SingleLabelHead
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import HEAD, write_version
from graft_server.store.objects.objects import Objects

CLASSES, DIMENSION = 77, 384
COLD = 50
"""Models that are asked for the first time, one after the other."""
TEXT = "the lock of my bike does not open, and the app says that my ride goes on"
SUMMARY = {
    "examples": 770, "validation_examples": 0, "classes": CLASSES, "accuracy": 0.9312, "macro_f1": 0.9212,
    "log_loss": 0.2912, "calibration_error": 0.0312, "accuracy_low": 0.9112, "accuracy_high": 0.9474,
    "backbone": DEFAULT_NAME, "seed": 0, "warnings": [],
    "evaluation": {"method": "cross_validation", "folds": 5, "repeats": 1},
}  # fmt: skip
HEADS_MB = 32
"""The bound of heads in the second part: it is reached early."""


class Shop:
    """A store with models."""

    def __init__(self, folder: Path, encoder_id: str) -> None:
        """Opens the store, and makes the head that all models have."""
        self.objects = Objects.open(folder)
        self.catalogue = Catalogue(self.objects)
        self.encoder_id = encoder_id
        rng = np.random.default_rng(1)
        weight = rng.normal(size=(DIMENSION, CLASSES)).astype(np.float32)
        anchors = rng.normal(size=(4 * CLASSES, DIMENSION)).astype(np.float16)
        ends = np.array([0, 1], np.float32)
        member = Member(LinearMap(weight, np.zeros(CLASSES, np.float32)), 1.0, 1.0)
        novelty = Novelty(anchors, 1.0, 1.0, ends, ends)
        self.head = encode(SingleLabelHead("logistic", "pooled", (member,), 1.0, novelty))
        self.labels = tuple(Label(f"label number {n}") for n in range(CLASSES))

    def parts(self, model: str) -> ManifestRef:
        """Writes a version's parts."""
        manifest = Manifest(
            model, "a", "c", DEFAULT_NAME, self.encoder_id, self.labels, (), 0, datetime.now(UTC)
        )
        return write_version(self.objects, manifest, {HEAD: self.head})

    def publish(self, model: str, commit_id: str, parts: ManifestRef) -> None:
        """Publishes a version."""
        self.catalogue.publish(
            model=model,
            adaptation_id="a",
            commit_id=commit_id,
            manifest=parts,
            summary={**SUMMARY, "encoder_id": self.encoder_id},
        )

    def fill(self, models: int) -> None:
        """Makes models with one version each."""
        names = [f"team/model-{n}" for n in range(models)]
        with ThreadPoolExecutor(8) as pool:
            for name, parts in zip(names, pool.map(self.parts, names), strict=True):
                self.publish(name, "c", parts)


def encoder_of_default() -> str:
    """The id of the default backbone's encoder on this machine."""
    with server() as started, graft.Client(started.target) as client:
        return next(it.encoder_id for it in client.backbones() if it.name == DEFAULT_NAME)


@contextmanager
def timed() -> Iterator[list[float]]:
    """Gives a list to which the seconds of the block are added."""
    took: list[float] = []
    began = time.perf_counter()
    yield took
    took.append(time.perf_counter() - began)


def first_answers(client: graft.Client, models: int) -> list[float]:
    """Seconds until models that were not asked for yet have answered."""
    client.predict("team/model-0", TEXT)  # connects
    found = []
    for n in np.random.default_rng(2).choice(np.arange(1, models), min(COLD, models - 1), replace=False):
        with timed() as took:
            client.predict(f"team/model-{n}", TEXT)
        found += took
    return found


def idle_share(started: Server, seconds: float = 5.0) -> float:
    """The share of a processor that a server takes that only follows the catalogue."""
    before = started.cpu_s()
    time.sleep(seconds)
    return (started.cpu_s() - before) / seconds


def many_models(folder: Path, shop: Shop, models: int) -> list[Figure]:
    """Figures of a server on a store with many models."""
    tracemalloc.start()
    with timed() as reading:
        catalogue = Catalogue(Objects.open(folder))
    held = tracemalloc.get_traced_memory()[0] / models
    tracemalloc.stop()
    assert len(catalogue.snapshot.models) == models
    with timed() as reading:
        Catalogue(Objects.open(folder))
    began = time.perf_counter()
    with server(store=folder) as started, graft.Client(started.target) as client:
        client.health()
        start_s = time.perf_counter() - began
        resident = started.resident_mb()
        answers = first_answers(client, models)
        warm = []
        for _ in range(COLD):
            with timed() as took:
                client.predict("team/model-0", TEXT)
            warm += took
        with timed() as listing:
            listed = sum(1 for _ in client.models())
        assert listed == models
        idle = idle_share(started)
        with server(store=folder) as other, graft.Client(other.target) as second:
            shop.publish("team/new", "c", shop.parts("team/new"))
            with timed() as following:
                while not any(it.name == "team/new" for it in second.models(prefix="team/new")):
                    time.sleep(0.02)
        after = started.resident_mb()
    return [
        at_most("start until health is SERVING, the process included", start_s, 2, "s"),
        Figure("of that, the catalogue", reading[0], "s"),
        at_most("resident memory after the start", resident, 350, "MB"),
        at_most("first answer of a cold model, p50", 1e3 * float(np.median(answers)), 30, "ms"),
        at_most("first answer of a cold model, the slowest", 1e3 * max(answers), 30, "ms",
                f"warm: {1e3 * float(np.median(warm)):.1f} ms"),
        Figure("memory of a model in the catalogue", held, "bytes"),
        Figure("listing all models", 1e3 * listing[0] / (models / 100), "ms a page of 100"),
        at_most("processor of a server that only follows", 100 * idle, 5, "%"),
        at_most("a publication by another process is known after", following[0], 2, "s"),
        Figure("resident memory after all of it", after, "MB"),
    ]  # fmt: skip


def many_versions(shop: Shop, folder: Path, versions: int) -> list[Figure]:
    """Figures of one server that is asked for each of many versions."""
    at_once = 50
    with (
        server("--heads-memory-mb", str(HEADS_MB), store=folder) as started,
        graft.Client(started.target) as client,
    ):
        bounded = 0.0
        for first in range(1, versions + 1, at_once):
            numbers = range(first, min(first + at_once, versions + 1))
            for number in numbers:
                shop.publish("one", f"c{number}", shop.parts("one"))
            while not any(it.latest_version >= numbers[-1] for it in client.models(prefix="one")):
                time.sleep(0.02)
            for number in numbers:
                client.predict("one", TEXT, version=number)
            if not bounded and first > versions // 5:
                bounded = started.resident_mb()
        grown = started.resident_mb() - bounded
    return [
        Figure(f"resident memory with a bound of {HEADS_MB} MiB, once it is reached", bounded, "MB"),
        at_most(f"growth over the {versions - versions // 5:,} versions after that", grown, 10, "MB"),
    ]


def main() -> None:
    """Measures, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=2_000)
    parser.add_argument(
        "--folder", type=Path, help="where the stores are made (default: the temporary folder)"
    )
    asked = parser.parse_args()
    encoder_id = encoder_of_default()
    figures = []
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-", dir=asked.folder) as fresh:
        models, versions = Path(fresh) / "models", Path(fresh) / "versions"
        shop = Shop(models, encoder_id)
        with timed() as filling:
            shop.fill(asked.models)
        figures += many_models(models, shop, asked.models)
        figures += many_versions(Shop(versions, encoder_id), versions, asked.versions)
    notes = [f"The {asked.models:,} models were made in {filling[0]:.0f} s. The encoder is in the cache."]
    write("many_models", f"{asked.models:,} models, and {asked.versions:,} versions of one", figures, notes)


if __name__ == "__main__":
    main()
