"""How fast predictions are served, over the hardware's limit and over a peer, each in one run.

python -m benchmarks.serving [--only throughput latency peer models memory swap overload]

With --only, the figures of the other parts stay what the last run of each found.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

import graft
from benchmarks import load
from benchmarks.datasets import banking77, few_shot
from benchmarks.harness import Figure, Server, at_least, at_most, measured, merged, server, write
from benchmarks.inprocess import backbone, best_loop, one_at_a_time, rate, session, tokenized
from benchmarks.load import Load, predict_requests, write_requests
from benchmarks.mlserver.plain import export
from benchmarks.peers import INFER, infer_requests, mlserver
from graft_server.domain.model import Manifest
from graft_server.heads import decode, encode
from graft_server.heads.maps import KernelMap, LinearMap, Member
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.versions import (
    HEAD,
    HEAD_ONNX,
    REPORT,
    read_manifest,
    read_part,
    write_version,
)
from graft_server.store.objects.objects import Objects

CORES = 2
MODEL = "banking"
CLASSES = 77
MANY = 1_000
SWAPS = 100
SWAP_S = 20.0
LANDMARKS = 2_000


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts share: a running server with one model, and texts to ask about."""

    server: Server
    store: Path
    client: graft.Client
    texts: Sequence[str]
    folder: Path
    one: Path
    """Requests of one text each."""
    sixteen: Path

    def run(
        self, requests: Path, per_request: int, in_flight: int, count: int, rate: float = 0.0
    ) -> load.Answered:
        """Sends requests to the server."""
        return load.run(Load(self.server.target, requests, per_request, count, in_flight, rate))


def main() -> None:
    parts = {it.__name__: it for it in (throughput, latency, peer, models, memory, swap, overload)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", choices=parts, default=list(parts), help="parts to run (default: all)"
    )
    chosen = parser.parse_args().only
    data = banking77()
    texts = [data.test[row] for row in np.random.default_rng(0).permutation(len(data.test))]
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as temporary:
        folder = Path(temporary)
        one = write_requests(folder / "one", predict_requests([MODEL], texts, 1))
        sixteen = write_requests(folder / "sixteen", predict_requests([MODEL], texts, 16))
        store = folder / "store"
        with server(store=store) as running, graft.Client(running.target) as client:
            rows = few_shot(data.train_labels, 8, 0)
            client.adapt(MODEL, [(data.train[row], data.classes[data.train_labels[row]]) for row in rows])
            bench = Bench(running, store, client, texts, folder, one, sixteen)
            figures = measured({name: partial(part, bench) for name, part in parts.items()}, chosen)
    write("serving", "Serving on 2 cores, CPU, fp32", merged("serving", list(parts), figures))


def throughput(bench: Bench) -> list[Figure]:
    """Over the best in-process loop; the two alternate, so that a noisy machine is noisy for both."""
    tokens = tokenized(bench.texts)
    loop, _ = best_loop(tokens, CORES)
    running = session(loop.threads, spinning=loop.threads > 1)
    ones, sixteens, limits = [], [], []
    for _ in range(3):
        limits.append(rate(loop, running, tokens))
        ones.append(bench.run(bench.one, 1, 64, len(bench.texts)).texts_per_s)
        limits.append(rate(loop, running, tokens))
        sixteens.append(bench.run(bench.sixteen, 16, 8, len(bench.texts) // 16).texts_per_s)
    limit, one, sixteen = (float(np.median(it)) for it in (limits, ones, sixteens))
    reference = f"best in-process loop {limit:.0f} texts/s: {loop}"
    return [
        at_least(
            "1 text a request, 64 in flight, over in-process",
            one / limit,
            0.80,
            "x",
            f"{one:.0f}/s; {reference}",
        ),
        at_least(
            "16 texts a request, 8 in flight, over in-process",
            sixteen / limit,
            0.92,
            "x",
            f"{sixteen:.0f}/s; {reference}",
        ),
    ]


def latency(bench: Bench) -> list[Figure]:
    """One at a time, and at half load."""
    limit = one_at_a_time(tokenized(bench.texts[:500]), threads=1)
    alone = bench.run(bench.one, 1, 1, 500)
    p50 = alone.percentile(50)
    capacity = bench.run(bench.one, 1, 64, 1500).texts_per_s
    half = bench.run(bench.one, 1, 256, 1500, rate=capacity / 2)
    at_half = f"p50 {half.percentile(50):.2f} ms, p99 {half.percentile(99):.2f} ms at {capacity / 2:.0f}/s"
    return [
        at_most(
            "p50, one request at a time, over in-process batch 1 with the same threads and spinning",
            p50 / limit, 1.35, "x", f"{p50:.2f} ms; in-process {limit:.2f} ms",
        ),
        at_most(
            "p99 at 50% Poisson load, over p50 one at a time",
            half.percentile(99) / p50, 3.5, "x", at_half,
        ),
    ]  # fmt: skip


def peer(bench: Bench) -> list[Figure]:
    """MLServer at its best batch size: with a plain export of the encoder, and with the graph that Graft exports."""
    requests = write_requests(bench.folder / "infer", infer_requests(bench.texts))
    plain, bundle = bench.folder / "plain", bench.folder / "bundle"
    export(backbone(), CLASSES, plain)
    bench.client.export(MODEL, bundle)
    figures = []
    for what, graph in (
        ("a plain padded export of the encoder", plain),
        ("the graph that Graft exports", bundle),
    ):

        def theirs(size: int, count: int, graph: Path = graph) -> float:
            folder = Path(tempfile.mkdtemp(dir=bench.folder))
            with mlserver(graph, folder, max_batch=size) as peer:
                load.run(Load(peer.target, requests, 1, 200, 64, method=INFER))
                return load.run(Load(peer.target, requests, 1, count, 64, method=INFER)).texts_per_s

        quick = {size: theirs(size, 500) for size in (4, 8, 16, 32)}
        best = max(quick, key=lambda size: quick[size])
        # The two alternate, so that a noisy machine is noisy for both.
        pairs = [(bench.run(bench.one, 1, 64, 1500).texts_per_s, theirs(best, 1000)) for _ in range(3)]
        ours, peers = (float(np.median(it)) for it in zip(*pairs, strict=True))
        figures.append(
            at_least(
                f"1 text a request, 64 in flight, over MLServer with {what}",
                ours / peers,
                2.0,
                "x",
                f"{ours:.0f}/s; MLServer {peers:.0f}/s at its best batch size, {best}",
            )
        )
    return figures


def models(bench: Bench) -> list[Figure]:
    """Many models in mixed traffic, over one."""
    names = publish_many(bench, "many", MANY)
    mixed = write_requests(bench.folder / "mixed", predict_requests(names, bench.texts, 1))
    for name in names:
        bench.client.predict(name, bench.texts[:1])
    ratios, rates = [], []
    for _ in range(3):
        one = bench.run(bench.one, 1, 64, len(bench.texts)).texts_per_s
        rates.append(bench.run(mixed, 1, 64, len(bench.texts)).texts_per_s)
        ratios.append(rates[-1] / one)
    return [
        at_least(
            f"{MANY:,} models in uniformly mixed traffic, over one",
            float(np.median(ratios)),
            0.95,
            "x",
            f"{np.median(rates):.0f}/s",
        )
    ]


def memory(bench: Bench) -> list[Figure]:
    """Of the serving process, for each further model of 77 labels."""
    return [
        _memory(bench, "linear", 300, _linear_head(bench), lambda each, _: (each, 0.3, "MB")),
        _memory(
            bench, "kernel", 50, _kernel_head(bench), lambda each, own: (each / own, 1.2, "x its parameters")
        ),
    ]


def _memory(
    bench: Bench,
    kind: str,
    count: int,
    head: bytes,
    judge: Callable[[float, float], tuple[float, float, str]],
) -> Figure:
    names = publish_many(bench, kind, count, head)
    bench.client.predict(names[0], bench.texts[:64])
    before = bench.server.resident_mb()
    for name in names[1:]:
        bench.client.predict(name, bench.texts[:1])
    each = (bench.server.resident_mb() - before) / (count - 1)
    own = len(head) / 1e6
    value, most, unit = judge(each, own)
    what = f"memory per further {kind} model of 77 labels"
    return at_most(what, value, most, unit, f"{each:.3f} MB; its parameters {own:.3f} MB")


def swap(bench: Bench) -> list[Figure]:
    """Latency while new versions are published all the time, over latency without."""
    half = 0.5 * bench.run(bench.one, 1, 64, 1500).texts_per_s
    count = int(half * SWAP_S)

    def measured(during: Callable[[], None]) -> load.Answered:
        process = load.start(Load(bench.server.target, bench.one, 1, count, 256, half))
        worker = threading.Thread(target=during)
        worker.start()
        answered = load.finish(process)
        worker.join()
        return answered

    quiet = [measured(lambda: None).percentile(99)]
    # Over the whole run, as services publish: all at once they would measure the writer's use of the processors.
    busy = [measured(lambda: _publish(bench, [MODEL] * SWAPS, every_s=SWAP_S / SWAPS)).percentile(99)]
    quiet.append(measured(lambda: None).percentile(99))
    reference = f"p99 {np.mean(busy):.2f} ms; without {np.mean(quiet):.2f} ms"
    return [
        at_most(
            f"p99 while {SWAPS} versions are published, over p99 without",
            float(np.mean(busy) / np.mean(quiet)),
            1.2,
            "x",
            reference,
        )
    ]


def overload(bench: Bench) -> list[Figure]:
    """More than the server can do: what it still does, and what a refusal costs."""
    with server("--queued-requests", "256", store=bench.store) as small:
        at = dataclasses.replace(bench, server=small)
        at.run(at.one, 1, 64, 500)
        peak16 = at.run(at.sixteen, 16, 8, len(bench.texts) // 16).texts_per_s
        flood16 = at.run(at.sixteen, 16, 10_000, int(5 * peak16 / 16 * 8), rate=5 * peak16 / 16)
        peak1 = at.run(at.one, 1, 64, 1500).texts_per_s
        before = small.cpu_s()
        flood1 = at.run(at.one, 1, 10_000, int(2 * peak1 * 8), rate=2 * peak1)
        cost_ms = _refusal_cost(at, small, before, flood1)
    return [
        at_least(
            "5x load in 16-text requests: goodput over peak",
            flood16.texts_per_s / peak16,
            0.9,
            "x",
            f"{flood16.refused} refused, {flood16.failed} failed",
        ),
        at_most("5x load: p99 of a refusal", float(np.percentile(flood16.refusal_ms or [0.0], 99)), 20, "ms"),
        at_least(
            "2x load in 1-text requests: goodput over peak",
            flood1.texts_per_s / peak1,
            0.7,
            "x",
            f"{flood1.refused} refused, {flood1.failed} failed",
        ),
        at_most("processor time of a refusal", cost_ms, 0.15, "ms"),
    ]


def _refusal_cost(bench: Bench, running: Server, before: float, flood: load.Answered) -> float:
    """What is left of the processor time when that of the answers is taken away, per refusal, in ms."""
    spent = running.cpu_s() - before
    begun = running.cpu_s()
    answered = bench.run(bench.one, 1, 64, 1500)
    each = (running.cpu_s() - begun) / answered.ok
    return 1e3 * max(0.0, spent - each * flood.ok) / max(1, flood.refused)


def publish_many(bench: Bench, prefix: str, count: int, head: bytes | None = None) -> list[str]:
    """Publishes models through the store, as another server would that had trained them."""
    names = [f"{prefix}/{n}" for n in range(count)]
    _publish(bench, names, head)
    # The server reads the catalogue every two seconds.
    while names[-1] not in _names(bench, prefix):
        time.sleep(0.1)
    return names


def _names(bench: Bench, prefix: str) -> set[str]:
    return {it.name for it in bench.client.models(prefix=prefix)}


def _publish(bench: Bench, models: Sequence[str], head: bytes | None = None, every_s: float = 0.0) -> None:
    objects = Objects.open(str(bench.store))
    catalogue = Catalogue(objects)
    parts, manifest = _parts(bench)
    if head is not None:
        parts[HEAD] = head
    began = time.monotonic()
    for n, model in enumerate(models):
        time.sleep(max(0.0, began + n * every_s - time.monotonic()))
        ref = write_version(objects, dataclasses.replace(manifest, model=model), parts)
        commit = f"{n}-{datetime.now(UTC).timestamp()}"
        catalogue.publish(model=model, adaptation_id="benchmark", commit_id=commit, manifest=ref, summary={})


def _parts(bench: Bench) -> tuple[dict[str, bytes], Manifest]:
    """What version 1 of the model consists of."""
    objects = Objects.open(str(bench.store))
    ref = Catalogue(objects).snapshot.model(MODEL).version(1).manifest
    manifest = read_manifest(objects, ref)
    return {name: read_part(objects, ref, manifest, name) for name in (HEAD, HEAD_ONNX, REPORT)}, manifest


def _linear_head(bench: Bench) -> bytes:
    """A head of one linear map: how good it is does not matter to its size."""
    head = decode(_parts(bench)[0][HEAD])
    linear = LinearMap(
        np.zeros((head.dimension, head.classes), np.float32), np.zeros(head.classes, np.float32)
    )
    return encode(dataclasses.replace(head, kind="linear", members=(Member(linear, 1.0, 1.0),)))


def _kernel_head(bench: Bench) -> bytes:
    """A head over 2,000 landmarks, as large as they get."""
    model = decode(_parts(bench)[0][HEAD])
    generator = np.random.default_rng(0)
    landmarks = generator.normal(size=(LANDMARKS, model.dimension))
    landmarks /= np.linalg.norm(landmarks, axis=1, keepdims=True)
    weight = generator.normal(size=(LANDMARKS, model.classes)).astype(np.float32)
    bias = np.zeros(model.classes, np.float32)
    kernel = KernelMap(landmarks.astype(np.float16), 1.0, weight, bias, 1.0)
    return encode(dataclasses.replace(model, kind="kernel", members=(Member(kernel, 1.0, 1.0),)))


if __name__ == "__main__":
    main()
