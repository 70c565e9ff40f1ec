"""What a solver tells while it works: that it goes on."""

from __future__ import annotations

from collections.abc import Callable

Tick = Callable[[], None]
"""Called now and then, from any thread."""


def untold() -> None:
    """Tells nobody."""
