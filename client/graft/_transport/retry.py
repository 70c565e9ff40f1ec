"""When to try again, and after how long. No I/O: callers do the waiting."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Final

import grpc

from graft.errors import GraftError

_RANDOM: Final = SystemRandom()
_OVERLOAD_RETRIES: Final = 4
_UNAVAILABLE_RETRIES: Final = 4
HTTP_STATUS: Final = "HTTP_STATUS"
"""The reason of an error that is an HTTP answer, of a proxy or of a server that is none of ours."""
_LEAST_TRANSIENT_STATUS: Final = 500
_TROUBLE_S: Final = 3.0
"""How long a proxy that says that the server is gone is asked again."""
_MAX_EXPONENT: Final = 16

# What gRPC says when the transport broke, under codes that a server's own errors use too.
_TRANSPORT: Final = re.compile(
    r"RST_STREAM|GOAWAY|socket closed|stream removed|connection reset|broken pipe|connection aborted|"
    r"endpoint closing|transport closed|internal error from core|"
    r"end of (?:tcp )?(?:file|stream)|\bEOF\b|too_many_pings",
    re.IGNORECASE,
)
# What gRPC says when there was no connection on which to send anything, or when the server said that it has not seen
# the call, because it was about to renew the connection.
_NOT_SENT: Final = re.compile(
    r"connections to all backends failing|failed to connect|DNS resolution failed|HTTP proxy returned|"
    r"GOAWAY received; Error code: 0",
    re.IGNORECASE,
)
_TRANSPORT_CODES: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def _about(_: float, seconds: float) -> float:
    """Not far from so many seconds: few tries should last for as long as a server takes to start."""
    return _RANDOM.uniform(0.8 * seconds, 1.2 * seconds)


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
    if error.reason == HTTP_STATUS:
        transient = int(error.metadata["http_status"]) >= _LEAST_TRANSIENT_STATUS
        return transient and error.code is grpc.StatusCode.UNAVAILABLE
    if error.domain:
        return error.code is grpc.StatusCode.UNAVAILABLE or error.retry_after is not None
    if error.code in _TRANSPORT_CODES:
        return _TRANSPORT.search(error.message) is not None
    return error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class Retries:
    """When a unary call is made again, within its deadline."""

    def __init__(
        self,
        timeout_s: float | None,
        *,
        repeatable: bool,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins with the first call.

        Args:
            timeout_s: The deadline of all tries together, in seconds; None: there is none.
            repeatable: Whether a call may be made again of which nobody can say whether it was carried out.
            backoff: How long to wait where the server does not say.
            clock: Seconds, never going back.
        """
        self._clock = clock
        self._ends = None if timeout_s is None else clock() + timeout_s
        self._repeatable = repeatable
        self._backoff = backoff or Backoff(first_s=0.2, longest_s=1.6, uniform=_about)
        self._overloads = 0
        self._absences = 0
        self._trouble: GraftError | None = None
        self._troubled_since = 0.0

    def left_s(self) -> float | None:
        """How long the next try may take, in seconds; None: any time."""
        left_s = None if self._ends is None else max(0.0, self._ends - self._clock())
        if self._trouble is not None and self._trouble.reason == HTTP_STATUS:
            # What answers instead of a server may also not answer at all: its word is not waited for to the deadline.
            rest_s = max(0.1, self._troubled_since + _TROUBLE_S - self._clock())
            return rest_s if left_s is None else min(left_s, rest_s)
        return left_s

    def delay_s(self, error: GraftError) -> float:
        """Takes in how a try failed, and returns how long to wait before the next, in seconds.

        Raises:
            GraftError: There is no point in another. Where the deadline passed after an earlier try had failed
                for a reason, that reason is told.
        """
        left_s = self.left_s()
        if self._trouble is not None and error.code is grpc.StatusCode.DEADLINE_EXCEEDED and not error.domain:
            if self._trouble.reason == HTTP_STATUS:
                raise self._trouble
            error.message += f"; the last answer was: {self._trouble.message}"
            raise error
        delay_s = overload_delay_s(error, self._overloads, left_s)
        if delay_s is not None:
            self._overloads += 1
            return delay_s
        if self._absences >= _UNAVAILABLE_RETRIES or not self._may_repeat(error):
            raise error
        if self._trouble is None:
            self._troubled_since = self._clock()
        self._trouble = error
        self._absences += 1
        delay_s = max(self._backoff.next_s(), error.retry_after or 0.0)
        if left_s is not None and delay_s >= left_s:
            raise error
        return delay_s

    def _may_repeat(self, error: GraftError) -> bool:
        if error.code is not grpc.StatusCode.UNAVAILABLE or not is_resumable(error):
            return False
        return self._repeatable or (not error.domain and _NOT_SENT.search(error.message) is not None)
