"""Drives an evaluation over grpc.aio: the caller's task brings the examples and waits, another one sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from graft._client.calls_async import AsyncCalls, end
from graft._client.evaluating import Evaluation
from graft.v1 import types_pb2


class _Call:
    """One call, the task that sends on it, and the one that waits for its answer."""

    def __init__(self, call: Any, status: Any, send: Callable[[Any], Any]) -> None:
        self.call = call
        self.status = status
        self.sender = asyncio.create_task(send(call))
        self.answer = asyncio.ensure_future(_answer(call))

    async def close(self) -> None:
        """Ends it."""
        end(self.call)
        self.sender.cancel()
        self.answer.cancel()
        await asyncio.gather(self.sender, self.answer, return_exceptions=True)


class AsyncEvaluation:
    """One `evaluate` or `suggest` of the asyncio client."""

    def __init__(self, evaluation: Evaluation, calls: AsyncCalls, method: Callable[[Any], Any]) -> None:
        """Begins one; see `SyncEvaluation`."""
        self._method = method
        self._evaluation = evaluation
        self._calls = calls
        self._to_send = asyncio.Event()
        self._taken = asyncio.Event()
        self._call: _Call | None = None

    async def run(
        self, batches: AsyncIterator[list[types_pb2.Example]], on_progress: Callable[[int], None] | None
    ) -> Any:
        """Sends the examples as they come, and returns what the server found.

        Raises:
            GraftError: There is no result.
        """
        try:
            await self._open()
            answer = await self._send(batches, on_progress)
            while answer is None:
                answer = await self._waited()
            return answer
        finally:
            await self._hang_up()
            self._evaluation.close()

    async def _send(
        self, batches: AsyncIterator[list[types_pb2.Example]], on_progress: Callable[[int], None] | None
    ) -> Any | None:
        """Sends all examples, unless the server answers before it has them."""
        sent = 0
        async for batch in batches:
            self._evaluation.add(batch)
            self._to_send.set()
            sent += len(batch)
            if on_progress is not None:
                on_progress(sent)
            while not self._evaluation.has_room:
                if (answer := await self._waited()) is not None:
                    return answer
        self._evaluation.end()
        self._to_send.set()
        return None

    async def _waited(self) -> Any | None:
        """Waits for the server to take a message or to answer; opens another call where this one broke."""
        call = self._call or await self._open()
        self._taken.clear()
        taken = asyncio.ensure_future(self._taken.wait())
        try:
            await asyncio.wait(
                {taken, call.answer},
                timeout=self._evaluation.left_s(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            taken.cancel()
        if not call.answer.done():
            return None
        try:
            with self._calls.opening():
                answer: Any = call.answer.result()
        except grpc.RpcError as failed:
            error = call.status.error(failed)
        else:
            return answer
        await self._hang_up()
        await asyncio.sleep(self._evaluation.broken(error))
        return None

    async def _open(self) -> _Call:
        self._evaluation.opened()
        call = await self._calls.begin(self._method, timeout_s=self._evaluation.deadline_s())
        self._call = _Call(call, self._calls.status_of(call), self._write)
        return self._call

    async def _write(self, call: Any) -> None:
        # What ends the call is its answer's to say; a write that comes too late is not news.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                if (message := self._evaluation.next_message()) is not None:
                    self._taken.set()
                    await call.write(message)
                elif self._evaluation.all_sent:
                    await call.done_writing()
                    return
                else:
                    self._to_send.clear()
                    await self._to_send.wait()

    async def _hang_up(self) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            await call.close()


async def _answer(call: Any) -> Any:
    return await call
