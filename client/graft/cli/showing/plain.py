"""Values of the client as JSON knows them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from graft.errors import GraftError


def plain(value: Any) -> Any:
    """A value of the client as JSON knows it."""
    if isinstance(value, GraftError):
        return {"code": value.code.name, "reason": value.reason, "message": value.message}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dt.datetime | bytes | Message):
        # The content of files, and features as they can be sent again, are no matter of JSON.
        return value.isoformat() if isinstance(value, dt.datetime) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
