"""Tables and JSON in files, read a row at a time: files may be larger than memory.

The content decides what a file is where it can, and else the name's ending; "-" is standard input.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.content import Content
from graft._data_files.formats.dialect import Beginning
from graft._data_files.formats.edited_list import are_of_list, reading_of_list
from graft._data_files.formats.encodings import byte_order_mark, encoding_of, known_encoding, likely_encoding
from graft._data_files.formats.excel import Sheet
from graft._data_files.formats.json_rows import JsonRows
from graft._data_files.formats.lines import Line, TextLines
from graft._data_files.formats.parquet import ParquetTable
from graft._data_files.formats.tables import Table
from graft._data_files.formats.whole import FileForm, TextForm, WholeRow
from graft._data_files.header import fitted
from graft._data_files.options import Reading

T = TypeVar("T")

_DEFAULT: Final = Reading()
_FEW_WRONG: Final = 0.02
"""Where no more lines than these are in another encoding, the file is in the one that it seems to be in."""


class DataFile:
    """An open data file, read row by row.

    Attributes:
        name: What people call it.
        folder: Where names of files begin.
        size: The bytes of the file on disk; 0 if unknown.
        is_list: Whether it is a list of stored examples, as `graft examples --output` writes them.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        reading: Reading = _DEFAULT,
        columns: Columns | None = None,
        source: BinaryIO | None = None,
    ) -> None:
        """Opens a file, and finds out how it is written.

        Args:
            path: Its path; "-" is standard input.
            reading: What is known of it.
            columns: The columns that are asked for, which tell how the header is split.
            source: Where it is read from instead.

        Raises:
            DataError: It cannot be opened, or is not what it is said to be.
        """
        self.name = "standard input" if str(path) == "-" else str(path)
        self.folder = Path() if str(path) == "-" else Path(path).parent
        self._stack = ExitStack()
        self._text = TextForm()
        try:
            self._content = Content(path, reading, source, self._stack)
            self.size = self._content.size
            of_list = reading_of_list(self._content.head, reading)
            if of_list is not None:
                reading, columns = of_list, None
            self._rows = self._opened(reading, columns)
            header = getattr(self._rows, "header", None)
            self.is_list = of_list is not None or (header is not None and are_of_list(header.names))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            self._stack.close()
            raise DataError(f"{self.name}: not a whole compressed file ({error})") from None
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def position(self) -> int:
        """The bytes of the file on disk that have been read; 0 if unknown."""
        return self._content.position()

    @property
    def unit(self) -> str:
        """What rows are counted in: "line" or "row"."""
        return self._rows.unit

    @property
    def blank_rows(self) -> int:
        """How many rows without a value, and repeated headers, were passed over so far, between other rows."""
        return self._rows.blank_rows if isinstance(self._rows, Table) else 0

    def place(self, number: int) -> str:
        """Names a row: "line 5" or "row 5"."""
        return f"{self.unit} {number}"

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that the file has for them.

        Raises:
            DataError: The file has no such column, or several.
        """
        if isinstance(self._rows, JsonRows):
            return columns
        found = fitted(columns, self._rows.header, self.name)
        if isinstance(self._rows, ParquetTable):
            self._rows.only(found)
        return found

    def rows(self) -> Iterator[Row | RowError]:
        """The file's rows, as they are read; in place of a row that cannot be read, what is wrong with it.

        Raises:
            DataError: The file is not in its format.
        """
        return self._unpacked(self._rows.rows())

    def _unpacked(self, rows: Iterator[T]) -> Iterator[T]:
        line = 0
        try:
            for it in rows:
                row = it.row if isinstance(it, WholeRow) else it
                line = row.line if isinstance(row, Row | RowError) else line
                yield it
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{self.name}, behind {self.unit} {line}: not a whole compressed file ({error})"
            ) from None

    @property
    def form(self) -> FileForm:
        """What the file is, for another that is to be like it."""
        rows, data_format = self._rows, self._content.data_format
        if isinstance(rows, JsonRows):
            return FileForm("json" if rows.listed else "jsonl", text=self._text)
        if not isinstance(rows, Table):
            return FileForm(data_format, rows.header.names)
        text = replace(self._text, dialect=rows.dialect)
        data_format = "tsv" if rows.dialect.delimiter == "\t" else "csv"
        return FileForm(data_format, rows.header.names, text, not rows.header.given)

    def whole_rows(self) -> Iterator[WholeRow]:
        """As `rows`, with all that stands in the file.

        Raises:
            DataError: The file is not in its format.
        """
        return self._unpacked(self._rows.whole_rows())

    @property
    def parquet(self) -> Any:
        """The `pyarrow.parquet.ParquetFile`, if it is one."""
        return self._rows.file if isinstance(self._rows, ParquetTable) else None

    def _opened(self, reading: Reading, columns: Columns | None) -> Table | JsonRows | Sheet | ParquetTable:
        content = self._content
        if content.data_format == "parquet":
            return ParquetTable(self.name, content.seekable())
        if content.data_format == "xlsx":
            return Sheet(self.name, content.seekable(), reading, columns, self._stack)
        encoding = known_encoding(reading.encoding) if reading.encoding else encoding_of(content.head)
        first = self._first_lines(encoding)
        if not reading.encoding:
            _check_encoding(self.name, first, encoding)
        self._text = text_form(encoding, content.head)
        lines = TextLines.of_bytes(content.stream, encoding, content.head)
        texts = [it.text for it in first]
        if content.data_format in ("json", "jsonl"):
            return JsonRows(self.name, lines, texts, columns)
        usual = "\t" if content.data_format == "tsv" else ","
        return Table(
            self.name,
            lines,
            beginning=Beginning(texts),
            reading=reading,
            usual=usual,
            columns=columns,
        )

    def _first_lines(self, encoding: str) -> list[Line]:
        """The lines of the head; without the last one if it may go on behind it."""
        head = self._content.head
        lines = list(TextLines.of_bytes(io.BytesIO(head), encoding, head))
        if lines and not self._content.whole and len(lines) > 1:
            lines.pop()
        return lines


def text_form(encoding: str, head: bytes) -> TextForm:
    """How a text is encoded that begins so; its byte order mark is told apart from the encoding."""
    mark = byte_order_mark(head)
    name = known_encoding(encoding)
    if mark:
        end = "le" if mark[:1] == b"\xff" else "be"
        name = {"utf-8-sig": "utf-8", "utf-16": f"utf-16-{end}", "utf-32": f"utf-32-{end}"}.get(name, name)
    return TextForm(name, mark)


def _check_encoding(name: str, lines: list[Line], encoding: str) -> None:
    """Refuses a file of which many lines are in another encoding: they would be lost, and all of one kind.

    Raises:
        DataError: It is such a file.
    """
    wrong = [it for it in lines if it.wrong_byte() is not None]
    if not wrong or len(wrong) <= _FEW_WRONG * len(lines) or (len(wrong) < 3 and wrong[0].number > 1):
        return
    right = sum(not it.text.isascii() and it.wrong_byte() is None for it in lines)
    if right > len(wrong):
        return
    guess, shown = likely_encoding([it.raw() for it in wrong])
    others = f", and neither are bytes of {len(wrong) - 1:,} other lines" if len(wrong) > 1 else ""
    raise DataError(
        f"{name}, line {wrong[0].number}: byte 0x{wrong[0].wrong_byte():02x} is not {encoding.upper()}{others}; the "
        f"file seems to be in another encoding: give --encoding {guess}, if this is right: {shown!r:.60}"
    )
