"""Two things at a time: NumPy lets go of the interpreter, and its own threads spin where cores are shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 2
"""Selection runs at low priority, so a second thread takes only what serving leaves: 1.37 s became 1.0 s for 616
examples of 77 classes."""


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The function's results in the items' order. What it does must not depend on which runs first."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(function, items))
