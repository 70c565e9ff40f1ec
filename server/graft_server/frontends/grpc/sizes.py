"""How much a request may bring, checked before anything is made of it.

gRPC bounds a message's bytes alone. Parsing makes an object of 20 to 50 bytes of every message within a message, which
may have been 2 bytes: 32 MiB of empty inputs would take 800 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from graft_server.domain.errors import InvalidError, TooLargeError
from graft_server.frontends.grpc.errors import Context

MAX_REQUEST_BYTES = 32 << 20
"""Of a message of a method that takes inputs or examples."""
MAX_LIST_BYTES = 4 << 20
"""Of a message of a method that takes a list of names."""
MAX_NAMES_BYTES = 256 << 10
"""Of a message of any other method: a few names and numbers."""
MAX_METADATA_BYTES = 16 << 10
"""Of the names and values of a request's metadata."""
MAX_TRANSPORTED_METADATA_BYTES = 40 << 10
"""The same as HTTP/2 counts it: with 32 bytes an entry, and with the headers that gRPC adds."""

FREE_BYTES = 64 << 10
"""A message of so many bytes is not looked at: it takes 1.5 MB at worst."""
FREE_PARTS = 65_536
BYTES_A_PART = 4
"""The least bytes of a part of a message, on average beyond the first `FREE_PARTS`. Real ones have 12 or more, of which
two or three may look like the beginning of one."""
MOST_FIELDS = 200_000
"""The most fields that are looked at one by one, which takes 0.1 s."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LISTED = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_FIXED = {_FIXED64: 8, _FIXED32: 4}


def check_metadata(context: Context) -> None:
    """Raises TooLargeError if a request's own metadata is larger than what every server takes."""
    size = 0
    for name, value in context.invocation_metadata():
        if name != "user-agent":  # gRPC's own
            size += len(name) + len(value)
    if size > MAX_METADATA_BYTES:
        raise TooLargeError(
            f"The request's metadata has {size:,} bytes in its names and values: at most {MAX_METADATA_BYTES:,} are "
            "accepted.",
            reason="METADATA_TOO_LARGE",
        )


def check_message(data: bytes, kind: Descriptor, most_bytes: int) -> None:
    """Checks a serialized message of a kind before it is parsed.

    Raises:
        TooLargeError: It has more bytes than its method needs.
        InvalidError: It consists of so many parts that parsing it would take many times its size.
    """
    if len(data) > most_bytes:
        raise TooLargeError(
            f"The {kind.full_name} has {len(data):,} bytes: at most {most_bytes:,} are accepted.",
            reason="REQUEST_TOO_LARGE",
        )
    if len(data) <= FREE_BYTES:
        return
    shape = _shape(kind)
    most = FREE_PARTS + len(data) // BYTES_A_PART
    # Every part begins with a tag. So there are at most as many parts as bytes that may be one: no further look.
    if len(data) - len(data.translate(None, shape.tags)) <= most:
        return
    if not _Look(most).fits(data, shape):
        raise InvalidError(
            f"The {kind.full_name} has more than {most:,} parts (messages, and entries of lists) in its {len(data):,} "
            "bytes: send parts that are not empty, or fewer in a message.",
            reason="REQUEST_TOO_FRAGMENTED",
        )


@dataclass(slots=True)
class _Shape:
    """What a kind of message is made of, as far as each occurrence takes memory of its own."""

    parts: dict[int, _Shape | None] = field(default_factory=dict)
    """By field number; None: an entry of a list that has no parts itself."""
    tags: bytes = b""
    """The bytes that the tag of a part may begin with, at any depth."""


@cache
def _shape(kind: Descriptor) -> _Shape:
    return _described(kind, {})


def _described(kind: Descriptor, known: dict[str, _Shape]) -> _Shape:
    shape = known[kind.full_name] = _Shape()
    tags: set[int] = set()
    for it in kind.fields:
        if it.message_type is not None:
            child = known.get(it.message_type.full_name) or _described(it.message_type, known)
            shape.parts[it.number] = child
            tags.update(child.tags)
        elif it.is_repeated and it.type in _LISTED:
            shape.parts[it.number] = None
        if it.number in shape.parts:
            first = (it.number << 3 | _BYTES) & 0x7F
            tags.update(
                (first, first | 0x80)
            )  # with the second, a number may be written longer than it needs
    shape.tags = bytes(sorted(tags))
    return shape


@dataclass(slots=True)
class _Look:
    """A look at each field of a message."""

    parts: int
    """How many more there may be."""
    fields: int = MOST_FIELDS
    """How many more are looked at."""

    def fits(self, data: bytes | memoryview, shape: _Shape) -> bool:
        """Whether there are no more parts, nor fields to look at. A message that cannot be parsed fits."""
        place, view = 0, memoryview(data)
        while place < len(view):
            self.fields -= 1
            tag, place = _varint(view, place)
            wire, number = tag & 7, tag >> 3
            if wire == _VARINT:
                _, place = _varint(view, place)
            elif wire == _BYTES:
                size, place = _varint(view, place)
                if number in shape.parts:
                    self.parts -= 1
                    child = shape.parts[number]
                    if child is not None and not self.fits(view[place : place + size], child):
                        return False
                place += size
            else:
                place += _FIXED.get(wire, 0)
            if self.parts < 0 or self.fields < 0:
                return False
        return True


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    """Returns a number, and the place behind it; at the end of the data, whatever was read."""
    number = shift = 0
    while place < len(view):
        byte = view[place]
        number |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return number, place
