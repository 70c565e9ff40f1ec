"""The cells of one row, read as texts, numbers and words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from graft._data_files.columns import Row, RowError
from graft._records.targets import is_missing, number_of, word_of

_NO_NUMBER: Final = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "<na>", "nat"})
"""Words for a missing number. As labels they are names."""


def is_no_number(text: str) -> bool:
    """Whether a text stands for a missing number."""
    return text.strip().lower() in _NO_NUMBER


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

    def given(self, column: str) -> Any:
        """What a cell holds; None if that is missing, or if a row of JSON lacks the key."""
        if self.row.sparse and column not in self.row.values:
            return None
        value = self.value(column)
        return None if is_missing(value) else value

    def word(self, column: str) -> str:
        """An id or the like: a text or a number; "" if it is missing."""
        try:
            return word_of(self.given(column))
        except (TypeError, ValueError):
            raise self.wrong(column, f"{self.value(column)!r:.60} is not a text") from None

    def number(self, column: str) -> float | None:
        """The number of a cell; None if it is missing, or has a word for that."""
        value = self.given(column)
        if isinstance(value, str) and is_no_number(value):
            return None
        try:
            return number_of(value)
        except TypeError:
            raise self.wrong(column, f"{value!r:.60} is not a number") from None

    def one_of(self, column: str, choices: tuple[str, ...]) -> str:
        """The cell in small letters, which is one of `choices`."""
        value = str(self.given(column) or "").strip().lower()
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
