"""The cells of one row, read as texts, numbers and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from graft._data_files.columns import Row, RowError
from graft._data_files.header import like, missing
from graft._records.inputs.targets import is_missing, number_of, word_of

_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?|[+-]?\d*(,\d*)?")
"""A number with a decimal comma, and with points between thousands."""
_MOST: Final = 10_000_000
"""Longer texts are beyond what a server takes, whatever their bytes are."""

_NO_NUMBER: Final = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "<na>", "nat"})
"""Words for a missing number. As labels they are names."""


_FLAGS: Final = {
    **dict.fromkeys(("yes", "y", "true", "t", "x", "1", "1.0"), True),
    **dict.fromkeys(("", "no", "n", "false", "f", "0", "0.0"), False),
}
"""Words for yes and no."""


def is_no_number(text: str) -> bool:
    """Whether a text stands for a missing number."""
    return text.strip().lower() in _NO_NUMBER


class Cells(NamedTuple):
    """The values of one row, by column."""

    name: str
    row: Row
    decimal: str = ""

    def text(self, column: str) -> str:
        """The text of a cell."""
        value = self.value(column)
        if not isinstance(value, str) and is_missing(value):
            raise self.wrong(column, "there is no text")
        if not isinstance(value, str):
            raise self.wrong(column, f"{value!r:.60} is not a text")
        return self._sendable(column, value)

    def attribute(self, column: str | None) -> str:
        """A group, an id or the like, which may be missing."""
        return "" if column is None else self.word(column)

    def given(self, column: str) -> Any:
        """What a cell holds; None if that is missing, or if a row of JSON lacks the key."""
        if self.row.sparse and not self.has(column):
            return None
        value = self.value(column)
        return None if is_missing(value) else value

    def has(self, column: str) -> bool:
        """Whether the row has a column, whatever it holds."""
        try:
            self.value(column)
        except RowError:
            return False
        return True

    def word(self, column: str) -> str:
        """An id or the like: a text or a number; "" if it is missing."""
        try:
            return self._sendable(column, word_of(self.given(column)))
        except (TypeError, ValueError):
            raise self.wrong(column, f"{self.value(column)!r:.60} is not a text") from None

    def number(self, column: str) -> float | None:
        """The number of a cell; None if it is missing, or has a word for that."""
        value = self.given(column)
        if isinstance(value, str) and is_no_number(value):
            return None
        text = value.strip() if isinstance(value, str) else value
        if self.decimal == "," and isinstance(text, str):
            if not _GROUPED.fullmatch(text):
                raise self.wrong(column, f"{value!r:.60} is not a number with a decimal comma")
            text = text.replace(".", "").replace(",", ".")
        try:
            return number_of(text)
        except TypeError:
            comma = (
                isinstance(text, str) and "," in text and text.replace(",", "").replace(".", "").isdecimal()
            )
            remedy = "; if its comma is a decimal one, give --decimal ," if comma else ""
            raise self.wrong(column, f"{value!r:.60} is not a number{remedy}") from None

    def one_of(self, column: str, choices: tuple[str, ...]) -> str:
        """The cell in small letters, which is one of `choices`."""
        value = str(self.given(column) or "").strip().lower()
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices if choice)
            raise self.wrong(column, f"{value!r:.60} is none of {expected}, and not empty")
        return value

    def flag(self, column: str) -> bool:
        """Whether a cell says yes: "yes", "true", "x" or 1; no if it is empty, or says "no", "false" or 0."""
        value = str(self.given(column) or "").strip().lower()
        if value not in _FLAGS:
            raise self.wrong(column, f"{value!r:.60} is neither yes nor no")
        return _FLAGS[value]

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
        reason = missing(column, "", values)
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
