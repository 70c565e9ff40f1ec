"""Protobuf's times, durations and enums as Python's own."""

from __future__ import annotations

import datetime as dt

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def time_of(message: Timestamp) -> dt.datetime | None:
    """The time in UTC, or None where the field is unset."""
    return message.ToDatetime(tzinfo=dt.UTC) if message.seconds or message.nanos else None


def seconds_of(message: Duration) -> float:
    """The duration in seconds."""
    return message.seconds + message.nanos / 1e9


def enum_text(enum: type, value: int, prefix: str) -> str:
    """An enum's value in lower case without its prefix; "" for unspecified, the number if it is not known."""
    try:
        name: str = enum.Name(value)  # type: ignore[attr-defined]
    except ValueError:
        return str(value)
    text = name.removeprefix(prefix).lower()
    return "" if text == "unspecified" else text
