"""Writes rows once more, each with its answer behind it: as they stand, where the file is of the same format."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

from graft._data_files.answers.asked import AskedRow
from graft._data_files.columns import Row
from graft._data_files.formats.records import Dialect
from graft._data_files.formats.whole import FileForm, TextForm, WholeRow
from graft._records.predicting.answer_columns import PREFIX, cell_text

_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
_ENDS: Final = "\r\n\x1a"
_BREAKS: Final = re.compile(r"[\r\n]+\s*")
"""Between the tokens of JSON: no string of it holds them."""
_NOTHING: Final = "\\N"
UNREAD: Final = "row"
"""The key of what stands in place of an object of JSON that cannot be read."""


class AnswerWriter(Protocol):
    """Writes one file of answers."""

    def begin(self) -> None:
        """Writes what comes before all rows."""

    def between(self, whole: WholeRow) -> None:
        """Writes what is no row: an empty line, or a header."""

    def row(self, asked: AskedRow, values: list[Any]) -> None:
        """Writes a row, with what its answer's columns hold."""

    def end(self) -> None:
        """Writes what comes behind all rows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is written: the columns of the input, and those of the answers behind them."""

    form: FileForm
    """The input."""
    names: tuple[str, ...]
    """The input's columns, by names that differ where a format needs that."""
    answers: tuple[str, ...]
    """The answers' columns."""

    def cells(self, whole: WholeRow) -> list[Any]:
        """What the input's columns hold, also where the row has too few cells, or too many."""
        if isinstance(whole.row, Row) and not self.form.names:
            return [whole.row.values.get(it) for it in self.names]
        found = [*whole.cells] or self._cells_of_text(whole.text.rstrip(_ENDS))
        width = len(self.names)
        if isinstance(whole.row, Row):  # empty cells behind the last column do not count
            return [*found[:width], *[None] * (width - len(found))]
        if len(found) <= width:
            return [*found, *[""] * (width - len(found))]
        dialect = self.form.text.dialect or Dialect()
        return [*found[: width - 1], dialect.delimiter.join(map(cell_text, found[width - 1 :]))]

    def _cells_of_text(self, text: str) -> list[Any]:
        """The cells of a row that cannot be read, as far as its text tells."""
        dialect = self.form.text.dialect
        if dialect is None or not self.form.names:
            return [text]
        if dialect.quote:
            try:
                lines = io.StringIO(text, newline="")
                rows = list(csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote))
            except csv.Error:
                rows = []
            if len(rows) == 1 and len(rows[0]) <= len(self.names):
                return list(rows[0])
        return list(text.split(dialect.delimiter))


class TableWriter:
    """Writes delimited text; a row of a table that is written alike stands there as in the input, byte by byte."""

    def __init__(self, out: BinaryIO, layout: Layout, output_format: str) -> None:
        """Begins.

        Args:
            out: Where to.
            layout: The columns.
            output_format: "csv" or "tsv".
        """
        self._out = out
        self._layout = layout
        self._alike = layout.form.data_format == output_format
        known = layout.form.text.dialect if self._alike else None
        self._dialect = known or Dialect(_DELIMITERS[output_format])
        self._text = layout.form.text if self._alike else TextForm()
        self._end = "\n"

    def begin(self) -> None:
        """Writes the byte order mark, and the header where the input has none."""
        self._out.write(self._text.mark)
        if not self._alike or not self._layout.form.has_header:
            names = (*self._layout.form.names, *self._layout.answers)
            names = names if self._layout.form.names else (*self._layout.names, *self._layout.answers)
            self._write(self._line(names) + self._end)

    def between(self, whole: WholeRow) -> None:
        """Writes an empty line, or a header with the names of the answers' columns behind it."""
        if not self._alike:
            return
        if whole.is_header:
            self._copy(whole, [*self._layout.answers], missing=0)
        else:
            self._write(whole.text.replace("\x1a", ""))

    def row(self, asked: AskedRow, values: list[Any]) -> None:
        """Writes a row."""
        whole = asked.whole
        missing = len(self._layout.names) - len(whole.cells)
        if self._alike and isinstance(whole.row, Row) and whole.is_plain and missing >= 0:
            self._copy(whole, values, missing)
        else:
            end = self._end_of(whole) if self._alike else self._end
            self._write(self._line([*self._cells(whole), *values]) + end)

    def end(self) -> None:
        """Nothing."""

    def _cells(self, whole: WholeRow) -> list[Any]:
        cells = self._layout.cells(whole)
        return [_NOTHING if it is None and self._alike else it for it in cells]

    def _copy(self, whole: WholeRow, values: Sequence[Any], missing: int) -> None:
        """Writes the text of a row as it is, and values behind it."""
        end = self._end_of(whole)
        added = self._dialect.delimiter * (missing + 1) + self._line(values)
        self._write(whole.text.rstrip(_ENDS) + added + end)

    def _end_of(self, whole: WholeRow) -> str:
        end = whole.text[len(whole.text.rstrip(_ENDS)) :].replace("\x1a", "")
        if end and whole.is_header:
            self._end = end
        return end or self._end

    def _line(self, values: Sequence[Any]) -> str:
        return self._dialect.delimiter.join(
            written(table_text(it), self._dialect, alone=len(values) == 1) for it in values
        )

    def _write(self, text: str) -> None:
        encoding = self._text.encoding
        try:
            self._out.write(text.encode(encoding, "surrogateescape"))
        except UnicodeEncodeError:
            self._out.write(text.encode(encoding, "backslashreplace"))


def table_text(value: Any) -> str:
    """What a cell of a table has for a value of any format."""
    if isinstance(value, dict | list) and not _is_answer(value):
        return json.dumps(value, ensure_ascii=False, default=_json_value)
    return _media_text(value) if isinstance(value, bytes) else cell_text(value)


def _is_answer(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(it, str | float) for it in value)


def written(text: str, dialect: Dialect, *, alone: bool = False) -> str:
    """A cell as the dialect writes it; `alone`: in a row without others, where an empty one is quoted."""
    quote, delimiter = dialect.quote, dialect.delimiter
    if not quote:
        if dialect.backslash:
            text = text.replace("\\", "\\\\").replace(delimiter, f"\\{delimiter}")
            return text.replace("\n", "\\n").replace("\r", "\\r")
        # Such a table has no way to write them.
        return text.replace(delimiter, " ").replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    needed = delimiter in text or quote in text or "\n" in text or "\r" in text or delimiter == " "
    if not needed and not (alone and not text) and text == text.strip():
        return text.replace("\\", "\\\\") if dialect.backslash else text
    if dialect.backslash:
        return f"{quote}{_backslashed(text, quote)}{quote}"
    return f"{quote}{text.replace(quote, quote * 2)}{quote}"


def _backslashed(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}")


class JsonWriter:
    """Writes an object a line, alone or in a list; an object of JSON stands there as in the input."""

    def __init__(self, out: BinaryIO, layout: Layout, *, listed: bool, begun: bool) -> None:
        """Begins.

        Args:
            out: Where to.
            layout: The columns.
            listed: Whether the objects are in a list.
            begun: Whether there are objects already.
        """
        self._out = out
        self._layout = layout
        self._listed = listed
        self._begun = begun

    def begin(self) -> None:
        """Writes the list's beginning."""
        if self._listed:
            self._out.write(b"[")

    def between(self, whole: WholeRow) -> None:
        """Nothing: JSON has no empty lines."""

    def row(self, asked: AskedRow, values: list[Any]) -> None:
        """Writes a row."""
        text = self._object(asked.whole, values)
        before = ("," if self._begun else "") + "\n" if self._listed else ""
        self._begun = True
        self._out.write(f"{before}{text}{'' if self._listed else chr(10)}".encode())

    def end(self) -> None:
        """Writes the list's end."""
        if self._listed:
            self._out.write(b"\n]\n")

    def _object(self, whole: WholeRow, values: list[Any]) -> str:
        answers = dict(zip(self._layout.answers, values, strict=True))
        if self._layout.form.names:
            cells = dict(zip(self._layout.names, self._layout.cells(whole), strict=True))
            return json_text(cells | answers)
        if not isinstance(whole.row, Row):
            return json_text({UNREAD: whole.text} | answers)
        row = whole.row.values
        # The names of a stream's later rows are not known when those of the answers are chosen.
        answers = {f"{PREFIX}{name}" if name in row else name: it for name, it in answers.items()}
        body = one_line(whole.text)[:-1].rstrip()
        comma = "" if body == "{" else ", "
        return f"{body}{comma}{json_text(answers)[1:]}"


def one_line(text: str) -> str:
    """The text of a value of JSON, on one line."""
    return _BREAKS.sub(" ", text.strip())


def json_text(value: Any) -> str:
    """A value in JSON, on one line; with escapes where it holds half a character."""
    text = json.dumps(value, ensure_ascii=False, default=_json_value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_json_value)
    return text


def _json_value(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _media_text(value: bytes) -> str:
    return base64.b64encode(value).decode()
