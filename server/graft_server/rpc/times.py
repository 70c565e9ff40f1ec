"""Moments and lengths of time as messages."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """A moment with a time zone."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message


def duration(seconds: float) -> Duration:
    """A length of time."""
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)
