"""How server and worker talk: messages in msgpack, each after its length, over two pipes.

The first message to a worker is its `Place`, all others are calls. Payloads and results travel as msgpack inside of
messages: each side reads them as the type that the kind of job names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import msgspec

from graft_server.domain import errors
from graft_server.jobs import job

LENGTH_BYTES = 4


class Call(msgspec.Struct, frozen=True):
    """To the worker: call a function."""

    function: str
    payload: msgspec.Raw


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the worker: how far the function is."""

    progress: job.Progress


class Done(msgspec.Struct, frozen=True, tag="done"):
    """From the worker: the function's result."""

    result: msgspec.Raw


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """From the worker: the function raised a domain error, or something that was made one."""

    error: str
    message: str
    reason: str
    field: str
    metadata: Mapping[str, str]
    traceback: str = ""
    """For the server's log, where the exception was not expected."""


Answer = Progress | Done | Raised

# The domain errors that are built from these fields alone; others travel as the class they derive from.
_TRAVELLING: dict[str, type[errors.DomainError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidError,
        errors.MissingError,
        errors.ConflictError,
        errors.StateError,
        errors.FaultError,
        errors.StoreError,
        errors.CorruptError,
        errors.NewerError,
        errors.StoreFullError,
        errors.BackboneError,
        errors.WorkerError,
    )
}


def raised(error: errors.DomainError, traceback: str = "") -> Raised:
    """Returns a domain error as a message."""
    kind = next((it.__name__ for it in type(error).__mro__ if it.__name__ in _TRAVELLING), "FaultError")
    return Raised(kind, error.message, error.reason, error.field, error.metadata, traceback)


def rebuilt(message: Raised) -> errors.DomainError:
    """Returns the domain error that a message carries."""
    kind = _TRAVELLING[message.error]
    return kind(message.message, reason=message.reason, field=message.field, metadata=message.metadata)


def packed(value: object) -> msgspec.Raw:
    """Returns a payload or a result as a part of a message. Raises TypeError if it holds what msgpack cannot."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


def encode(message: job.Place | Call | Answer) -> bytes:
    """Returns a message as a frame."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def read(stream: BinaryIO) -> bytes | None:
    """Returns the next frame's content, or None at the stream's end."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "big")
    data = stream.read(size)
    return data if len(data) == size else None
