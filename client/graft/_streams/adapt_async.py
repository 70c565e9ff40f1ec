"""Drives an adaptation's exchange over grpc.aio.

Three tasks meet here, on one event loop: one brings the examples, one sends, and the caller's own reads,
opens calls and waits between them. Reading never waits for sending, or a server that is slowed by unread
answers would block both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

import grpc

from graft._records.adapting.told import AdaptProgress, AdaptResult, Outcome
from graft._records.inputs.examples import ChangeLike, numbered_change_message
from graft._streams.adapt import AdaptExchange
from graft._transport import forking
from graft._transport.async_status import FinalStatus
from graft.errors import GraftError, client_closed
from graft.v1 import adaptation_pb2

Stream = grpc.aio.StreamStreamCall[adaptation_pb2.AdaptRequest, adaptation_pb2.AdaptResponse]
OpenCall = Callable[[], Awaitable["Stream"]]
_BREATHER = 256
"""The number of examples after which the loop gets a turn, though there is room for more."""
_GOODBYE_S = 1.0
"""How long the server is given to end a call that has its outcome."""


class AsyncAdapt:
    """One `adapt` of the asyncio client."""

    def __init__(
        self,
        exchange: AdaptExchange,
        open_call: OpenCall,
        message_of: Callable[[int, ChangeLike], adaptation_pb2.ExampleChange] = numbered_change_message,
        on_progress: Callable[[AdaptProgress], None] | None = None,
        on_published: Callable[[Outcome], None] | None = None,
        *,
        status_of: Callable[[Stream], FinalStatus] = FinalStatus,
    ) -> None:
        self._exchange = exchange
        self._open_call = open_call
        self._message_of = message_of
        self._on_progress = on_progress
        self._on_published = on_published
        self._status_of = status_of
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, examples: Iterable[ChangeLike] | AsyncIterable[ChangeLike]) -> AdaptResult:
        """Streams the examples, commits, and returns the outcome.

        Raises:
            GraftError: There is no version.
        """
        pump = asyncio.create_task(self._pump(examples))
        talk = asyncio.create_task(self._supervise())
        try:
            await asyncio.wait({pump, talk}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()  # The examples' own error, where they had one.
            await talk
        except BaseException as error:
            if not isinstance(error, GraftError):
                error.add_note(self._exchange.left_as())
            raise
        finally:
            await _cancelled(pump, talk)
        if self._exchange.result is None:
            raise self._exchange.failure or GraftError("The adaptation was stopped.")
        return self._exchange.result

    async def _pump(self, examples: Iterable[ChangeLike] | AsyncIterable[ChangeLike]) -> None:
        number = 0
        if isinstance(examples, AsyncIterable):
            async for example in examples:
                await self._add(number, example)
                number += 1
        else:
            for example in examples:
                await self._add(number, example)
                number += 1
        self._exchange.end()
        self._to_send.set()

    async def _add(self, number: int, example: ChangeLike) -> None:
        while not self._exchange.has_room:
            self._room.clear()
            await self._room.wait()
        if self._exchange.add(self._message_of(number, example)):
            self._to_send.set()
        if number % _BREATHER == _BREATHER - 1:
            await asyncio.sleep(0)

    async def _supervise(self) -> None:
        while not self._exchange.done:
            error = await self._converse()
            delay_s = self._exchange.closed(error)
            self._report()
            if not self._exchange.done:
                await asyncio.sleep(delay_s)

    async def _converse(self) -> GraftError | None:
        """Holds one call, from its opening to its end, and returns what it ended with."""
        self._exchange.opened()
        try:
            call = await self._open_call()
        except GraftError as error:
            self._exchange.fail(error)
            return error
        status = self._status_of(call)
        writer = asyncio.create_task(self._write(call))
        try:
            return await self._read(call, status)
        finally:
            await _cancelled(writer)
            if forking.usable():
                call.cancel()

    async def _read(self, call: Stream, status: FinalStatus) -> GraftError | None:
        try:
            while True:
                message = await self._next(call)
                if not isinstance(message, adaptation_pb2.AdaptResponse):
                    return None
                self._exchange.receive(message)
                self._to_send.set()
                self._room.set()
                self._report()
                if self._exchange.wants_another_call or self._exchange.failure is not None:
                    return None
        except grpc.RpcError as error:
            return status.error(error)

    async def _next(self, call: Stream) -> object:
        """The next message; None where none comes for so long that the call is to be given up."""
        reading = asyncio.ensure_future(call.read())
        try:
            while not reading.done():
                ended = self._exchange.result is not None
                done, _ = await asyncio.wait(
                    {reading}, timeout=_GOODBYE_S if ended else self._exchange.look_s()
                )
                self._exchange.give_up_if_overdue()
                over = ended or self._exchange.failure is not None or self._exchange.wants_another_call
                if over and not done:
                    return None
            if reading.cancelled():
                raise client_closed()  # gRPC cancels what waits for a call of a closed channel
            return reading.result()
        finally:
            reading.cancel()

    async def _write(self, call: Stream) -> None:
        # What ends the call is the reader's to see; a write that comes too late is not news.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while not self._exchange.half_closed:
                if (request := self._exchange.next_request()) is not None:
                    await call.write(request)
                    continue
                self._to_send.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._to_send.wait(), self._exchange.wait_s())
            await call.done_writing()

    def _report(self) -> None:
        for outcome in self._exchange.take_outcomes():
            if self._on_published is not None:
                self._on_published(outcome)
        if self._on_progress is not None:
            self._on_progress(self._exchange.progress())


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
