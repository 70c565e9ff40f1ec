"""Turns a servicer's methods into gRPC handlers: every call's way in and out, in one place.

Requests are parsed here and not by gRPC, whose own failure to parse would reach the caller as UNKNOWN and
without details. Errors leave through the table in `frontends.grpc.errors`; other exceptions are
logged and reported as INTERNAL, without their text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from graft_server.domain.caller import asking
from graft_server.domain.errors import DomainError, DrainingError, FaultError, InvalidError, OverloadError
from graft_server.frontends.grpc.calls import Call, Calls
from graft_server.frontends.grpc.errors import Context, abort, end
from graft_server.frontends.grpc.sizes import MAX_NAMES_BYTES, check_message, check_metadata
from graft_server.frontends.grpc.targets import address_of

_log = logging.getLogger(__name__)

_ACTIVITY = "activity"
"""The field of what says only that the server is at work."""
_NOT_READ_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are not a message of the expected type, or more of them than are read."""

    kind: str
    """The message's full name."""
    data: bytes
    refused: DomainError | None = None
    """Why it was not parsed at all, if it was not."""

    def error(self) -> DomainError:
        """The error for the sender."""
        return self.refused or InvalidError(
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


def rests(method: M) -> M:
    """Marks a servicer's method whose calls are never at work themselves: they tell of what happens elsewhere."""
    method.rests = True  # type: ignore[attr-defined]
    return method


def resumes(method: M) -> M:
    """Marks a servicer's method whose clients can go on in another call after any answer: there is one a message."""
    method.resumes = True  # type: ignore[attr-defined]
    return method


def takes(most_bytes: int) -> Callable[[M], M]:
    """Gives the most bytes of a message that a servicer's method reads, if they are more than a few names have."""

    def mark(method: M) -> M:
        method.most_bytes = most_bytes  # type: ignore[attr-defined]
        return method

    return mark


def add_service(
    server: grpc.aio.Server, servicer: object, descriptor: ServiceDescriptor, calls: Calls, name: str = ""
) -> None:
    """Registers all methods of a service, each implemented by the servicer's method of the same name.

    Args:
        server: The server.
        servicer: What answers.
        descriptor: The service's methods and their messages.
        calls: Where the calls are noted while they run.
        name: The service's name, if it has another one than the descriptor's.
    """
    handlers = {
        method.name: _handler(getattr(servicer, method.name), method, calls) for method in descriptor.methods
    }
    name = name or descriptor.full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _handler(
    method: Callable[..., Any], descriptor: MethodDescriptor, calls: Calls
) -> grpc.RpcMethodHandler[Any, Any]:
    most_bytes = getattr(method, "most_bytes", MAX_NAMES_BYTES)
    parse = _parser(descriptor.input_type, most_bytes)
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
    incoming: _Incoming = _message
    if descriptor.client_streaming:
        deserialize = _Received
        incoming = partial(_each if hasattr(method, "answers_each") else _messages, parse)
    begin = partial(calls.begin, rests=hasattr(method, "rests"), resumes=hasattr(method, "resumes"))
    handle = wrap(_Method(method, incoming, begin, descriptor.full_name), answer)
    return make(handle, deserialize, answer.SerializeToString)


_Parse = Callable[[bytes], Message | Malformed]
_Incoming = Callable[[Any, Call], Any]


@dataclass(frozen=True, slots=True)
class _Method:
    """A servicer's method, and what it needs."""

    implementation: Callable[..., Any]
    incoming: _Incoming
    """Makes the method's argument from what gRPC delivers."""
    begin: Callable[[Context], Call]
    name: str


def _parser(kind: Descriptor, most_bytes: int) -> _Parse:
    message = message_factory.GetMessageClass(kind)

    def parse(data: bytes) -> Message | Malformed:
        try:
            check_message(data, kind, most_bytes)
            return message.FromString(data)
        except DomainError as error:
            return Malformed(kind.full_name, data, error.with_traceback(None))
        except DecodeError:
            return Malformed(kind.full_name, data)

    return parse


def _message(request: Message | Malformed, _: Call | None = None) -> Message:
    if isinstance(request, Malformed):
        raise request.error()
    return request


async def _each(
    parse: _Parse, requests: AsyncIterator[_Received], call: Call
) -> AsyncIterator[Message | Malformed]:
    async for request in call.messages(requests):
        yield parse(request.take())


async def _messages(parse: _Parse, requests: AsyncIterator[_Received], call: Call) -> AsyncIterator[Message]:
    async for request in call.messages(requests):
        yield _message(parse(request.take()))


def _single(method: _Method, answer: type[Message]) -> Callable[..., Awaitable[Message]]:
    # The message sent with an error's status: none.
    nothing = answer()

    async def handle(request: Any, context: Context) -> Message:
        call = method.begin(context)
        asking.set(address_of(context.peer()))
        try:
            check_metadata(context)
            found: Message = await method.implementation(method.incoming(request, call), context)
        except asyncio.CancelledError:
            if not call.given_up:
                raise
            end(context, DrainingError())
            found = nothing
        except Exception as error:  # noqa: BLE001 - sent as its status, or logged and sent as INTERNAL
            end(context, _told(error, method.name))
            found = nothing
        call.sending()
        return found

    return handle


def _streaming(method: _Method, answer: type[Message]) -> Callable[..., AsyncIterator[Message]]:
    alive = _ACTIVITY in answer.DESCRIPTOR.fields_by_name

    async def handle(request: Any, context: Context) -> AsyncIterator[Message]:
        call = method.begin(context)
        asking.set(address_of(context.peer()))
        try:
            check_metadata(context)
            # Closed at once when the caller leaves, not when the garbage collector finds it.
            async with aclosing(method.implementation(method.incoming(request, call), context)) as responses:
                async for response in responses:
                    call.sending()
                    yield response
                    call.sent(answers=not (alive and response.HasField(_ACTIVITY)))
        except asyncio.CancelledError:
            if not call.given_up:
                raise
            await abort(context, DrainingError())
        except GeneratorExit:
            if not context.done():
                # It was cancelled while the transport held an answer back. gRPC tells the client nothing then.
                error = DrainingError() if call.given_up else _not_read()
                call.telling = asyncio.ensure_future(_tell(context, error))
            raise
        except Exception as error:  # noqa: BLE001 - sent as its status, or logged and sent as INTERNAL
            await abort(context, _told(error, method.name))

    return handle


async def _tell(context: Context, error: DomainError) -> None:
    """Ends a call whose handler has ended; its client may have left."""
    with suppress(Exception):
        await abort(context, error)


def _not_read() -> OverloadError:
    return OverloadError(
        "The answers of this call were not read for long, and its place was needed: call again, and go on from there.",
        reason="ANSWERS_NOT_READ",
        retry_after_s=_NOT_READ_RETRY_S,
    )


def _told(error: Exception, name: str) -> DomainError:
    """Returns the error that a caller receives.

    It has no traceback: that refers to the request, which may be large, and some requests refer to their error. Both
    would stay in memory until the garbage collector looks for such cycles.
    """
    if isinstance(error, DomainError):
        return error.with_traceback(None)
    _log.error("unexpected error in %s", name, exc_info=error)
    return FaultError("Something failed here; the server's log has the details.", reason="INTERNAL")
