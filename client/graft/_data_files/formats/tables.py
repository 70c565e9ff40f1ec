"""The rows of a delimited text file, by column."""

from __future__ import annotations

from collections.abc import Iterator

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.formats.dialect import Beginning, Found, found_dialect
from graft._data_files.formats.lines import TextLines
from graft._data_files.formats.records import Dialect, Record, Records
from graft._data_files.formats.whole import WholeRow
from graft._data_files.header import Header
from graft._data_files.options import Reading

_DELIMITER_NAMES = {"\t": "tab", " ": "space"}


class Table:
    """A delimited text file: the header, and the rows as they are read.

    Attributes:
        header: The columns.
        unit: What rows are counted in.
        blank_rows: How many rows of empty cells, and repeated headers, `rows` passed over between other rows.
    """

    unit = "line"

    def __init__(
        self,
        name: str,
        lines: TextLines,
        *,
        beginning: Beginning,
        reading: Reading,
        usual: str,
        columns: Columns | None,
    ) -> None:
        """Finds out how the file is written.

        Args:
            name: The file's name, for messages.
            lines: Its lines.
            beginning: The first of them.
            reading: What is known already.
            usual: The delimiter that the name speaks for.
            columns: The columns that are asked for.

        Raises:
            DataError: The file is empty, or its header cannot be read.
        """
        self._name = name
        self._lines = lines
        self._found: Found = found_dialect(beginning, reading, usual, columns)
        self._named = bool(reading.names)
        self._delimited = bool(reading.delimiter)
        self.blank_rows = 0
        if self._found.wrong:
            raise DataError(f"{name}, {self._found.wrong}; this line must name the columns")
        if not self._found.names:
            raise DataError(f"{name}: empty; the first line must name the columns")
        self.header = Header(self._found.names, self._found.sample, given=self._named)

    @property
    def dialect(self) -> Dialect:
        """How its cells are written."""
        return self._found.dialect

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, and what is wrong with those that cannot be read."""
        records = self._records()
        header = not self._named
        repeated = 0
        for record in records:
            if header:  # R names one column less than there are
                header = False
                continue
            self.blank_rows = records.passed_over + repeated
            if record.wrong or not self._is_header(record):
                yield self._row(record, records)
            else:
                repeated += 1

    def whole_rows(self) -> Iterator[WholeRow]:
        """The header, the rows and the empty lines, with all that stands in them: rows of empty cells, too."""
        kept = self._lines.kept = []
        records = self._records()
        records.blank = True
        header, before = not self._named, ""
        for record in records:
            text = before + "".join(it.text for it in kept)
            kept.clear()
            empty = not text.strip("\r\n\x1a")
            if header:
                if not record.wrong and not any(record.cells):
                    before = text  # of the lines before the header
                    continue
                header, before = False, ""
                yield WholeRow(None, record.cells, text, is_header=True)
            elif not record.wrong and not empty and self._is_header(record):
                yield WholeRow(None, record.cells, text, is_header=True)
            elif self._is_one_text(record, records):
                value = text.rstrip("\r\n\x1a")
                yield WholeRow(Row(record.line, self.header.values([value])), [value], text, is_plain=False)
            else:
                yield WholeRow(None if empty else self._row(record, records), record.cells, text)

    def _records(self) -> Records:
        names = self.header.names
        records = Records(self._lines, self._found.dialect, seen=self._found.seen)
        records.width = len(names)
        records.loose = len(names) - len("\0".join(names).rstrip("\0").split("\0"))
        for _ in range(self._found.skipped):
            self._lines.next()
        return records

    def _is_one_text(self, record: Record, records: Records) -> bool:
        """Whether a row of a table of one column, which has no delimiters, holds commas without quotes around it."""
        one = len(self.header.names) == 1 and not self._delimited
        return one and not record.wrong and not records.fits(record.cells)

    def _row(self, record: Record, records: Records) -> Row | RowError:
        if record.wrong:
            return RowError(self._name, record.line, record.wrong)
        if records.fits(record.cells):
            return Row(record.line, self.header.values(record.cells))
        return RowError(self._name, record.line, self._ragged(record))

    def _is_header(self, record: Record) -> bool:
        """Whether a row is the header once more, as where files are joined, or where the names were given."""
        names = self.header.names
        if not record.cells or _name(record.cells[0]) != names[0] or (len(names) == 1 and record.line > 1):
            return False
        return [*map(_name, record.cells)] == [*names]

    def _ragged(self, record: Record) -> str:
        names = self.header.names
        delimiter = self._found.dialect.delimiter
        shown = _DELIMITER_NAMES.get(delimiter, delimiter)
        columns = ", ".join(it or "(no name)" for it in names)
        whose = "--columns names" if self._named else "the header has"
        through = f", on lines {record.line} to {record.line + record.lines - 1}" if record.lines > 1 else ""
        remedy = f"the cells are separated by {shown!r}; another character is given with --delimiter"
        if len(record.cells) > len(names) and self._found.dialect.quote:
            remedy = f"quote cells that contain {shown!r}"
        return f"{len(record.cells)} cells{through}, but {whose} {len(names)} columns ({columns}); {remedy}"


def _name(cell: str | None) -> str:
    """A cell as the name of a column; the second of two joined files may begin with a byte order mark."""
    return (cell or "").removeprefix("\ufeff").strip()
