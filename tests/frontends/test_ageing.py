"""Calls at the age at which connections are renewed."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator

import grpc
import pytest

import graft
from graft_server.domain.errors import AgedError
from graft_server.frontends.grpc.ageing import RequestsUntilAge, until_age

SOON = 0.001


async def read(items: AsyncGenerator[int, None], age_s: float, ends: bool = True) -> list[int]:
    return [it async for it in until_age(items, age_s, lambda: ends)]


def test_a_stream_is_read_to_its_end_before_the_age_and_without_one() -> None:
    async def items() -> AsyncGenerator[int, None]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    for age_s in (0.0, 3600.0):
        assert asyncio.run(read(items(), age_s)) == [0, 1, 2]


def test_a_stream_is_closed_at_the_age_and_its_caller_told() -> None:
    closed = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    with pytest.raises(AgedError):
        asyncio.run(read(items(), SOON))
    assert closed == [True]


def test_a_stream_that_could_not_go_on_lasts_longer() -> None:
    async def items() -> AsyncGenerator[int, None]:
        await asyncio.sleep(10 * SOON)
        yield 0

    assert asyncio.run(read(items(), SOON, ends=False)) == [0]


def test_requests_end_at_the_age() -> None:
    async def taken(age_s: float, *, more: bool) -> list[int]:
        async def items() -> AsyncGenerator[int, None]:
            yield 0
            if more:
                await asyncio.Event().wait()

        return [it async for it in RequestsUntilAge(items(), age_s)]

    assert asyncio.run(taken(0.0, more=False)) == [0]
    assert asyncio.run(taken(3600.0, more=False)) == [0]
    with pytest.raises(AgedError):
        asyncio.run(taken(SOON, more=True))


def test_calls_of_all_kinds_go_on_where_connections_are_renewed(serve, few) -> None:
    """Each lasts for longer than its connection: what it waits for is that the connection was renewed."""
    server = serve("--max-connection-age-seconds", "0.2")
    with graft.Client(server.target) as client:
        renewed = Renewals(client)
        rows = [few[number % len(few)] for number in range(24)]
        result = client.adapt("tests/aged", renewed.among(rows), on_progress=renewed.seen)
        assert result.report.examples == len(rows)
        assert renewed.reconnects
        # The model answers and is measured over connections that are renewed meanwhile.
        assert client.evaluate("tests/aged", renewed.among(rows)).trained_on_count == len(rows)
        texts = (text for text, _ in renewed.among(rows))
        assert len(list(client.predict_stream("tests/aged", texts, chunk_size=4))) == len(rows)


@pytest.mark.slow
def test_an_export_goes_on_where_connections_are_renewed(serve, few, tmp_path) -> None:
    server = serve("--max-connection-age-seconds", "0.2")
    with graft.Client(server.target) as client:
        client.adapt("tests/aged", few)
        renewed = Renewals(client)
        bundle = client.export("tests/aged", tmp_path / "bundle", on_progress=lambda *_: renewed.wait())
        assert bundle.onnx.is_file()


class Renewals:
    """Waits until the server has renewed connections: it ends a stream of its own then, which asks nothing."""

    def __init__(self, client: graft.Client) -> None:
        self.reconnects = 0
        self._client = client
        self._waited = 0

    def wait(self) -> None:
        """Waits twice a call, for the age each time."""
        if self._waited < 2:
            self._waited += 1
            while "CONNECTION_AGED" not in self._ended():
                pass  # it met a connection that was just about to be renewed

    def _ended(self) -> str:
        silent: queue.SimpleQueue[None] = queue.SimpleQueue()
        call = self._client._calls.begin(
            lambda stubs: stubs.predictions.PredictStream, iter(silent.get, None)
        )
        with pytest.raises(grpc.RpcError):
            list(call)
        silent.put(None)
        return str(self._client._calls.error_of(call))

    def among(self, rows):
        """The rows, with a wait in the middle."""
        self._waited = 0
        for number, row in enumerate(rows):
            if number in (len(rows) // 3, len(rows) // 2):
                self.wait()
            yield row

    def seen(self, progress: graft.AdaptProgress) -> None:
        self.reconnects = progress.reconnects
