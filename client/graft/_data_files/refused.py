"""The rows of a data file that a command could not use."""

from __future__ import annotations

from typing import Final

from graft._data_files.columns import RowError

_KEPT: Final = 100


class RefusedRows:
    """Counts rows that cannot be used, and keeps the first 100 with the reason."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[RowError] = []

    def __call__(self, error: RowError) -> None:
        """Adds a row."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(error)
