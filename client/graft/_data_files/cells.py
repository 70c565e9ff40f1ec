"""The cells of one row, read as texts, numbers and words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graft._data_files.columns import Row, RowError


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one row, by column."""

    name: str
    row: Row

    def text(self, column: str) -> str:
        """The text of a cell."""
        value = self.value(column)
        if not isinstance(value, str):
            raise self.wrong(column, f"{value!r:.60} is not a text")
        return value

    def word(self, column: str) -> str:
        """A label, an id or the like: a text or a whole number."""
        # Labels and ids are often numbers in JSON; a fraction or a list is a mistake.
        value = self.value(column)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.wrong(column, f"{value!r:.60} is not a text")
        return str(value)

    def number(self, column: str) -> float | None:
        """The number of a cell; None if it is empty."""
        value = self.value(column)
        if value in (None, ""):
            return None
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self.wrong(column, f"{value!r:.60} is not a number") from None

    def one_of(self, column: str, choices: tuple[str, ...]) -> str:
        """The cell in small letters, which is one of `choices`."""
        value = str(self.value(column) or "").strip().lower()
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices if choice)
            raise self.wrong(column, f"{value!r:.60} is none of {expected}, and not empty")
        return value

    def value(self, column: str) -> Any:
        """What a cell holds: a text, or in JSON any value."""
        try:
            return self.row.values[column]
        except KeyError:
            raise RowError(
                self.name,
                self.row.line,
                f"no column {column!r}; the columns are: {_names(self.row.values)}",
            ) from None

    def wrong(self, column: str, what: str) -> RowError:
        """The error that says what is wrong with a cell, and where the cell is."""
        return RowError(self.name, self.row.line, what, column=column)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(columns) or "(none)"
