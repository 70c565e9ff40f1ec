"""How the blocking client calls: its channel, its deadlines, and when it calls again."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc

from graft._client import operations as ops
from graft._client.operations import Call, Operation
from graft._transport.authentication import Auth, Metadata, asked
from graft._transport.channel import channel_options, channel_target
from graft._transport.retry import overload_delay_s
from graft.errors import client_closed, from_rpc_error
from graft.v1 import adaptation_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")

ClientInterceptor: TypeAlias = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
"""What grpc.intercept_channel takes."""


class SyncCalls:
    """A channel to a server, and what every call on it carries.

    Attributes:
        adaptations: The calls of the service of this name.
        models: The same.
        predictions: The same.
    """

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
    ) -> None:
        self._metadata = tuple(metadata)
        self._auth = auth
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stops: dict[int, Callable[[], None]] = {}
        self._timeout_s = timeout_s
        address, options = channel_target(target), channel_options(keep_alive_s)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        if interceptors:
            self._channel = grpc.intercept_channel(self._channel, *interceptors)
        self.adaptations = adaptation_pb2_grpc.AdaptationServiceStub(self._channel)
        self.models = model_pb2_grpc.ModelServiceStub(self._channel)
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def close(self) -> None:
        """Ends every call and the connection; from any thread, and what waits to call again ends, too."""
        self._closed.set()
        with self._lock:
            stops = tuple(self._stops.values())
        for stop in stops:
            stop()
        self._channel.close()

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Has `close` call `stop`, in its own thread, while the context lasts."""
        with self._lock:
            self._stops[id(stop)] = stop
        try:
            if self._closed.is_set():
                stop()
            yield
        finally:
            with self._lock:
                del self._stops[id(stop)]

    def wait(self, seconds: float) -> None:
        """Waits between two calls, while gRPC looks for a connection.

        Raises:
            CancelledError: The client was closed.
        """
        with self.connecting(seconds):
            self._sleep(seconds)

    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the next call carries.

        Raises:
            UnauthenticatedError: `auth` raised.
            CancelledError: The client was closed.
        """
        if self._closed.is_set():
            raise client_closed()
        return (*self._metadata, *asked(self._auth))

    def seconds(self, timeout: float | None) -> float | None:
        """A call's deadline: what the caller asks for, or the client's; None: none."""
        seconds = self._timeout_s if timeout is None else timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    def run(self, operation: Operation[T], timeout: float | None) -> T:
        """Makes the calls of an operation, and returns its result."""
        response: Any = None
        while True:
            try:
                call = operation.send(response)
            except StopIteration as finished:
                result: T = finished.value
                return result
            response = self._call(call, self.seconds(timeout))

    @contextlib.contextmanager
    def connecting(self, limit_s: float) -> Iterator[None]:
        """Keeps a call in flight that waits for a connection.

        Without any, blocking gRPC looks after its sockets only every 5 s
        (https://github.com/grpc/grpc/issues/28866): a restarted server was found 9 s late, and is now within one.
        """
        call = ops.HEALTH_CALL
        knock = self._method(call).future(
            call.request, timeout=limit_s, wait_for_ready=True, metadata=self.metadata()
        )
        try:
            yield
        finally:
            knock.cancel()

    def _call(self, call: Call, timeout_s: float | None) -> Any:
        ends = math.inf if timeout_s is None else time.monotonic() + timeout_s
        retries = 0
        while True:
            metadata = self.metadata()
            left_s = None if timeout_s is None else max(0.0, ends - time.monotonic())
            try:
                return self._method(call)(call.request, timeout=left_s, metadata=metadata)
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
            delay_s = overload_delay_s(error, retries, left_s)
            if delay_s is None:
                raise error
            retries += 1
            self._sleep(delay_s)

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise client_closed()

    def _method(self, call: Call) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        method = self._methods.get(call.path)
        if method is None:
            method = self._channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
            self._methods[call.path] = method
        return method
