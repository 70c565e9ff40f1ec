"""How much a request may bring, checked before anything is made of it.

gRPC bounds a message's bytes alone. Parsing makes an object of 20 to 50 bytes of every message within a message, which
may have been 2 bytes: 32 MiB of empty inputs would take 800 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from numpy.typing import NDArray

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
"""A message of so many bytes is not looked at: it takes 2 MB at worst."""
FREE_PARTS = 65_536
SMALL_BYTES = 8
"""Parts of fewer bytes take 10 to 60 times their size."""
BYTES_A_SMALL_PART = 12
"""The least bytes of a message for each small part of it beyond the first `FREE_PARTS`. Real ones have 14 or more."""
MOST_ENTRIES = 20_000
"""Of the lists that requests consist of. Their methods accept 10,000, and say so."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SLICE_BYTES = 1 << 20
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
    most = FREE_PARTS + len(data) // BYTES_A_SMALL_PART
    parts, small = _parts(data, shape)
    if small <= most and (parts <= MOST_ENTRIES or _Entries(MOST_ENTRIES).fit(data, shape)):
        return
    raise InvalidError(
        f"The {kind.full_name} has too many parts (messages within it, entries of lists) in its {len(data):,} bytes: "
        "send parts that are not empty, and fewer in a message.",
        reason="REQUEST_TOO_FRAGMENTED",
    )


@dataclass(slots=True)
class _Shape:
    """What a kind of message is made of, as far as each occurrence takes memory of its own."""

    parts: dict[int, _Shape | None] = field(default_factory=dict)
    """By field number; None: an entry of a list."""
    begins: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))
    """Which bytes the tag of a part may begin with, at any depth."""


@cache
def _shape(kind: Descriptor) -> _Shape:
    return _described(kind, {})


def _described(kind: Descriptor, known: dict[str, _Shape]) -> _Shape:
    shape = known[kind.full_name] = _Shape()
    for it in kind.fields:
        message = it.message_type
        if message is not None:
            child = known.get(message.full_name) or _described(message, known)
            shape.begins |= child.begins
            shape.parts[it.number] = None if it.is_repeated else child
        elif it.is_repeated and it.type in _LISTED:
            shape.parts[it.number] = None
        if it.number in shape.parts:
            first = (it.number << 3 | _BYTES) & 0x7F
            shape.begins[[first, first | 0x80]] = (
                True  # with the second, a number is written longer than it needs
            )
    return shape


def _parts(data: bytes, shape: _Shape) -> tuple[int, int]:
    """Returns at least how many parts there are, and how many of them are small: what looks like one counts."""
    parts = small = 0
    for start in range(0, len(data), _SLICE_BYTES):
        piece = np.frombuffer(data[start : start + _SLICE_BYTES + 1], np.uint8)
        begins = shape.begins[piece[:-1]]
        parts += int(np.count_nonzero(begins))
        # A length of few bytes may also be written with more of them.
        small += int(np.count_nonzero(begins & (piece[1:] & 0x7F < SMALL_BYTES)))
    return parts, small


@dataclass(slots=True)
class _Entries:
    """A look at the outermost lists of a message."""

    left: int
    """How many more entries there may be."""

    def fit(self, data: bytes | memoryview, shape: _Shape) -> bool:
        """Whether there are no more entries, nor other fields. A message that cannot be parsed fits."""
        place, view = 0, memoryview(data)
        while place < len(view):
            self.left -= 1
            if self.left < 0:
                return False
            tag, place = _number(view, place)
            wire, number = tag & 7, tag >> 3
            if wire == _VARINT:
                _, place = _number(view, place)
            elif wire == _BYTES:
                size, place = _number(view, place)
                child = shape.parts.get(number)
                if child is not None and not self.fit(view[place : place + size], child):
                    return False
                place += size
            else:
                place += _FIXED.get(wire, 0)
        return True


def _number(view: memoryview, place: int) -> tuple[int, int]:
    """Returns a number, and the place behind it; at the end of the data, whatever was read."""
    if place < len(view) and view[place] < 0x80:
        return view[place], place + 1
    number = shift = 0
    while place < len(view):
        byte = view[place]
        number |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return number, place
