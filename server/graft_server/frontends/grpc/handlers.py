"""Turns a servicer's methods into gRPC handlers: every call's way in and out, in one place.

Requests are parsed here and not by gRPC, whose own failure to parse would reach the caller as UNKNOWN and
without details. Errors leave through the table in `frontends.grpc.errors`; other exceptions are
logged and reported as INTERNAL, without their text.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from graft_server.domain.errors import DomainError, FaultError, InvalidError
from graft_server.frontends.grpc.errors import Context, abort, end

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are not a message of the expected type."""

    kind: str
    """The message's full name."""
    data: bytes

    def error(self) -> InvalidError:
        """The error for the sender."""
        return InvalidError(
            f"The request is not a valid {self.kind}: its bytes cannot be parsed. Are all strings UTF-8, and is it "
            "made with the current protos?",
            reason="REQUEST_MALFORMED",
        )


class _Received:
    """A message of a stream, as it came.

    gRPC keeps the object from its deserializer until the next message arrives. So the object is this box, which is
    emptied: a stream that waits for room does not keep a processed message in memory.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data


M = TypeVar("M", bound=Callable[..., Any])


def answers_each(method: M) -> M:
    """Marks a servicer's method that also receives unparsable messages, as `Malformed`, and answers to them."""
    method.answers_each = True  # type: ignore[attr-defined]
    return method


def add_service(server: grpc.aio.Server, servicer: object, descriptor: ServiceDescriptor) -> None:
    """Registers all methods of a service, each implemented by the servicer's method of the same name."""
    handlers = {
        method.name: _handler(getattr(servicer, method.name), method) for method in descriptor.methods
    }
    server.add_registered_method_handlers(descriptor.full_name, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(descriptor.full_name, handlers),))


def _handler(method: Callable[..., Any], descriptor: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    parse = _parser(message_factory.GetMessageClass(descriptor.input_type))
    answer = message_factory.GetMessageClass(descriptor.output_type)
    if descriptor.client_streaming and descriptor.server_streaming:
        make = grpc.stream_stream_rpc_method_handler
    elif descriptor.client_streaming:
        make = grpc.stream_unary_rpc_method_handler
    elif descriptor.server_streaming:
        make = grpc.unary_stream_rpc_method_handler
    else:
        make = grpc.unary_unary_rpc_method_handler
    wrap = _streaming if descriptor.server_streaming else _single
    deserialize: Callable[[bytes], Any] = parse
    incoming: Callable[[Any], Any] = _message
    if descriptor.client_streaming:
        deserialize = _Received
        incoming = partial(_each if hasattr(method, "answers_each") else _messages, parse)
    return make(wrap(method, incoming, answer, descriptor.full_name), deserialize, answer.SerializeToString)


_Parse = Callable[[bytes], Message | Malformed]


def _parser(kind: type[Message]) -> _Parse:
    def parse(data: bytes) -> Message | Malformed:
        try:
            return kind.FromString(data)
        except DecodeError:
            return Malformed(kind.DESCRIPTOR.full_name, data)

    return parse


def _message(request: Message | Malformed) -> Message:
    if isinstance(request, Malformed):
        raise request.error()
    return request


async def _each(parse: _Parse, requests: AsyncIterator[_Received]) -> AsyncIterator[Message | Malformed]:
    async for request in requests:
        yield parse(request.take())


async def _messages(parse: _Parse, requests: AsyncIterator[_Received]) -> AsyncIterator[Message]:
    async for request in requests:
        yield _message(parse(request.take()))


def _single(
    method: Callable[..., Awaitable[Message]], incoming: Callable[..., Any], answer: type[Message], name: str
) -> Callable[..., Awaitable[Message]]:
    # The message sent with an error's status: none.
    nothing = answer()

    async def handle(request: Any, context: Context) -> Message:
        try:
            return await method(incoming(request), context)
        except Exception as error:  # noqa: BLE001 - sent as its status, or logged and sent as INTERNAL
            end(context, _told(error, name))
            return nothing

    return handle


def _streaming(
    method: Callable[..., AsyncIterator[Message]], incoming: Callable[..., Any], _: type[Message], name: str
) -> Callable[..., AsyncIterator[Message]]:
    async def handle(request: Any, context: Context) -> AsyncIterator[Message]:
        try:
            # Closed at once when the caller leaves, not when the garbage collector finds it.
            async with aclosing(method(incoming(request), context)) as responses:  # type: ignore[type-var]
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - sent as its status, or logged and sent as INTERNAL
            await abort(context, _told(error, name))

    return handle


def _told(error: Exception, name: str) -> DomainError:
    """Returns the error that a caller receives."""
    if isinstance(error, DomainError):
        return error
    _log.error("unexpected error in %s", name, exc_info=error)
    return FaultError("Something failed here; the server's log has the details.", reason="INTERNAL")
