"""Pages of lists: a token is the place of the first entry that has not been sent.

A page ends at the number of entries that was asked for, or earlier where its message would grow too large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from graft_server.domain.errors import InvalidError
from graft_server.domain.names import shown

T = TypeVar("T", bound=Message)

DEFAULT_SIZE = 100
MAX_SIZE = 1_000
MAX_BYTES = 3 << 20
"""Of the entries of a page but the last; a message may have 4 MiB, and an entry is at most 1 MiB and a little."""


def page_size(size: int) -> int:
    """How many entries a request asks for, or InvalidError."""
    if not 0 <= size <= MAX_SIZE:
        raise InvalidError(
            f"page_size is {size}: give 1 to {MAX_SIZE:,}, or 0 for {DEFAULT_SIZE}.",
            reason="PAGE_SIZE_INVALID",
            field="page_size",
        )
    return size or DEFAULT_SIZE


def window(count: int, size: int, token: str) -> range:
    """The places, of `count`, that a request asks for."""
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise bad_token(token)
    start = min(int(token or 0), count)
    return range(start, min(start + page_size(size), count))


def bad_token(token: str) -> InvalidError:
    """The error for a token that no page had."""
    return InvalidError(
        f"page_token is {shown(token)}: give the next_page_token of the page before, or leave it empty.",
        reason="PAGE_TOKEN_INVALID",
        field="page_token",
    )


@dataclass(slots=True)
class Page(Generic[T]):
    """The entries of a page so far."""

    entries: list[T] = field(default_factory=list)
    bytes: int = 0

    def add(self, entry: T) -> bool:
        """Adds an entry, and tells whether there is room for another."""
        self.entries.append(entry)
        self.bytes += entry.ByteSize()
        return self.bytes < MAX_BYTES

    def token(self, places: range, count: int) -> str:
        """The token of the next page of a list of `count`, "" if there is none."""
        following = places.start + len(self.entries)
        return str(following) if following < count else ""
