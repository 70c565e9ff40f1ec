"""What others notice of callers who ask for much, and what those lose by others.

python -m benchmarks.fairness [--only predict stream long greedy] [--scale 1]

The bulk is sent by this process as bytes made beforehand, in one message or a few dozen; the others ask in a process of
their own. How long a batch takes comes from outside: the texts' lengths say how many batches the bulk makes at the
server's budget, and its seconds how long each took.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np

import graft
from benchmarks import callers
from benchmarks.callers import Callers, Outcome
from benchmarks.datasets import banking77, few_shot
from benchmarks.harness import Figure, Server, at_least, at_most, measured, merged, server, write
from benchmarks.inprocess import backbone, tokenized
from benchmarks.load import predict_requests, write_requests
from graft.v1 import prediction_pb2 as pb
from graft_server.backbones.text.packing import cost

MODEL = "banking"
LONE_S = 0.05
BULK, LONG = 10_000, 2_500
STREAMED = 128
"""Texts in a request of the stream, as the client's own has."""
STREAMS_IN_FLIGHT = 8
LONG_WORDS = 64
GREEDY = MODEST = 8
GREEDY_TEXTS, GREEDY_IN_FLIGHT = 32, 4
MODEST_S = 0.1
GREEDY_RUN_S = 15.0
ALONE_S = 5.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts share: a running server with one model, and texts to ask about."""

    server: Server
    texts: Sequence[str]
    folder: Path
    one: Path
    """Requests of one text each."""
    scale: float
    budget: int
    """The cost of the server's batches."""
    workers: int
    """Batches at once."""


Send = Callable[[Server, Sequence[str]], float]
"""Sends texts as one caller does, and returns the seconds until all are answered."""


def main() -> None:
    parts = {it.__name__: it for it in (predict, stream, long, greedy)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", choices=parts, default=list(parts), help="parts to run (default: all)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the bulk and the seconds (default: 1)")
    chosen = parser.parse_args()
    data = banking77()
    texts = [data.train[row] for row in np.random.default_rng(0).permutation(len(data.train))]
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as temporary:
        folder = Path(temporary)
        one = write_requests(folder / "one", predict_requests([MODEL], texts[:2_000], 1))
        with server() as running, graft.Client(running.target) as client:
            rows = few_shot(data.train_labels, 8, 0)
            client.adapt(MODEL, [(data.train[row], data.classes[data.train_labels[row]]) for row in rows])
            workers, budget = _layout(running)
            bench = Bench(running, texts, folder, one, chosen.scale, budget, workers)
            figures = measured({name: partial(part, bench) for name, part in parts.items()}, chosen.only)
    if chosen.scale == 1:
        write(
            "fairness",
            "Callers who ask for much, and others, on 2 cores",
            merged("fairness", list(parts), figures),
        )


def predict(bench: Bench) -> list[Figure]:
    """One Predict of 10,000 texts."""
    return _beside(bench, f"a Predict of {BULK:,}", _taken(bench.texts, int(BULK * bench.scale)), _predict)


def stream(bench: Bench) -> list[Figure]:
    """One PredictStream of 10,000 texts, as the client sends them."""
    return _beside(
        bench, f"a predict_stream of {BULK:,}", _taken(bench.texts, int(BULK * bench.scale)), _stream
    )


def long(bench: Bench) -> list[Figure]:
    """One Predict of 2,500 long texts."""
    words = " ".join(bench.texts).split()
    count = int(LONG * bench.scale)
    texts = [
        " ".join(words[start % len(words) :][:LONG_WORDS])
        for start in range(0, count * LONG_WORDS, LONG_WORDS)
    ]
    return _beside(bench, f"{LONG:,} texts of {LONG_WORDS} words from one caller", texts, _predict)


def greedy(bench: Bench) -> list[Figure]:
    """Eight callers who always have requests in flight, and eight who ask now and then."""
    asked = write_requests(bench.folder / "greedy", predict_requests([MODEL], bench.texts, GREEDY_TEXTS))
    target = bench.server.target
    large = callers.start(Callers(target, asked, GREEDY_TEXTS, GREEDY, GREEDY_IN_FLIGHT))
    small = callers.start(Callers(target, bench.one, 1, MODEST, every_s=MODEST_S))
    time.sleep(GREEDY_RUN_S * bench.scale)
    modest, bulk = small.end(), large.end()
    shares = [it.texts / it.asked for it in modest]
    rates = np.array([it.texts for it in bulk], float)
    took = _latencies(modest)
    kinds = f"{GREEDY} callers with {GREEDY_IN_FLIGHT} Predicts of {GREEDY_TEXTS} in flight"
    return [
        at_least(
            f"{kinds}, {MODEST} with a text every {MODEST_S:g} s: a modest one's least answered share",
            min(shares), 0.95, "",
            f"p50 {np.percentile(took, 50):.0f} ms, p99 {np.percentile(took, 99):.0f} ms",
        ),
        at_least(
            "the same: Jain's index of the greedy ones' throughput",
            float(rates.sum() ** 2 / (len(rates) * (rates**2).sum())),
            0.95, "", f"{rates.min():.0f} to {rates.max():.0f} texts; {sum(it.refused for it in bulk)} refused",
        ),
    ]  # fmt: skip


def _beside(bench: Bench, what: str, texts: Sequence[str], send: Send) -> list[Figure]:
    """A lone text every 50 ms alone, and beside the bulk; the bulk alone, a fourth of it, and beside lone texts."""
    lone = Callers(bench.server.target, bench.one, 1, every_s=LONE_S)
    asking = callers.start(lone)
    time.sleep(max(1.0, ALONE_S * bench.scale))
    quiet = asking.end()
    part = texts[: len(texts) // 4]
    alone = len(part) / send(bench.server, part)
    asking = callers.start(lone)
    seconds = send(bench.server, texts)
    beside = asking.end()
    batch_ms = 1e3 * seconds * bench.workers / _batches(bench, texts)
    before, during = float(np.percentile(_latencies(quiet), 99)), _latencies(beside)
    p50, p99 = map(float, np.percentile(during, (50, 99)))
    refused = sum(it.refused + it.failed for it in beside)
    own = np.median([it for outcome in beside for it in outcome.batches_ms])
    times = f"p50 {p50:.1f}, p99 {p99:.1f} ms; alone p99 {before:.1f} ms"
    return [
        at_most(
            f"a text every {1e3 * LONE_S:.0f} ms beside {what}: p99, over p99 alone and 4 batches",
            p99 / (before + 4 * batch_ms), 1.0, "x",
            f"{times}; a batch {batch_ms:.1f} ms, those with a lone text {own:.1f} ms",
        ),
        at_most("the same: lone texts refused", refused, 0, "", f"of {len(during) + refused:,}"),
        at_least(
            "the same: the bulk's throughput beside lone texts, over alone", len(texts) / seconds / alone, 0.85, "x",
            f"{len(texts) / seconds:.0f}/s; {alone:.0f}/s alone",
        ),
    ]  # fmt: skip


def _predict(running: Server, texts: Sequence[str]) -> float:
    (request,) = predict_requests([MODEL], texts, len(texts))
    with grpc.insecure_channel(running.target, _OPTIONS) as channel:
        call = channel.unary_unary("/graft.v1.PredictionService/Predict", None, pb.PredictResponse.FromString)
        began = time.perf_counter()
        answer = call(request)
        seconds = time.perf_counter() - began
    if len(answer.results) != len(texts):
        raise RuntimeError(f"{len(answer.results)} of {len(texts)} were answered")
    return seconds


def _stream(running: Server, texts: Sequence[str]) -> float:
    requests = [
        pb.PredictStreamRequest(
            request_id=str(n), request=pb.PredictRequest.FromString(it)
        ).SerializeToString()
        for n, it in enumerate(predict_requests([MODEL], texts, STREAMED))
    ]
    room = threading.Semaphore(STREAMS_IN_FLIGHT)

    def sent() -> Iterator[bytes]:
        for request in requests:
            room.acquire()
            yield request

    with grpc.insecure_channel(running.target, _OPTIONS) as channel:
        call = channel.stream_stream("/graft.v1.PredictionService/PredictStream", None, None)
        began = time.perf_counter()
        answers = []
        for answer in call(sent()):
            answers.append(answer)
            room.release()
        seconds = time.perf_counter() - began
    results = sum(len(pb.PredictStreamResponse.FromString(it).response.results) for it in answers)
    if results != len(requests) * STREAMED:
        raise RuntimeError(f"{results} of {len(requests) * STREAMED} were answered")
    return seconds * len(texts) / results


_OPTIONS = [("grpc.max_receive_message_length", -1)]


def _taken(texts: Sequence[str], count: int) -> list[str]:
    return [texts[n % len(texts)] for n in range(count)]


def _latencies(outcomes: Sequence[Outcome]) -> list[float]:
    return [it for outcome in outcomes for it in outcome.latencies_ms]


def _layout(running: Server) -> tuple[int, int]:
    """The batches at once and their budget, as the server's log states them."""
    found = re.search(r"batches_at_once=(\d+) .*batch_cost=(\d+)", "".join(running.log))
    if found is None:
        raise RuntimeError("the log does not say how the encoder is driven")
    return int(found[1]), int(found[2])


def _batches(bench: Bench, texts: Sequence[str]) -> int:
    """How many batches texts make that are sorted by length."""
    dimension = backbone().dimension
    batches = count = tokens = 0
    for length in sorted(map(len, tokenized(texts))):
        if count and cost(count + 1, tokens + length, length, dimension) > bench.budget:
            batches, count, tokens = batches + 1, 0, 0
        count, tokens = count + 1, tokens + length
    return batches + bool(count)


if __name__ == "__main__":
    main()
