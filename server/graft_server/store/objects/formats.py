"""Formats: every object says by a number which one it has, and what is newer than this release is left as it is.

The number counts from 1, which is also that of an object without one. A release that adds what an older one may pass
over, and may drop where it writes an object anew, keeps the number; any other change raises it, for the objects alone
that have what is new: their type says so by a property `format_number`.

2: segments whose examples are matched with those of a base, adaptations that match them or do not promote, and moves of
an alias that pin it.

3: manifests of versions with an adapter, which an older release would serve on the frozen backbone.

An object that is whole, by its seal, and that this release does not know all the same, is a newer release's too: it
is named as that, and nobody is told to restore it from a copy, which would lose the newer work.
"""

from __future__ import annotations

from typing import Any

import msgspec

from graft_server.domain.errors import UPGRADE, NewerError

FORMAT = 3
"""The newest format that this release knows, of every kind of object."""
MATCHED, ADAPTED = 2, 3
"""The formats that objects with something new have: see above."""
FIRST = 1
"""The format of what a release that knows no other one may read."""

_FIELD = "format"


class _Said(msgspec.Struct, frozen=True):
    format: int = 1


def stamped(value: Any, number: int | None = None) -> bytes:
    """Returns plain data, whose JSON is an object, as JSON that begins with the format."""
    data = msgspec.json.encode(value)
    first = b'{"%b":%d' % (_FIELD.encode(), _number(value) if number is None else number)
    return first + (data[1:] if data == b"{}" else b"," + data[1:])


def packed(value: Any) -> bytes:
    """Returns plain data of fewer than 15 fields as MessagePack that begins with the format."""
    data = msgspec.msgpack.encode(value)
    count = data[0] & 0x0F
    if data[0] & 0xF0 != 0x80 or count == 0x0F:
        raise ValueError("only a map of fewer than 15 fields can be stamped")
    return bytes([data[0] + 1]) + msgspec.msgpack.encode(_FIELD) + bytes([_number(value)]) + data[1:]


def _number(value: Any) -> int:
    """Returns the format that a value is stored in."""
    return int(getattr(value, "format_number", FIRST))


def require_known(key: str, data: bytes, *, pack: bool = False) -> None:
    """Raises NewerError if JSON (or MessagePack) says that it has a newer format; no other error."""
    try:
        said = msgspec.msgpack.decode(data, type=_Said) if pack else msgspec.json.decode(data, type=_Said)
    except msgspec.DecodeError:
        return  # whoever reads the rest says what is wrong
    require_format(key, said.format)


def require_format(key: str, number: int) -> None:
    """Raises NewerError if an object's format is newer than what this release knows."""
    if number > FORMAT:
        raise newer(key, number)


def newer(key: str, number: int) -> NewerError:
    """Returns the error for an object of a newer format."""
    return NewerError.of_format(f"Object {key} of the store", number, FORMAT, {"object": key})


def unknown(key: str, what: str) -> NewerError:
    """Returns the error for an object that is what was written, and that this release does not know."""
    return NewerError(
        f"Object {key} of the store is as it was written, but this release of Graft does not know its form ({what}): "
        f"most probably a newer release of Graft wrote it; {UPGRADE}",
        reason="OBJECT_NEWER",
        metadata={"object": key, "reads": str(FORMAT)},
    )
