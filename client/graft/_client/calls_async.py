"""How the asyncio client calls: its channel, its deadlines, and when it calls again."""

# Deadlines travel to the server, which drops what comes too late; asyncio.timeout would not tell it.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from graft._client.operations import Call, Operation
from graft._transport.authentication import AsyncAuth, Metadata, asked_async
from graft._transport.channel import channel_options, channel_target
from graft._transport.retry import overload_delay_s
from graft.errors import from_rpc_error
from graft.v1 import adaptation_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")


class AsyncCalls:
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
        auth: AsyncAuth | None,
        interceptors: Sequence[grpc.aio.ClientInterceptor],
        timeout_s: float | None,
        keep_alive_s: float,
    ) -> None:
        self._metadata = tuple(metadata)
        self._auth = auth
        self._timeout_s = timeout_s
        address, options = channel_target(target), channel_options(keep_alive_s)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
        else:
            self._channel = grpc.aio.secure_channel(
                address, credentials, options=options, interceptors=interceptors
            )
        self.adaptations = adaptation_pb2_grpc.AdaptationServiceStub(self._channel)
        self.models = model_pb2_grpc.ModelServiceStub(self._channel)
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self._channel)
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}

    async def close(self) -> None:
        """Ends every call and the connection."""
        await self._channel.close()

    async def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the next call carries.

        Raises:
            UnauthenticatedError: `auth` raised.
        """
        return (*self._metadata, *await asked_async(self._auth))

    def seconds(self, timeout: float | None) -> float | None:
        """A call's deadline: what the caller asks for, or the client's; None: none."""
        seconds = self._timeout_s if timeout is None else timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    async def run(self, operation: Operation[T], timeout: float | None) -> T:
        """Makes the calls of an operation, and returns its result."""
        response: Any = None
        while True:
            try:
                call = operation.send(response)
            except StopIteration as finished:
                result: T = finished.value
                return result
            response = await self._call(call, self.seconds(timeout))

    async def _call(self, call: Call, timeout_s: float | None) -> Any:
        ends = math.inf if timeout_s is None else time.monotonic() + timeout_s
        retries = 0
        while True:
            metadata = await self.metadata()
            left_s = None if timeout_s is None else max(0.0, ends - time.monotonic())
            try:
                return await self._method(call)(call.request, timeout=left_s, metadata=metadata)
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
            delay_s = overload_delay_s(error, retries, left_s)
            if delay_s is None:
                raise error
            retries += 1
            await asyncio.sleep(delay_s)

    def _method(self, call: Call) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        method = self._methods.get(call.path)
        if method is None:
            method = self._channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
            self._methods[call.path] = method
        return method
