"""Pages of lists: what is asked for, and the entries of the answer.

A page is asked for by the key of its first entry and not by a place, so that whatever is added to a list or taken
from it meanwhile, no entry is answered twice, and none that stays is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which entries of a list are asked for."""

    size: int = 0
    """At most so many; 0: the default."""
    token: str = ""
    """What the entry before them said; "": from the beginning."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """An entry of a page."""

    value: T
    next_token: str
    """The token of a page that begins after this entry; "" where the list ends with it.

    Whoever sends the page may end it with any entry, where a message would become too large.
    """
