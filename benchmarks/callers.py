"""Callers of a server in a process of their own, which ask for as long as its standard input is open.

They send requests that were serialized beforehand, over connections that cost next to nothing, see `http2`. What to do
is the first line of standard input, as JSON; what came of it is written to standard output in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.http2 import Connection
from benchmarks.load import PREDICT, REFUSED, read_requests
from graft.v1 import prediction_pb2


@dataclass(frozen=True, slots=True)
class Callers:
    """How many ask, and how."""

    target: str
    requests: Path
    """A file of serialized requests, made by `load.write_requests`; they are sent in turn."""
    texts_per_request: int
    count: int = 1
    """The number of callers, each with a connection of its own."""
    in_flight: int = 0
    """Requests that each keeps in flight; 0: it asks every so often."""
    every_s: float = 0.05


@dataclass(slots=True)
class Outcome:
    """What came of one caller's requests."""

    asked: int = 0
    texts: int = 0
    """Texts that were answered."""
    refused: int = 0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    """Of the answered requests."""
    batches_ms: list[float] = field(default_factory=list)
    """Of those that ask every so often: how long the batch took that each was in, as the answer says."""


@dataclass(slots=True)
class Asking:
    """Callers that are asking."""

    process: subprocess.Popen[str]

    def end(self) -> list[Outcome]:
        """Lets them finish, and returns what came of each one's requests."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        found = self.process.stdout.read()
        if self.process.wait() != 0:
            raise RuntimeError("the callers failed")
        return [Outcome(**it) for it in json.loads(found)]


def start(callers: Callers) -> Asking:
    """Starts a process of callers; returns when the first has been answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.callers"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({**asdict(callers), "requests": str(callers.requests)}) + "\n")
    process.stdin.flush()
    process.stdout.readline()
    return Asking(process)


async def _ask(callers: Callers) -> list[Outcome]:
    requests = read_requests(callers.requests)
    connections = [await Connection.open(callers.target, PREDICT) for _ in range(callers.count)]
    await connections[0].call(requests[0])
    print("asking", flush=True)
    ended = asyncio.Event()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    outcomes = [Outcome() for _ in connections]
    ask = _greedy if callers.in_flight else _modest
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.enter_context(contextlib.closing(connection))
        async with asyncio.TaskGroup() as group:
            for number, (connection, outcome) in enumerate(zip(connections, outcomes, strict=True)):
                group.create_task(ask(_Caller(callers, number, connection, requests, outcome, ended)))
            await reader.read()
            ended.set()
    return outcomes


async def _greedy(caller: _Caller) -> None:
    async def worker(n: int) -> None:
        while not caller.ended.is_set():
            await caller.one(n)
            n += 1

    in_flight = caller.asks.in_flight
    await asyncio.gather(*(worker(caller.number * in_flight + it) for it in range(in_flight)))


async def _modest(caller: _Caller) -> None:
    every_s = caller.asks.every_s
    next_at = time.perf_counter() + every_s * caller.number / caller.asks.count
    tasks: list[asyncio.Task[None]] = []
    while not caller.ended.is_set():
        await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
        next_at += every_s
        tasks.append(asyncio.create_task(caller.one(caller.number + len(tasks))))
    await asyncio.gather(*tasks)


@dataclass(slots=True)
class _Caller:
    asks: Callers
    number: int
    connection: Connection
    requests: list[bytes]
    outcome: Outcome
    ended: asyncio.Event

    async def one(self, n: int) -> None:
        """Asks once; of the greedy ones' requests, those that are answered after the end do not count."""
        outcome, greedy = self.outcome, self.asks.in_flight > 0
        outcome.asked += 1
        began = time.perf_counter()
        status, answer = await self.connection.call(self.requests[n % len(self.requests)])
        if greedy and self.ended.is_set():
            outcome.asked -= 1
        elif status == REFUSED:
            outcome.refused += 1
        elif status:
            outcome.failed += 1
        else:
            outcome.latencies_ms.append((time.perf_counter() - began) * 1e3)
            outcome.texts += self.asks.texts_per_request
            if not greedy:
                timings = prediction_pb2.PredictResponse.FromString(answer).timings
                took = timings.encode.ToTimedelta() + timings.head.ToTimedelta()
                outcome.batches_ms.append(1e3 * took.total_seconds())


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    outcomes = asyncio.run(_ask(Callers(**{**asked, "requests": Path(asked["requests"])})))
    json.dump([asdict(it) for it in outcomes], sys.stdout)


if __name__ == "__main__":
    main()
