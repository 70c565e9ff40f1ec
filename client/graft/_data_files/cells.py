"""The cells of one row, read as texts, numbers and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from graft._data_files.columns import Row, RowError
from graft._data_files.header import like, missing

_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?|[+-]?\d*(,\d*)?")
"""A number with a decimal comma, and with points between thousands."""
_MOST: Final = 10_000_000
"""Longer texts are beyond what a server takes, whatever their bytes are."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one row, by column."""

    name: str
    row: Row
    decimal: str = ""

    def text(self, column: str) -> str:
        """The text of a cell."""
        value = self.value(column)
        if value is None:
            raise self.wrong(column, "there is no text")
        if not isinstance(value, str):
            raise self.wrong(column, f"{value!r:.60} is not a text")
        return self._sendable(column, value)

    def attribute(self, column: str | None) -> str:
        """A group, an id or the like, which may be missing."""
        return "" if column is None or self.value(column) is None else self.word(column)

    def word(self, column: str) -> str:
        """A label, an id or the like: a text or a whole number."""
        # Labels and ids are often numbers in JSON; a fraction or a list is a mistake.
        value = self.value(column)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.wrong(column, f"{value!r:.60} is not a text")
        return self._sendable(column, str(value))

    def number(self, column: str) -> float | None:
        """The number of a cell; None if it is empty."""
        value = self.value(column)
        if value in (None, ""):
            return None
        text = value.strip() if isinstance(value, str) else value
        if self.decimal == "," and isinstance(text, str):
            if not _GROUPED.fullmatch(text):
                raise self.wrong(column, f"{value!r:.60} is not a number with a decimal comma")
            text = text.replace(".", "").replace(",", ".")
        try:
            return float(text)
        except (TypeError, ValueError):
            comma = (
                isinstance(text, str) and "," in text and text.replace(",", "").replace(".", "").isdecimal()
            )
            remedy = "; if its comma is a decimal one, give --decimal ," if comma else ""
            raise self.wrong(column, f"{value!r:.60} is not a number{remedy}") from None

    def one_of(self, column: str, choices: tuple[str, ...]) -> str:
        """The cell in small letters, which is one of `choices`."""
        value = str(self.value(column) or "").strip().lower()
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices if choice)
            raise self.wrong(column, f"{value!r:.60} is none of {expected}, and not empty")
        return value

    def value(self, column: str) -> Any:
        """What a cell holds: a text, or in JSON any value, also one within others ("data.text", "choices.0")."""
        values = self.row.values
        if column in values:
            return values[column]
        found = _inner(values, column.split(".")) if "." in column else _MISSING
        if found is not _MISSING:
            return found
        if (name := like(column, values)) is not None:
            return values[name]
        reason = missing(column, "COLUMN", values)
        raise RowError(self.name, self.row.line, reason, unit=self.row.unit)

    def _sendable(self, column: str, text: str) -> str:
        if len(text) > _MOST:
            raise self.wrong(column, f"{len(text):,} characters are more than a server takes")
        try:
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError:
            raise self.wrong(column, f"{text!r:.60} holds half a character (a lone surrogate)") from None
        return text

    def wrong(self, column: str, what: str) -> RowError:
        """The error that says what is wrong with a cell, and where the cell is."""
        return RowError(self.name, self.row.line, what, column=column, unit=self.row.unit)


_MISSING: Final = object()


def _inner(values: Any, path: list[str]) -> Any:
    """What a path of keys and positions leads to, within values of JSON."""
    for step in path:
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list) and step.isdecimal() and int(step) < len(values):
            values = values[int(step)]
        else:
            return _MISSING
    return values
