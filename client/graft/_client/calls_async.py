"""The calls of the asyncio client: channels, deadlines and retries."""

# Deadlines travel to the server, which drops what comes too late; asyncio.timeout would not tell it.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio

from graft._client.operations import Call, Operation
from graft._transport import forking
from graft._transport.async_status import FinalStatus
from graft._transport.authentication import AsyncAuth, Metadata, asked_async, checked_metadata
from graft._transport.channel import REPEATABLE_PATHS, channel_options
from graft._transport.failures import explained, opening_failed
from graft._transport.progress_timeout import Cursor
from graft._transport.proxies import route_to
from graft._transport.retry import Retries
from graft._transport.targets import target_of
from graft.errors import GraftError, client_closed, from_rpc_error
from graft.v1 import adaptation_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stubs:
    """The calls of each service, on the channel of one event loop."""

    channel: grpc.aio.Channel
    adaptations: adaptation_pb2_grpc.AdaptationServiceStub
    models: model_pb2_grpc.ModelServiceStub
    predictions: prediction_pb2_grpc.PredictionServiceStub
    methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = field(default_factory=dict)
    running: set[Any] = field(default_factory=set)
    """The calls that have not ended: a channel that is closed does not end those that tasks of others wait for."""

    def began(self, call: Any) -> None:
        """Notes a call until it ends."""
        self.running.add(call)
        call.add_done_callback(lambda _: self.running.discard(call))

    async def close(self) -> None:
        """Ends every call and the connection, in their event loop."""
        for call in tuple(self.running):
            call.cancel()
        await self.channel.close()


class AsyncCalls:
    """A channel to a server for each event loop that uses it, and the metadata and deadline of its calls."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        metadata: Metadata,
        auth: AsyncAuth | None,
        interceptors: Sequence[grpc.aio.ClientInterceptor],
        timeout_s: float | None,
        keep_alive_s: float,
        connect_timeout_s: float,
    ) -> None:
        self._route = route_to(target_of(target))
        self._metadata = checked_metadata(metadata)
        self._auth = auth
        self._credentials = credentials
        self._interceptors = tuple(interceptors)
        self._timeout_s = timeout_s
        self._options = channel_options(
            keep_alive_s, connect_timeout_s=connect_timeout_s, direct=self._route.direct
        )
        self._closed = False
        self._stubs: dict[asyncio.AbstractEventLoop, Stubs] = {}
        """gRPC binds a channel to the event loop that runs when it is made."""

    async def close(self) -> None:
        """Ends every call and the connection."""
        if not forking.usable():
            return
        self._closed = True
        running = asyncio.get_running_loop()
        stubs, self._stubs = self._stubs, {}
        for loop, it in stubs.items():
            forking.closed(it.channel)
            if loop is running:
                await it.close()
            elif loop.is_running():
                # A client that several loops use is closed by one of them.
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(it.close(), loop))

    async def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Returns the metadata of the next call.

        Raises:
            UnauthenticatedError: `auth` raised.
            CancelledError: The client was closed.
            FailedPreconditionError: This process was forked while a client was connected.
        """
        forking.require_usable()
        if self._closed:
            raise client_closed()
        return (*self._metadata, *await asked_async(self._auth))

    def seconds(self, timeout: float | None) -> float | None:
        """Returns a call's deadline: the caller's, or the client's; None: none."""
        seconds = self._timeout_s if timeout is None else timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    async def run(self, operation: Operation[T], timeout: float | None) -> T:
        """Makes the calls of an operation, and returns its result."""
        response: Any = None
        error: GraftError | None = None
        while True:
            try:
                call = operation.send(response) if error is None else operation.throw(error)
            except StopIteration as finished:
                result: T = finished.value
                return result
            try:
                response, error = await self._call(call, self.seconds(timeout)), None
            except GraftError as raised:
                error = raised

    async def begin(
        self, method: Callable[[Stubs], Any], *request: Any, timeout_s: float | None = None
    ) -> Any:
        """Begins a call that streams; `request` is given where the method takes a single one.

        Raises:
            GraftError: No call can be made.
        """
        metadata = await self.metadata()
        with self.opening():
            stubs = self._connected()
            call = method(stubs)(*request, timeout=timeout_s, metadata=metadata)
            stubs.began(call)
            return call

    def status_of(self, call: Any) -> FinalStatus:
        """Follows what a call ends with."""
        return FinalStatus(call, lambda error: explained(error, self._route))

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Turns what gRPC raises of a closed channel into an error of the client; a task's own cancellation stays."""
        try:
            yield
        except (grpc.RpcError, GraftError):
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and (task is None or not task.cancelling()):
                raise client_closed() from None  # gRPC cancels what waits for a call of a closed channel
            raise
        except Exception as error:
            # What an interceptor raises is the caller's own.
            if self._interceptors and not self._closed:
                raise
            raise opening_failed(error, closed=self._closed) from error

    async def _call(self, call: Call, timeout_s: float | None) -> Any:
        retries = Retries(timeout_s, repeatable=call.path in REPEATABLE_PATHS)
        while True:
            metadata = await self.metadata()
            try:
                with self.opening():
                    begun = self._method(call)(call.request, timeout=retries.left_s(), metadata=metadata)
                    self._connected().began(begun)
                    return await begun
            except grpc.RpcError as failed:
                error = explained(from_rpc_error(failed), self._route)
            await asyncio.sleep(retries.delay_s(error))

    def _connected(self) -> Stubs:
        loop = asyncio.get_running_loop()
        if loop not in self._stubs:
            for ended in [it for it in self._stubs if it.is_closed()]:
                forking.closed(self._stubs.pop(ended).channel)
            channel = self._made()
            forking.opened(channel)
            self._stubs[loop] = Stubs(
                channel,
                adaptation_pb2_grpc.AdaptationServiceStub(channel),
                model_pb2_grpc.ModelServiceStub(channel),
                prediction_pb2_grpc.PredictionServiceStub(channel),
            )
        return self._stubs[loop]

    def _made(self) -> grpc.aio.Channel:
        address, interceptors = self._route.target.address, self._interceptors
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=self._options, interceptors=interceptors)
        return grpc.aio.secure_channel(
            address, self._credentials, options=self._options, interceptors=interceptors
        )

    def _method(self, call: Call) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        stubs = self._connected()
        method = stubs.methods.get(call.path)
        if method is None:
            method = stubs.channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
            stubs.methods[call.path] = method
        return method


async def messages(
    calls: AsyncCalls, method: Callable[[Stubs], Any], cursor: Cursor
) -> AsyncGenerator[Any, None]:
    """Yields the messages of a stream, over however many calls it takes, until the server ends it well.

    Raises:
        GraftError: The server refused it, or nothing came for too long.
    """
    while True:
        call = await calls.begin(method, cursor.request(), timeout_s=cursor.deadline_s())
        status = calls.status_of(call)
        try:
            while (message := await _next(calls, call, cursor)) is not grpc.aio.EOF:
                yield message
                cursor.progress_timeout.restarted()
        except grpc.RpcError as failed:
            error = status.error(failed)
        else:
            return
        finally:
            end(call)
        await asyncio.sleep(cursor.broken(error))


async def _next(calls: AsyncCalls, call: Any, cursor: Cursor) -> Any:
    reading = asyncio.ensure_future(call.read())
    try:
        while not reading.done():
            await asyncio.wait({reading}, timeout=cursor.progress_timeout.left_s())
        with calls.opening():
            return reading.result()
    finally:
        reading.cancel()


def end(call: Any) -> None:
    """Cancels a call, but for one that a parent process made: gRPC is not to be touched there."""
    if forking.usable():
        call.cancel()
