"""Moments and lengths of time as messages."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from graft_server.domain.errors import InvalidError

LEAST_KEEP_ALIVE_S = 0.2


def timestamp(moment: datetime) -> Timestamp:
    """A moment with a time zone."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message


def duration(seconds: float) -> Duration:
    """A length of time."""
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def keep_alive(message: Duration, field: str) -> float | None:
    """After how much silence a caller wants to hear of the server, in seconds; None: it does not say."""
    if not message.ByteSize():
        return None
    return max(LEAST_KEEP_ALIVE_S, seconds(message, field))


def seconds(message: Duration, field: str) -> float:
    """A length of time in seconds; an unset one is 0. Raises InvalidError if it is negative."""
    value = message.seconds + message.nanos / 1e9
    if value < 0:
        raise InvalidError(
            f"{field} is {value:g} s: give a length of time above 0, or leave it out.",
            reason="DURATION_INVALID",
            field=field,
        )
    return value
