"""The edge of the server: how soon it ends when it is told to, and what compressed messages cost it.

python -m benchmarks.edge [--only stopping bombs]

Parts that are left out keep the figures of their last run.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import graft
from benchmarks.harness import Figure, Server, at_most, measured, merged, server, write
from benchmarks.http2 import call_compressed
from graft.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    model_pb2,
    prediction_pb2,
    prediction_pb2_grpc,
    types_pb2,
)

MODEL = "edge/model"
IDLE = 100
ROUNDS = 3
BOMBS = 1_000
AT_ONCE = 50
BOMB_BYTES = 1 << 30
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_SERVICES = (
    *(
        file.DESCRIPTOR.services_by_name[name]
        for file, name in (
            (adaptation_pb2, "AdaptationService"),
            (prediction_pb2, "PredictionService"),
            (model_pb2, "ModelService"),
        )
    ),
    _HEALTH,
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)


def main() -> None:
    parts = {it.__name__: it for it in (stopping, bombs)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")
    only = parser.parse_args().only
    write("edge", "The edge of the server", merged("edge", list(parts), measured(parts, only)))


def stopping() -> list[Figure]:
    """From SIGTERM to the end of the process."""
    kinds = {
        f"{IDLE} idle watches and streams": _idle_streams,
        "an idle client that nobody calls (it is not looked at by its process)": _idle_client,
        "nobody": lambda _: ExitStack(),
    }
    figures = []
    for what, opened in kinds.items():
        took = []
        for _ in range(ROUNDS):
            with server() as running, opened(running):
                began = time.perf_counter()
                running.process.send_signal(signal.SIGTERM)
                running.process.wait()
                took.append(time.perf_counter() - began)
        others = f"the others {', '.join(f'{it:.2f}' for it in sorted(took)[:-1])} s"
        figures.append(
            at_most(
                f"SIGTERM to the process's end with {what}, longest of {ROUNDS}", max(took), 1.0, "s", others
            )
        )
    return figures


def bombs() -> list[Figure]:
    """What messages cost that are small as they are sent and large when they are inflated."""
    bomb = _bomb()
    with server() as running:
        with _idle_client(running):
            before = running.resident_mb()
        # What it took to start is not in the peak.
        Path(f"/proc/{running.process.pid}/clear_refs").write_text("5", encoding="ascii")
        codes = asyncio.run(_throw(running.target, bomb))
        grown = running.peak_mb() - before
    what = f"peak memory over idle of {BOMBS:,} gzip bombs ({len(bomb) / 2**20:.1f} MiB for {BOMB_BYTES >> 30} GiB)"
    ended = ", ".join(f"{count:,} {code}" for code, count in sorted(codes.items()))
    figure = at_most(f"{what}, over all methods, {AT_ONCE} at once", grown, 64 * 2**20 / 1e6, "MB", ended)
    return [figure]


def _bomb() -> bytes:
    """A gzip stream of zeros."""
    packing, zeros = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    parts = [packing.compress(zeros) for _ in range(BOMB_BYTES >> 20)]
    return b"".join((*parts, packing.flush()))


async def _throw(target: str, bomb: bytes) -> Counter[str]:
    """Sends bombs to all methods in turn, and counts the statuses."""
    methods = [f"/{service.full_name}/{method.name}" for service in _SERVICES for method in service.methods]
    left = [methods[number % len(methods)] for number in range(BOMBS)]
    codes: Counter[str] = Counter()

    async def throw() -> None:
        while left:
            ended = await call_compressed(target, left.pop(), "gzip", bomb)
            codes[f"status {ended}" if ended.isdigit() else ended] += 1

    await asyncio.gather(*(throw() for _ in range(AT_ONCE)))
    return codes


@contextmanager
def _idle_client(running: Server) -> Iterator[None]:
    with graft.Client(running.target) as client:
        client.models()
        yield


@contextmanager
def _idle_streams(running: Server) -> Iterator[None]:
    """Streams of every kind, all silent; and a client beside them."""
    opened, closing = threading.Event(), threading.Event()

    def run() -> None:
        try:
            asyncio.run(_open_streams(running.target, opened, closing))
        finally:
            opened.set()

    thread = threading.Thread(target=run)
    thread.start()
    opened.wait()
    with _idle_client(running):
        yield
    closing.set()
    thread.join()


async def _open_streams(target: str, opened: threading.Event, closing: threading.Event) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await _adapted(channel)
        calls = [_STREAMS[place % len(_STREAMS)](channel, place) for place in range(IDLE)]
        for call in calls:
            await call.read()
        opened.set()
        ends = await asyncio.gather(*(_end(call) for call in calls))
        await asyncio.to_thread(closing.wait)
    if set(ends) != {grpc.StatusCode.UNAVAILABLE}:
        raise RuntimeError(f"streams ended with {set(ends)}")


async def _end(call: Any) -> grpc.StatusCode:
    """The status of a call once all of its messages are read: it has none before."""
    while True:
        try:
            if await call.read() is grpc.aio.EOF:
                return await call.code()
        except grpc.aio.AioRpcError as error:
            return error.code()


async def _adapted(channel: grpc.aio.Channel) -> None:
    """Publishes a model, and leaves its adaptation "watched" open."""
    call = adaptation_pb2_grpc.AdaptationServiceStub(channel).Adapt()
    await call.write(_started("watched"))
    changes = [
        adaptation_pb2.ExampleChange(
            upsert=types_pb2.Example(input=types_pb2.Input(text=f"{text} {place}"), label=label)
        )
        for place in range(5)
        for text, label in (("the lock is stuck", "lock"), ("my bill is wrong", "bill"))
    ]
    await call.write(
        adaptation_pb2.AdaptRequest(examples=adaptation_pb2.ExampleBatch(first_sequence=0, changes=changes))
    )
    await call.write(adaptation_pb2.AdaptRequest(commit=adaptation_pb2.Commit(commit_id="c")))
    await call.done_writing()
    async for _ in call:
        pass


def _started(adaptation_id: str) -> adaptation_pb2.AdaptRequest:
    start = adaptation_pb2.AdaptStart(model=MODEL, adaptation_id=adaptation_id)
    return adaptation_pb2.AdaptRequest(start=start)


def _health(channel: grpc.aio.Channel, _: int) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())


def _watch(channel: grpc.aio.Channel, _: int) -> Any:
    request = adaptation_pb2.WatchAdaptationRequest(model=MODEL, adaptation_id="watched")
    return adaptation_pb2_grpc.AdaptationServiceStub(channel).WatchAdaptation(request)


def _predict(channel: grpc.aio.Channel, _: int) -> Any:
    asked = prediction_pb2.PredictRequest(model=MODEL, inputs=[types_pb2.Input(text="why was I charged?")])
    request = prediction_pb2.PredictStreamRequest(request_id="1", request=asked)
    return prediction_pb2_grpc.PredictionServiceStub(channel).PredictStream(_then_silent(request))


def _adapt(channel: grpc.aio.Channel, place: int) -> Any:
    return adaptation_pb2_grpc.AdaptationServiceStub(channel).Adapt(_then_silent(_started(f"idle-{place}")))


def _reflect(channel: grpc.aio.Channel, _: int) -> Any:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(_then_silent(request))


_STREAMS = (_health, _watch, _predict, _adapt, _reflect)
"""Each opens a stream that has an answer, and is silent then."""


async def _then_silent(request: Message) -> AsyncIterator[Message]:
    yield request
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
