"""The calls of the blocking client: channel, deadlines and retries."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc

from graft._client import operations as ops
from graft._client.operations import Call, Operation
from graft._transport import forking
from graft._transport.authentication import Auth, Metadata, asked, checked_metadata
from graft._transport.channel import REPEATABLE_PATHS, channel_options
from graft._transport.failures import explained, opening_failed
from graft._transport.progress_timeout import Cursor
from graft._transport.proxies import route_to
from graft._transport.reading_sync import Incoming, end
from graft._transport.retry import Retries
from graft._transport.targets import target_of
from graft.errors import FailedCall, GraftError, client_closed, from_call, from_rpc_error
from graft.v1 import adaptation_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")

ClientInterceptor: TypeAlias = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
"""An interceptor for grpc.intercept_channel."""


_READ_AHEAD = 8
"""Messages of a stream that are read before they are asked for."""


@dataclass(frozen=True, slots=True)
class Stubs:
    """The calls of each service."""

    adaptations: adaptation_pb2_grpc.AdaptationServiceStub
    models: model_pb2_grpc.ModelServiceStub
    predictions: prediction_pb2_grpc.PredictionServiceStub


class SyncCalls:
    """A channel to a server, made when it is first used, and the metadata and deadline of its calls."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        metadata: Metadata,
        auth: Auth | None,
        interceptors: Sequence[ClientInterceptor],
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
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stops: dict[int, Callable[[], None]] = {}
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs | None = None
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def close(self) -> None:
        """Ends every call, pending retries and the connection; may be called from any thread."""
        if not forking.usable():
            return
        self._closed.set()
        with self._lock:
            stops = tuple(self._stops.values())
            channel = self._channel
        for stop in stops:
            stop()
        if channel is not None:
            channel.close()
            forking.closed(channel)

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Makes `close` call `stop`, in its own thread, while the context lasts."""
        with self._lock:
            self._stops[id(stop)] = stop
        try:
            if self._closed.is_set():
                stop()
            yield
        finally:
            self._stops.pop(id(stop), None)

    def wait(self, seconds: float) -> None:
        """Waits between two calls, while gRPC looks for a connection.

        Raises:
            CancelledError: The client was closed.
        """
        with self.connecting(seconds):
            self._sleep(seconds)

    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Returns the metadata of the next call.

        Raises:
            UnauthenticatedError: `auth` raised.
            CancelledError: The client was closed.
            FailedPreconditionError: This process was forked while a client was connected.
        """
        forking.require_usable()
        if self._closed.is_set():
            raise client_closed()
        return (*self._metadata, *asked(self._auth))

    def seconds(self, timeout: float | None) -> float | None:
        """Returns a call's deadline: the caller's, or the client's; None: none."""
        seconds = self._timeout_s if timeout is None else timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    def run(self, operation: Operation[T], timeout: float | None) -> T:
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
                response, error = self._call(call, self.seconds(timeout)), None
            except GraftError as raised:
                error = raised

    def begin(self, method: Callable[[Stubs], Any], request: Any, timeout_s: float | None = None) -> Any:
        """Begins a call that streams.

        Args:
            method: Which, for example `lambda stubs: stubs.models.ExportModel`.
            request: The request, or an iterator of them.
            timeout_s: The deadline of the whole call, in seconds; None: there is none.

        Raises:
            GraftError: No call can be made.
        """
        metadata = self.metadata()
        with self._opening():
            return method(self._connected())(request, timeout=timeout_s, metadata=metadata)

    def reading(self, call: Any, *, name: str) -> Incoming[Any]:
        """Begins to read what a call streams.

        Raises:
            GraftError: No thread can be started.
        """
        with self._opening():
            return Incoming(call, self.error_of, capacity=_READ_AHEAD, name=name)

    def error_of(self, failed: FailedCall) -> GraftError:
        """The error that a failed call is."""
        return explained(from_call(failed), self._route)

    @contextlib.contextmanager
    def connecting(self, limit_s: float) -> Iterator[None]:
        """Keeps a call in flight during a wait for a connection.

        Without one, blocking gRPC serves its sockets only every 5 s
        (https://github.com/grpc/grpc/issues/28866): a restarted server was found 9 s late, and is now within one.
        """
        call = ops.HEALTH_CALL
        metadata = self.metadata()
        with self._opening():
            knock = self._method(call.path, call.request, call.response).future(
                call.request, timeout=limit_s, wait_for_ready=True, metadata=metadata
            )
        try:
            yield
        finally:
            end(knock)

    def _call(self, call: Call, timeout_s: float | None) -> Any:
        retries = Retries(timeout_s, repeatable=call.path in REPEATABLE_PATHS)
        while True:
            metadata = self.metadata()
            try:
                with self._opening():
                    method = self._method(call.path, call.request, call.response)
                    return method(call.request, timeout=retries.left_s(), metadata=metadata)
            except grpc.RpcError as failed:
                error = explained(from_rpc_error(failed), self._route)
            delay_s = retries.delay_s(error)
            if error.code is grpc.StatusCode.UNAVAILABLE:
                self.wait(delay_s)
            else:
                self._sleep(delay_s)

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise client_closed()

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Turns what gRPC raises of a closed channel or a dying interpreter into an error of the client."""
        try:
            yield
        except (grpc.RpcError, GraftError):
            raise
        except Exception as error:
            # What an interceptor raises is the caller's own.
            if self._interceptors and not self._closed.is_set():
                raise
            raise opening_failed(error, closed=self._closed.is_set()) from error

    def _connected(self) -> Stubs:
        with self._lock:
            if self._stubs is None:
                channel = self._made()
                self._stubs = Stubs(
                    adaptation_pb2_grpc.AdaptationServiceStub(channel),
                    model_pb2_grpc.ModelServiceStub(channel),
                    prediction_pb2_grpc.PredictionServiceStub(channel),
                )
            return self._stubs

    def _made(self) -> grpc.Channel:
        """The channel; the lock is held."""
        if self._channel is None:
            if self._closed.is_set():
                raise client_closed()
            address = self._route.target.address
            if self._credentials is None:
                channel = grpc.insecure_channel(address, options=self._options)
            else:
                channel = grpc.secure_channel(address, self._credentials, options=self._options)
            self._channel = (
                grpc.intercept_channel(channel, *self._interceptors) if self._interceptors else channel
            )
            forking.opened(self._channel)
        return self._channel

    def _method(self, path: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        with self._lock:
            method = self._methods.get(path)
            if method is None:
                method = self._made().unary_unary(
                    path,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=response.FromString,
                )
                self._methods[path] = method
            return method


def messages(calls: SyncCalls, method: Callable[[Stubs], Any], cursor: Cursor) -> Generator[Any, None, None]:
    """Yields the messages of a stream, over however many calls it takes, until the server ends it well.

    Raises:
        GraftError: The server refused it, or nothing came for too long.
    """
    while True:
        call = calls.begin(method, cursor.request(), cursor.deadline_s())
        incoming = calls.reading(call, name="graft-read")
        try:
            while not isinstance(message := _next(incoming, cursor), GraftError):
                if message is None:
                    return
                yield message
                cursor.progress_timeout.restarted()
        finally:
            incoming.close()
        calls.wait(cursor.broken(message))


def _next(incoming: Incoming[Any], cursor: Cursor) -> Any:
    while True:
        with contextlib.suppress(queue.Empty):
            return incoming.next(cursor.progress_timeout.left_s())
