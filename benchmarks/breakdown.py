"""Where a request's time goes: processor time by part of the program, and what a request waits for; and MLServer's.

python -m benchmarks.breakdown

Needs Linux's `perf`, and the right to use it (root, or kernel.perf_event_paranoid of at most 1). What it measures
explains the figures of `benchmarks.serving`; none of these has a target.
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import graft
from benchmarks import load
from benchmarks.datasets import banking77, few_shot
from benchmarks.harness import cpu_s, hardware, save, server
from benchmarks.inprocess import Tokens, backbone, best_loop, one_at_a_time, session, tokenized
from benchmarks.load import Load, predict_requests, write_requests
from benchmarks.mlserver.plain import export
from benchmarks.peers import INFER, infer_requests, mlserver

MODEL = "banking"
CLASSES = 77
REQUESTS = 2_000
PARTS = {
    "encoder (ONNX Runtime)": ("onnxruntime",),
    "Python": ("libpython", "python3", "_asyncio"),
    "the kernel": ("kernel", "vdso"),
    "heads (NumPy, OpenBLAS)": ("openblas", "_multiarray_umath"),
    "gRPC's core": ("cygrpc",),
    "tokenizing": ("tokenizers",),
    "messages": ("_message", "_upb", "pydantic"),
    "the C library": ("libc.", "libm.", "ld-linux", "libstdc++"),
}
OTHER = "other"
ALONE, FULL, HALF = "Graft, one at a time", "Graft, 64 in flight", "Graft, half of that"
PADDED = 640
"""Texts of a loop over a plain export."""
QUEUED = 200_000
"""Requests of a simulated queue."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a load cost a server, per text."""

    rate: float
    """Texts per second."""
    server_ms: float
    """Processor time of the server."""
    generator_ms: float
    """Processor time of the load generator, its start included."""
    waited_ms: float
    """How long the server's threads together were ready to run and had no processor."""
    parts_ms: dict[str, float]
    """The server's processor time by part of the program."""
    answered: load.Answered


def main() -> None:
    data = banking77()
    texts = [data.test[row] for row in np.random.default_rng(0).permutation(len(data.test))]
    tokens = tokenized(texts)
    columns: dict[str, Spent] = {}
    with tempfile.TemporaryDirectory(prefix="graft-breakdown-") as temporary:
        folder = Path(temporary)
        one = write_requests(folder / "one", predict_requests([MODEL], texts, 1))
        infer = write_requests(folder / "infer", infer_requests(texts))
        plain, bundle = folder / "plain", folder / "bundle"
        export(backbone(), CLASSES, plain)
        alone_ms = one_at_a_time(tokens[:500], threads=1)
        loops = {
            "packed, without padding": best_loop(tokens, 2)[1],
            "a plain export": padded_rate(plain, tokens),
        }
        with server() as running, graft.Client(running.target) as client:
            rows = few_shot(data.train_labels, 8, 0)
            client.adapt(MODEL, [(data.train[row], data.classes[data.train_labels[row]]) for row in rows])
            client.export(MODEL, bundle)

            def ask(in_flight: int, rate: float = 0.0) -> Spent:
                return spent(
                    running.process.pid,
                    Load(running.target, one, 1, REQUESTS, in_flight, rate, timings=True),
                    folder / "perf",
                )

            columns[ALONE] = ask(1)
            columns[FULL] = ask(64)
            columns[HALF] = ask(256, columns[FULL].rate / 2)
        for name, graph, size in (("plain export", plain, 4), ("Graft's graph", bundle, 32)):
            (folder / f"mlserver-{size}").mkdir()
            with mlserver(graph, folder / f"mlserver-{size}", max_batch=size) as peer:
                columns[f"MLServer, {name}, 64 in flight"] = spent(
                    peer.pid, Load(peer.target, infer, 1, REQUESTS, 64, method=INFER), folder / "perf"
                )
    report(columns, loops, alone_ms)


def padded_rate(plain: Path, texts: Sequence[Tokens]) -> float:
    """Texts per second of a bare loop over a plain export, batches padded, by the best of some sizes and threads."""
    rates = []
    for threads, size in itertools.product((1, 2), (1, 4, 8, 16, 32)):
        running = session(threads, spinning=threads > 1, graph=plain / "model.onnx")
        batches = [_padded(texts[n : n + size]) for n in range(0, PADDED, size)]
        began = time.perf_counter()
        with ThreadPoolExecutor(2 // threads) as workers:
            list(workers.map(lambda batch: running.run(None, batch), batches))  # noqa: B023 -- done within the turn
        rates.append(PADDED / (time.perf_counter() - began))
    return max(rates)


def _padded(texts: Sequence[Tokens]) -> dict[str, Tokens]:
    longest = max(map(len, texts))
    ids, mask = (np.zeros((len(texts), longest), np.int64) for _ in range(2))
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def spent(pid: int, what: Load, recording: Path) -> Spent:
    """Sends the load to the server of that process, and sees what that takes."""
    load.run(replace(what, count=200))
    before, waited, children = cpu_s(pid), _waited_s(pid), os.times()
    answered = load.run(what)
    after, ended = cpu_s(pid), os.times()
    waited = _waited_s(pid) - waited
    generator = (
        ended.children_user + ended.children_system - children.children_user - children.children_system
    )
    each = 1e3 / answered.texts
    # Again, under perf, which costs a few percent: only the shares are taken from it.
    with _recorded(pid, recording):
        load.run(what)
    server_ms = (after - before) * each
    return Spent(
        answered.texts_per_s,
        server_ms,
        generator * each,
        waited * each,
        {part: share * server_ms for part, share in _shares(recording).items()},
        answered,
    )


def _waited_s(pid: int) -> float:
    """How long the threads that the process has now were ready to run and had no processor, in seconds."""
    stats = [it.read_text() for it in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(it.split()[1]) for it in stats) / 1e9


@contextmanager
def _recorded(pid: int, file: Path) -> Iterator[None]:
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-p", str(pid), "-o", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _shares(file: Path) -> dict[str, float]:
    """The share of each part of the program, by the library that was running."""
    shown = ["--stdio", "--sort", "dso", "-t", ";", "--percent-limit", "0"]
    command = ["perf", "report", "-i", str(file), *shown]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    shares = dict.fromkeys([*PARTS, OTHER], 0.0)
    for line in lines:
        percent, _, library = line.partition(";")
        if percent.strip().endswith("%"):
            part = next((it for it, names in PARTS.items() if any(n in library for n in names)), OTHER)
            shares[part] += float(percent.strip().rstrip("%")) / 100
    return shares


def queued(services_ms: Sequence[float], rate: float, workers: int) -> NDArray[np.float64]:
    """Response times, in ms, of a simulated queue: what waiting alone would do.

    Requests come at random moments (Poisson), and each is served alone, in order, by the first worker that is free.

    Args:
        services_ms: How long requests take alone, one of which each request draws.
        rate: Requests per second.
        workers: How many are served at the same time.
    """
    generator = np.random.default_rng(0)
    arrivals = np.cumsum(generator.exponential(1e3 / rate, QUEUED))
    free, responses = [0.0] * workers, np.empty(QUEUED)
    for row, (arrival, service) in enumerate(
        zip(arrivals, generator.choice(services_ms, QUEUED), strict=True)
    ):
        end = max(arrival, heapq.heappop(free)) + service
        heapq.heappush(free, end)
        responses[row] = end - arrival
    return responses


def report(columns: dict[str, Spent], loops: dict[str, float], alone_ms: float) -> None:
    """Writes results/breakdown.md and .json."""
    parts = [*PARTS, OTHER]
    names = list(columns)
    lines = ["# Where the time goes", "", ", ".join(f"{k}: {v}" for k, v in hardware().items()), ""]
    lines += [
        "Milliseconds of processor time per text, one text a request; the parts by `perf record -e cpu-clock`, by the",
        "library that ran.",
        "",
        f"| | {' | '.join(names)} |",
        "|---|" + len(names) * "---|",
        _row("texts per second", [f"{it.rate:.0f}" for it in columns.values()]),
        _row("the server, in all", [f"{it.server_ms:.2f}" for it in columns.values()]),
    ]
    lines += [_row(f"- {part}", [f"{it.parts_ms[part]:.2f}" for it in columns.values()]) for part in parts]
    lines += [
        _row("the load generator", [f"{it.generator_ms:.2f}" for it in columns.values()]),
        _row(
            "processors in use, of 2",
            [f"{it.rate * (it.server_ms + it.generator_ms) / 1e3:.2f}" for it in columns.values()],
        ),
        _row("ready to run, without a processor", [f"{it.waited_ms:.2f}" for it in columns.values()]),
        "",
        f"The encoder alone, in a bare loop of batches of one on one thread: {alone_ms:.2f} ms. The best loop over all "
        "the texts, any batching and threads: "
        + ", ".join(f"{k} {v:.0f} texts/s" for k, v in loops.items())
        + ".",
        "",
        "## Waiting",
        "",
        "Milliseconds, as the answers' `timings` and the client have them.",
        "",
        "| | p50 | p90 | p99 |",
        "|---|---|---|---|",
    ]
    for name, spent_ in columns.items():
        if not spent_.answered.timings_ms:
            continue
        lines.append(_percentiles(f"{name}: answer", spent_.answered.latencies_ms))
        lines += [_percentiles(f"- {part}", times) for part, times in spent_.answered.timings_ms.items()]
    half, lone = columns[HALF], columns[ALONE].answered.latencies_ms
    lines += [
        _percentiles(
            f"a bare queue of 2 workers at {half.rate:.0f}/s, each text as fast as one at a time",
            queued(lone, half.rate, 2),
        ),
        _percentiles(
            f"the same, each text {half.server_ms + half.generator_ms:.1f} ms of processor as measured at half load",
            queued(np.array(lone) * (half.server_ms + half.generator_ms) / np.mean(lone), half.rate, 2),
        ),
    ]
    kept = [it.name for it in fields(Spent) if it.name != "answered"]
    costs = {name: {it: getattr(column, it) for it in kept} for name, column in columns.items()}
    save("breakdown", lines, {"hardware": hardware(), "columns": costs})
    print("\n".join(lines))


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def _percentiles(name: str, values: Sequence[float] | NDArray[np.float64]) -> str:
    return _row(name, [f"{np.percentile(values, q):.1f}" for q in (50, 90, 99)])


if __name__ == "__main__":
    main()
