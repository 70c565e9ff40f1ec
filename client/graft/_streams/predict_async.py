"""Drives a bulk prediction over grpc.aio.

The caller's own task takes the inputs, sends, waits and gives out; a task for each call only reads, because a
server whose answers nobody reads would stop reading, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import grpc

from graft._records.predicting.predictions import Prediction
from graft._streams.predict import PredictExchange
from graft._transport import forking
from graft._transport.async_status import FinalStatus
from graft.errors import GraftError, client_closed
from graft.v1 import prediction_pb2

Stream = grpc.aio.StreamStreamCall[prediction_pb2.PredictStreamRequest, prediction_pb2.PredictStreamResponse]
OpenCall = Callable[[], Awaitable["Stream"]]


class AsyncPredict:
    """One `predict_stream` of the asyncio client."""

    def __init__(
        self,
        exchange: PredictExchange,
        open_call: OpenCall,
        status_of: Callable[[Stream], FinalStatus] = FinalStatus,
    ) -> None:
        self._exchange = exchange
        self._open_call = open_call
        self._status_of = status_of
        self._call: _Call | None = None

    async def run(
        self, requests: AsyncIterator[prediction_pb2.PredictRequest]
    ) -> AsyncGenerator[Prediction, None]:
        """Asks them all, as they come, and gives out the predictions in their order.

        Raises:
            GraftError: A request was refused, or no server could be reached.
        """
        try:
            async for request in requests:
                self._exchange.add(request)
                await self._send()
                while not self._exchange.has_room:
                    await self._wait()
                    for prediction in self._exchange.ready():
                        yield prediction
            while self._exchange.waiting:
                await self._wait()
                for prediction in self._exchange.ready():
                    yield prediction
        finally:
            await self._hang_up()

    async def _send(self) -> _Call:
        if self._call is None:
            call = await self._open_call()
            self._call = _Call(call, self._status_of(call))
            self._exchange.opened()
        while (request := self._exchange.next_request()) is not None:
            self._call.send(request)
        return self._call

    async def _wait(self) -> None:
        """Waits for one message, for as long as that may take until something else is to be done."""
        call = await self._send()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._exchange.wait_s()):
                message = await call.incoming.get()
        except TimeoutError:
            self._exchange.waited(time.monotonic() - began)
            return
        if isinstance(message, prediction_pb2.PredictStreamResponse):
            self._exchange.receive(message)
            return
        await self._hang_up()
        await asyncio.sleep(self._exchange.broken(message))
        self._exchange.waited(time.monotonic() - began)

    async def _hang_up(self) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            await call.close()


class _Call:
    """One call, and the tasks that read from it and write to it.

    Attributes:
        incoming: The messages, and behind them what the call ended with: an error, or None.
    """

    def __init__(self, call: Stream, status: FinalStatus) -> None:
        self.incoming: asyncio.Queue[prediction_pb2.PredictStreamResponse | GraftError | None] = (
            asyncio.Queue()
        )
        self._outgoing: asyncio.Queue[prediction_pb2.PredictStreamRequest] = asyncio.Queue()
        self._call = call
        self._status = status
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    def send(self, request: prediction_pb2.PredictStreamRequest) -> None:
        """Sends a message, soon: a server that takes none is not waited for here."""
        self._outgoing.put_nowait(request)

    async def close(self) -> None:
        """Ends the call and its tasks."""
        if forking.usable():
            self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self) -> None:
        # What ends the call is the reader's to see.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                await self._call.write(await self._outgoing.get())

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self.incoming.put_nowait(message)
        except grpc.RpcError as error:
            self.incoming.put_nowait(self._status.error(error))
        except asyncio.CancelledError:
            # By whoever closes this call, or by gRPC, because the client was closed.
            self.incoming.put_nowait(client_closed())
            raise
        else:
            self.incoming.put_nowait(None)
