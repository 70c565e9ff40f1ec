"""Pages of lists: a token is the place of the first entry that has not been sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from graft_server.errors import InvalidError
from graft_server.names import shown

T = TypeVar("T")

DEFAULT_SIZE = 100
MAX_SIZE = 1_000


def page(values: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """The page that a request asks for, and the token of the next one, "" if there is none."""
    if not 0 <= size <= MAX_SIZE:
        raise InvalidError(
            f"page_size is {size}: give 1 to {MAX_SIZE:,}, or 0 for {DEFAULT_SIZE}.",
            reason="PAGE_SIZE_INVALID",
            field="page_size",
        )
    if token and not (token.isascii() and token.isdigit()):
        raise InvalidError(
            f"page_token is {shown(token)}: give the next_page_token of the page before, or leave it empty.",
            reason="PAGE_TOKEN_INVALID",
            field="page_token",
        )
    start = int(token or 0)
    end = start + (size or DEFAULT_SIZE)
    return values[start:end], str(end) if end < len(values) else ""
