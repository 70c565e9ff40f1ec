"""What gRPC's own errors mean: proxies in the way, HTTP servers that are no gRPC servers, closed clients."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import grpc

from graft._transport.proxies import Route
from graft._transport.retry import HTTP_STATUS
from graft._transport.unreachable import unreachable
from graft.errors import (
    CancelledError,
    DeadlineExceededError,
    GraftError,
    InternalError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    client_closed,
)

_FORWARD: Final = re.compile(r"HTTP proxy returned response code (\d{3})")
_HTTP1: Final = re.compile(r"Trying to connect an http1\.x server \(HTTP status (\d{3})\)")
_HTTP2: Final = re.compile(r"http2 header with status: (\d{3})")
_CLASS_BY_STATUS: Final[dict[int, type[GraftError]]] = {
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: UnimplementedError,
    407: UnauthenticatedError,
    413: ResourceExhaustedError,
}
_AT_SHUTDOWN: Final = "shutdown"
"""In what Python says of threads that are to be started then."""
_BARE_DEADLINE: Final = "Deadline Exceeded"


def explained(error: GraftError, route: Route) -> GraftError:
    """An error that gRPC made, with what it does not say: the HTTP status that was behind it, the proxy in the way.

    What a server says of itself is returned as it is.
    """
    if error.domain or error.reason:
        return error
    if told := _http_answer(error, route):
        return told
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and error.message == _BARE_DEADLINE:
        return DeadlineExceededError(
            f"{route.target.name} did not answer before the deadline{_by_way_of(route)}"
        )
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return UnimplementedError(
            f"{route.target.name} does not know this method: it is another gRPC server, or a Graft server that is "
            f"older than this client; details: {error.message}"
        )
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(error, route)
    return error


def _unavailable(error: GraftError, route: Route) -> GraftError:
    if said := unreachable(error.message, route.target, _by_way_of(route)):
        return UnavailableError(said)
    return UnavailableError(f"{error.message}{_by_way_of(route)}") if route.proxy else error


def opening_failed(error: Exception, *, closed: bool) -> GraftError:
    """The error to raise for one that is not of a call, which gRPC raised when a call was to be made.

    Args:
        error: What gRPC raised.
        closed: Whether the client was closed.
    """
    if closed:
        return client_closed()
    if sys.is_finalizing() or (isinstance(error, RuntimeError) and _AT_SHUTDOWN in str(error)):
        return CancelledError(
            f"The call cannot be made, because the interpreter is shutting down: {error}",
            reason="INTERPRETER_SHUTDOWN",
            domain="graft",
        )
    return InternalError(f"gRPC cannot make the call: {type(error).__name__}: {error}")


def _http_answer(error: GraftError, route: Route) -> GraftError | None:
    name, message = route.target.name, error.message
    if found := _FORWARD.search(message):
        proxy = route.proxy.url if route.proxy else "in the environment"
        said = f"The proxy {proxy}, asked for a connection to {route.target.host or name}, answered"
        return _of_status(int(found[1]), said, f"{_by_way_of(route)}", error.code)
    if found := _HTTP1.search(message):
        why = (
            ": what answers there speaks HTTP/1.1, so it is no gRPC server, or a proxy that passes no HTTP/2"
        )
        return _of_status(int(found[1]), f"{name} answered", f"{why}{_by_way_of(route)}", error.code)
    if found := _HTTP2.search(message):
        why = ", which no Graft server does: a proxy before it, or another server, answers there"
        return _of_status(int(found[1]), f"{name} answered", f"{why}{_by_way_of(route)}", error.code)
    return None


def _of_status(status: int, said: str, why: str, code: grpc.StatusCode) -> GraftError:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        why += ". It takes smaller requests than Graft, whose limit is 32 MiB: raise its limit for a request's size"
    kind: type[GraftError] = _CLASS_BY_STATUS.get(status, UnavailableError)
    known = {"reason": HTTP_STATUS, "metadata": {"http_status": str(status)}}
    if kind is UnavailableError and code is not grpc.StatusCode.UNAVAILABLE and status < 500:
        return GraftError(f"{said} with HTTP status {status}{phrase}{why}", code=code, **known)  # type: ignore[arg-type]
    return kind(f"{said} with HTTP status {status}{phrase}{why}", **known)  # type: ignore[arg-type]


def _by_way_of(route: Route) -> str:
    if route.proxy is None:
        return ""
    host = route.target.host
    return (
        f" (calls go through the proxy {route.proxy.url}, which the environment variable {route.proxy.variable} names"
        f"{f'; no_proxy={host} would go around it' if host else ''})"
    )


Explain = Callable[[GraftError], GraftError]
"""Says what an error of gRPC means, for one way to a server."""
