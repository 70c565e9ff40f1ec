"""When to try again, and after how long. No I/O: callers do the waiting."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import SystemRandom
from typing import Final

import grpc

from graft.errors import GraftError

_RANDOM: Final = SystemRandom()
_OVERLOAD_RETRIES: Final = 4
_MAX_EXPONENT: Final = 16

# What gRPC says when the transport broke, under codes that a server's own errors use too.
_TRANSPORT: Final = re.compile(
    r"RST_STREAM|GOAWAY|socket closed|stream removed|connection reset|broken pipe|connection aborted|"
    r"endpoint closing|transport closed|internal error from core|"
    r"end of (?:tcp )?(?:file|stream)|\bEOF\b|too_many_pings",
    re.IGNORECASE,
)
_TRANSPORT_CODES: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class Backoff:
    """Exponential backoff with full jitter, so that the clients of a restarted server do not come at once."""

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        longest_s: float = 2.0,
        uniform: Callable[[float, float], float] = _RANDOM.uniform,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._tries = 0

    def next_s(self) -> float:
        """How long to wait before the next try, in seconds."""
        ceiling = min(self._longest_s, self._first_s * 2 ** min(self._tries, _MAX_EXPONENT))
        self._tries += 1
        return self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begins again with the shortest wait, after something worked."""
        self._tries = 0


def overload_delay_s(error: GraftError, retries: int, left_s: float | None) -> float | None:
    """How long to wait before calling an overloaded server again, or None to give up.

    Args:
        error: The error of the call.
        retries: The number of earlier retries.
        left_s: The rest of the caller's deadline in seconds; None: there is none.
    """
    if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or error.retry_after is None:
        return None
    if retries >= _OVERLOAD_RETRIES or (left_s is not None and error.retry_after >= left_s):
        return None
    return error.retry_after


def is_resumable(error: GraftError) -> bool:
    """Whether a stream that ended so can go on in a new call.

    Unavailable servers and broken transports can; an error that the server itself decided cannot. A cancelled
    call counts as broken: the client cancels its own only when it does not want to go on, and servers and
    proxies cancel what is in flight when they stop.
    """
    if error.domain:
        return error.code is grpc.StatusCode.UNAVAILABLE or error.retry_after is not None
    if error.code in _TRANSPORT_CODES:
        return _TRANSPORT.search(error.message) is not None
    return error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
