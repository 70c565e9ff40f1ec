"""Rows of JSON: an object a line, or a list of objects, taken one by one: the list may be larger than memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.formats.lines import Line, TextLines
from graft._data_files.formats.whole import WholeRow

_DECODER: Final = json.JSONDecoder()
_TOKEN: Final = re.compile(r'\\.|["{}\[\],]', re.DOTALL)
_WHOLE: Final = 256 * 1024 * 1024
"""So many characters of one value are held in memory."""
_ALSO: Final = (
    "save the rows as JSON lines, an object a line (in pandas: to_json(orient='records', lines=True))"
)


class JsonRows:
    """The objects of a JSON file, in one of its layouts.

    Attributes:
        unit: What rows are counted in: lines, or rows where a line holds several.
        listed: Whether the file is one list of the objects.
    """

    def __init__(self, name: str, lines: TextLines, first: list[str], columns: Columns | None = None) -> None:
        """Finds out the layout.

        Args:
            name: The file's name, for messages.
            lines: Its lines.
            first: The first lines.
            columns: The columns that are asked for: an object that has the input is a row, whatever else it holds.
        """
        self._name = name
        self._lines = lines
        self._columns = columns
        filled = [it.strip() for it in first if it.strip()]
        self.listed = bool(filled) and filled[0].startswith("[") and not _is_row_of_its_own(filled)
        self._long = bool(filled) and filled[0].startswith("{") and len(filled) > 1 and _goes_on(filled[0])
        self.unit = "row" if self.listed and _has_several(filled[0]) else "line"

    def rows(self) -> Iterator[Row | RowError]:
        """The objects, and what is wrong with what is none.

        Raises:
            DataError: The file is one JSON value without a list of objects.
        """
        return (row for row, _ in self._with_texts())

    def whole_rows(self) -> Iterator[WholeRow]:
        """The objects with their texts; what is none has no cells."""
        for row, text in self._with_texts():
            yield WholeRow(row, [*row.values.values()] if isinstance(row, Row) else (), text.strip())

    def _with_texts(self) -> Iterator[tuple[Row | RowError, str]]:
        if self.listed:
            for number, value in enumerate(_values(self._name, self._lines, listed=True), start=1):
                yield self._of(value if self.unit == "line" else Line(number, value.text)), value.text
        elif self._long:
            yield from self._alone(_values(self._name, self._lines, listed=False))
        else:
            yield from self._alone(_filled(self._lines))

    def _alone(self, values: Iterator[Line]) -> Iterator[tuple[Row | RowError, str]]:
        """A row for each value; the rows within it where there is one value, which holds a list of them."""
        first, second = next(values, None), next(values, None)
        if first is None:
            return
        row = self._of(first)
        if second is None and isinstance(row, Row) and (within := self._within(row)) is not None:
            self.unit = "row"
            yield from within
            return
        yield row, first.text
        if second is not None:
            yield self._of(second), second.text
        for value in values:
            yield self._of(value), value.text

    def _of(self, value: Line) -> Row | RowError:
        if wrong := value.wrong():
            return RowError(self._name, value.number, wrong, unit=self.unit)
        return json_row(self._name, value.number, value.text, unit=self.unit)

    def _is_row(self, row: Row) -> bool:
        """Whether the file's one object has an input, as a row has."""
        if self._columns is None:
            return False
        cells = Cells(self._name, row)
        return cells.has(self._columns.input) and not isinstance(
            cells.value(self._columns.input), dict | list
        )

    def _within(self, row: Row) -> list[tuple[Row | RowError, str]] | None:
        """The rows in the one list of objects that the file's one object holds; None if the object is a row itself."""
        if self._is_row(row):
            return None
        lists = {
            key: it
            for key, it in row.values.items()
            if isinstance(it, list) and any(isinstance(i, dict) for i in it)
        }
        tables = [key for key, it in row.values.items() if isinstance(it, dict | list) and len(it) > 1]
        if len(lists) == 1:
            (values,) = lists.values()
            return [
                (_checked(self._name, number, it, "row"), json.dumps(it, ensure_ascii=False))
                for number, it in enumerate(values, start=1)
            ]
        if lists:
            raise DataError(f"{self._name}: one JSON object with several lists ({', '.join(lists)}); {_ALSO}")
        if len(tables) > 1 and len(tables) == len(row.values):
            raise DataError(f"{self._name}: one JSON object with the columns {', '.join(tables)}; {_ALSO}")
        return None


def json_row(name: str, line: int, text: str, *, unit: str = "line") -> Row | RowError:
    """The row that a JSON text is."""
    try:
        values = json.loads(text)
    except RecursionError:
        return RowError(name, line, "not JSON that can be read: it is nested too deeply", unit=unit)
    except json.JSONDecodeError as error:
        wrong = f"not JSON ({error.msg}, at character {error.colno}); each {unit} must be one object"
        return RowError(name, line, wrong, unit=unit)
    return _checked(name, line, values, unit)


def _checked(name: str, line: int, values: object, unit: str) -> Row | RowError:
    if isinstance(values, dict):
        return Row(line, values, sparse=True, unit=unit)
    shown = json.dumps(values, ensure_ascii=False)
    return RowError(name, line, f"{shown:.60} is not a JSON object", unit=unit)


def _filled(lines: TextLines) -> Iterator[Line]:
    return (it for it in lines if it.text.strip())


def _is_row_of_its_own(filled: list[str]) -> bool:
    """Whether each line is a list by itself, which is no way to write rows with names."""
    return all(it.startswith("[") and it.endswith("]") for it in filled[:2]) and len(filled) > 1


def _has_several(line: str) -> bool:
    """Whether a line on which a list begins holds more than one of its objects."""
    return re.search(r"\}\s*,\s*\{", line) is not None


def _goes_on(text: str) -> bool:
    """Whether an object that begins on a line goes on behind it."""
    try:
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - 1
    return False


class _Splitter:
    """Splits pieces of text into JSON values, by brackets and commas."""

    def __init__(self, name: str, *, listed: bool) -> None:
        self._name = name
        self._listed = listed
        self._depth = -1 if listed else 0
        self._quoted = False
        self._parts: list[str] = []
        self._size = 0
        self._line = 1
        self.ended = False

    def values(self, piece: Line) -> Iterator[Line]:
        """The values that end in the piece."""
        text, start = piece.text, 0
        if not self._parts:
            self._line = piece.number
        for found in _TOKEN.finditer(text):
            mark = found.group()
            if self._quoted or mark == '"':
                self._quoted ^= mark == '"'
                continue
            before = self._depth
            self._depth += (mark in "[{") - (mark in "]}")
            if self._listed and before < 0:  # the list's own bracket
                start = found.end()
                continue
            ends = self._listed and ((mark == "," and before == 0) or self._depth < 0)
            if ends or (not self._listed and mark in "]}" and self._depth == 0):
                upto = found.start() if ends else found.end()
                yield from self._taken(text[start:upto])
                start, self._line = found.end(), piece.number
            if self._listed and self._depth < 0:
                self.ended = True
                return
        if text.endswith("\n"):
            self._quoted = False  # no string goes over a line's end: this one is broken
        self._keep(text[start:])

    def rest(self) -> Iterator[Line]:
        """What is left at the end of the file."""
        yield from self._taken("")

    def _keep(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > _WHOLE:
            raise DataError(
                f"{self._name}: the JSON value that begins on line {self._line} is longer than {_WHOLE:,} characters, "
                f"or its brackets do not balance; {_ALSO}"
            )

    def _taken(self, last: str) -> Iterator[Line]:
        text = "".join((*self._parts, last))
        self._parts.clear()
        self._size = 0
        if filled := text.lstrip(", \t\r\n"):
            yield Line(self._line + text[: len(text) - len(filled)].count("\n"), filled)


def _values(name: str, lines: TextLines, *, listed: bool) -> Iterator[Line]:
    """The values of a list, or of values that follow each other; each with the line on which it begins."""
    splitter = _Splitter(name, listed=listed)
    for piece in lines.pieces():
        if splitter.ended:
            if piece.text.strip():
                raise DataError(f"{name}, line {piece.number}: there is something behind the list's end")
            continue
        yield from splitter.values(piece)
    if listed and not splitter.ended:
        raise DataError(f"{name}: the list does not end; is the file whole?")
    yield from splitter.rest()
