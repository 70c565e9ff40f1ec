"""How lists are cut into pages; see `domain.paging`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from graft_server.domain.errors import InvalidError
from graft_server.domain.names import shown

K = TypeVar("K")

DEFAULT_SIZE = 100
MAX_SIZE = 1_000


def page_size(size: int) -> int:
    """Returns the number of entries that a request asks for, or raises InvalidError."""
    if not 0 <= size <= MAX_SIZE:
        raise InvalidError(
            f"page_size is {size}: give 1 to {MAX_SIZE:,}, or 0 for {DEFAULT_SIZE}.",
            reason="PAGE_SIZE_INVALID",
            field="page_size",
        )
    return size or DEFAULT_SIZE


def named_key(token: str, kind: str) -> str:
    """Returns the key in a token of the form KIND/KEY, "" for an empty token; raises InvalidError for any other."""
    if not token:
        return ""
    found, _, key = token.partition("/")
    if found != kind or not key:
        raise bad_token(token)
    return key


def bad_token(token: str) -> InvalidError:
    """Returns the error for a token that no page had."""
    return InvalidError(
        f"page_token is {shown(token)}: give the next_page_token of the page before, or leave it empty.",
        reason="PAGE_TOKEN_INVALID",
        field="page_token",
    )


def cut(entries: Iterable[K], size: int, token_of: Callable[[K], str]) -> Iterator[tuple[K, str]]:
    """Returns the first entries, at most `size`, each with the token of the next entry, "" for a list's last one.

    It reads one entry more than the page has from an iterator.
    """
    following = iter(entries)
    entry = next(following, None)
    for _ in range(size):
        if entry is None:
            return
        after = next(following, None)
        yield entry, "" if after is None else token_of(after)
        entry = after
