"""Pages of lists: the request for a page, and the entries of the answer.

A request names the key of a page's first entry, not a position: if entries are added or removed between two pages,
no entry appears twice, and no entry that stays is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which entries of a list are asked for."""

    size: int = 0
    """The most entries that a page may have; 0: the default."""
    token: str = ""
    """The token from the last entry of the previous page; "": from the beginning."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """An entry of a page."""

    value: T
    next_token: str
    """The token of a page that begins after this entry; "" if this is the last entry.

    The sender may end a page after any entry if the message would become too large.
    """
