"""A hundred streams of a client that sends as fast as it may and reads no answer, until all is sent.

Half of them send texts of 1 MB, half sentences: together several times what a server takes in at once.
Meanwhile others want predictions and a model of their own. Then the answers are read, to the last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import grpc
import numpy as np

import graft
from benchmarks.datasets import banking77, few_shot
from benchmarks.harness import Figure, Server, at_least, at_most, server
from graft.v1 import adaptation_pb2 as pb
from graft.v1 import adaptation_pb2_grpc, types_pb2

STREAMS = 100
LARGE_BYTES = 1_000_000
LARGE_TEXTS, BATCHES, BATCH = 16, 4, 256
MOST_MB = 64.0
"""Of memory a stream, above what the server has before."""
LOOK_S = 0.1


def backpressure() -> list[Figure]:
    """Memory a stream while nobody reads; what others notice; and that all of it comes to its end."""
    with server() as running:
        return asyncio.run(_measure(running))


async def _measure(running: Server) -> list[Figure]:
    async with (
        grpc.aio.insecure_channel(running.target) as channel,
        graft.AsyncClient(running.target) as client,
    ):
        sentences = _sentences()
        await client.adapt("others", sentences[:64])
        calls = [_Stream(channel, number, sentences) for number in range(STREAMS)]
        before = running.resident_mb()
        resident = [before]
        others = _Others(client, sentences)
        watching = [asyncio.create_task(_watch(running, resident)), asyncio.create_task(others.predict())]
        adapting = asyncio.create_task(others.adapt())
        began = time.perf_counter()
        await asyncio.gather(*(it.send() for it in calls))
        sent_s = time.perf_counter() - began
        await adapting
        outcomes = await asyncio.gather(*(it.read() for it in calls))
        took_s = time.perf_counter() - began
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    sent_mb = sum(it.sent_bytes for it in calls) / 1e6
    whole = sum(outcome == it.examples for outcome, it in zip(outcomes, calls, strict=True))
    return [
        at_most(
            f"{STREAMS} streams whose answers nobody reads: most memory a stream, above the server's before",
            (max(resident) - before) / STREAMS, MOST_MB, "MB",
            f"{before:.0f} MB before, {max(resident):.0f} MB at most; {sent_mb:.0f} MB were sent in {sent_s:.0f} s",
        ),
        at_least(
            "the same: streams that ended, once they were read, with a version of all their examples",
            whole, STREAMS, "", f"after {took_s:.0f} s",
        ),
        Figure(
            "the same: examples that another adaptation had published meanwhile", others.published, "",
            "", f"after {others.adapted_s:.1f} s",
        ),
        at_most(
            "the same: another client's predictions that failed", others.failed, 0, "",
            f"of {len(others.seconds):,}, median {1e3 * np.median(others.seconds):.0f} ms",
        ),
    ]  # fmt: skip


def _sentences() -> list[tuple[str, str]]:
    data = banking77()
    return [(data.train[row], str(data.train_labels[row] % 2)) for row in few_shot(data.train_labels, 32, 0)]


async def _watch(running: Server, resident: list[float]) -> None:
    while True:
        resident.append(running.resident_mb())
        await asyncio.sleep(LOOK_S)


class _Stream:
    """One call of Adapt, which writes all that it has before it reads anything."""

    def __init__(self, channel: grpc.aio.Channel, number: int, sentences: Sequence[tuple[str, str]]) -> None:
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)  # type: ignore[no-untyped-call]
        self._call = stub.Adapt()
        self._start = pb.AdaptStart(model=f"streams/{number}", adaptation_id="a")
        self._number = number
        self._sentences = sentences
        self.examples = LARGE_TEXTS if number % 2 else BATCHES * BATCH
        self.sent_bytes = 0

    def _batches(self) -> Iterator[list[tuple[str, str]]]:
        if self._number % 2:
            for place in range(LARGE_TEXTS):
                text = f"{self._number} {place} {self._sentences[place][0]} "
                yield [((text * (LARGE_BYTES // len(text) + 1))[:LARGE_BYTES], str(place % 2))]
        else:
            for batch in range(BATCHES):
                rows = self._sentences[batch * BATCH : (batch + 1) * BATCH]
                yield [(f"{self._number} {text}", label) for text, label in rows]

    async def send(self) -> None:
        """Writes everything, as fast as it is let."""
        await self._call.write(pb.AdaptRequest(start=self._start))
        first = 0
        for rows in self._batches():
            batch = pb.ExampleBatch(first_sequence=first)
            for text, label in rows:
                example = types_pb2.Example(input=types_pb2.Input(text=text), label=label)
                batch.changes.add(upsert=example)
            first += len(rows)
            self.sent_bytes += batch.ByteSize()
            await self._call.write(pb.AdaptRequest(examples=batch))
        await self._call.write(pb.AdaptRequest(commit=pb.Commit(commit_id="c", close=True)))
        await self._call.done_writing()

    async def read(self) -> int:
        """Reads to the end, and returns how many examples the version has."""
        examples = 0
        async for response in self._call:
            if response.HasField("published"):
                examples = response.published.summary.examples
        return examples


class _Others:
    """What another client does meanwhile."""

    def __init__(self, client: graft.AsyncClient, sentences: Sequence[tuple[str, str]]) -> None:
        self._client = client
        self._sentences = sentences
        self.failed = self.published = 0
        self.seconds: list[float] = []
        self.adapted_s = 0.0

    async def predict(self) -> None:
        """Asks now and then, without end."""
        while True:
            began = time.perf_counter()
            try:
                await self._client.predict("others", ["where is my card?"])
            except graft.GraftError:
                self.failed += 1
            else:
                self.seconds.append(time.perf_counter() - began)
            await asyncio.sleep(LOOK_S)

    async def adapt(self) -> None:
        """Has a model made."""
        began = time.perf_counter()
        result = await self._client.adapt("another", self._sentences[:64])
        self.published, self.adapted_s = result.report.examples, time.perf_counter() - began
