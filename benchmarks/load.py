"""A load generator in a process of its own: it sends requests that were serialized beforehand.

Nothing is parsed while it runs, so that it costs the server's machine as little as Python can. It is told what to
do on standard input, as JSON, and answers on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.http2 import Connection
from graft.v1 import prediction_pb2

REFUSED = 8
"""gRPC's RESOURCE_EXHAUSTED."""
PREDICT = "/graft.v1.PredictionService/Predict"


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be sent."""

    target: str
    requests: Path
    """A file of serialized requests, made by `write_requests`; they are sent in turn."""
    texts_per_request: int
    count: int
    """How many requests to send in all, going round the file."""
    in_flight: int
    """Requests at once; with a rate, at most."""
    rate: float = 0.0
    """Requests a second, at random moments (Poisson); 0: as fast as `in_flight` allows."""
    method: str = PREDICT
    timings: bool = False
    """Whether the answers are kept, and what they say of where their time went is read in the end."""


def write_requests(path: Path, requests: Iterable[bytes]) -> Path:
    """Writes serialized requests to a file."""
    with path.open("wb") as file:
        for request in requests:
            file.write(len(request).to_bytes(4, "little") + request)
    return path


def predict_requests(models: Sequence[str], texts: Sequence[str], per_request: int) -> Iterator[bytes]:
    """Requests that ask for each text once, in order, of the models in turn."""
    for n, start in enumerate(range(0, len(texts) - per_request + 1, per_request)):
        message = prediction_pb2.PredictRequest(model=models[n % len(models)], top_k=1)
        for text in texts[start : start + per_request]:
            message.inputs.add(text=text)
        yield message.SerializeToString()


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it."""

    seconds: float
    ok: int
    texts: int
    """Texts in requests that were answered."""
    refused: int
    failed: int
    latencies_ms: list[float] = field(default_factory=list)
    """Of the requests that were answered."""
    refusal_ms: list[float] = field(default_factory=list)
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    """What each answer says of queue, tokenize, encode and head, where that was asked for."""

    @property
    def texts_per_s(self) -> float:
        """Throughput."""
        return self.texts / self.seconds

    def percentile(self, q: float) -> float:
        """Of the latencies, in ms."""
        return float(np.percentile(self.latencies_ms, q))


def start(load: Load) -> subprocess.Popen[str]:
    """Starts a process that generates the load."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**asdict(load), "requests": str(load.requests)}))
    process.stdin.close()
    return process


def finish(process: subprocess.Popen[str]) -> Answered:
    """Waits for the process, and reads what came of it."""
    assert process.stdout is not None
    answer = process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError("the load generator failed")
    return Answered(**json.loads(answer))


def run(load: Load) -> Answered:
    """Generates the load."""
    return finish(start(load))


def read_requests(path: Path) -> list[bytes]:
    """Reads what `write_requests` wrote."""
    data, requests, place = path.read_bytes(), [], 0
    while place < len(data):
        end = place + 4 + int.from_bytes(data[place : place + 4], "little")
        requests.append(data[place + 4 : end])
        place = end
    return requests


async def _generate(load: Load) -> Answered:
    read = read_requests(load.requests)
    requests = [read[n % len(read)] for n in range(load.count)]
    connection = await Connection.open(load.target, load.method)
    with contextlib.closing(connection):
        await connection.call(requests[0])
        counts = {"ok": 0, "texts": 0, "refused": 0, "failed": 0}
        latencies: list[float] = []
        refusals: list[float] = []
        answers: list[bytes] = []

        async def one(data: bytes) -> None:
            began = time.perf_counter()
            status, answer = await connection.call(data)
            took_ms = (time.perf_counter() - began) * 1e3
            if status == REFUSED:
                counts["refused"] += 1
                refusals.append(took_ms)
                return
            if status:
                counts["failed"] += 1
                return
            latencies.append(took_ms)
            counts["ok"] += 1
            counts["texts"] += load.texts_per_request
            if load.timings:
                answers.append(answer)

        began = time.perf_counter()
        if load.rate:
            await _open_loop(load, requests, one)
        else:
            remaining = iter(requests)

            async def worker() -> None:
                for data in remaining:
                    await one(data)

            await asyncio.gather(*(worker() for _ in range(load.in_flight)))
        seconds = time.perf_counter() - began
    return Answered(
        seconds, latencies_ms=latencies, refusal_ms=refusals, timings_ms=_timings_ms(answers), **counts
    )


def _timings_ms(answers: Sequence[bytes]) -> dict[str, list[float]]:
    if not answers:
        return {}
    read = [prediction_pb2.PredictResponse.FromString(it).timings for it in answers]
    return {
        name: [1e3 * getattr(it, name).ToTimedelta().total_seconds() for it in read]
        for name in ("queue", "tokenize", "encode", "head")
    }


async def _open_loop(
    load: Load, requests: list[bytes], one: Callable[[bytes], Coroutine[None, None, None]]
) -> None:
    gaps = np.random.default_rng(0).exponential(1 / load.rate, len(requests))
    moments = time.perf_counter() + np.cumsum(gaps)
    tasks: set[asyncio.Task[None]] = set()
    for moment, data in zip(moments, requests, strict=True):
        delay = moment - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        while len(tasks) >= load.in_flight:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(one(data))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(set(tasks))


def main() -> None:
    asked = json.load(sys.stdin)
    answered = asyncio.run(_generate(Load(**{**asked, "requests": Path(asked["requests"])})))
    json.dump(asdict(answered), sys.stdout)


if __name__ == "__main__":
    main()
