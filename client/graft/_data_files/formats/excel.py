"""The rows of an Excel file's sheet, through openpyxl."""

from __future__ import annotations

import datetime as dt
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, Final

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.formats.whole import WholeRow
from graft._data_files.header import Header, like
from graft._data_files.options import Reading

_SAMPLE: Final = 200
_ERRORS: Final = frozenset(("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"))
"""Cells of formulas that have no result."""


class Sheet:
    """A sheet of an Excel file: the header, and the rows as they are read.

    Attributes:
        header: The columns.
        unit: What rows are counted in.
    """

    unit = "row"

    def __init__(
        self, name: str, file: BinaryIO, reading: Reading, columns: Columns | None, stack: ExitStack
    ) -> None:
        """Opens the sheet that is asked for: the one of that name, or the first that has the columns, or the first.

        Raises:
            DataError: openpyxl is not installed, the file is not whole, or there is no such sheet.
        """
        self._name = name
        self._given = bool(reading.names)
        book = _book(name, file)
        stack.callback(book.close)
        self._sheet = _sheet(name, book, reading.sheet, columns)
        rows = self._filled()
        first = () if reading.names else next(rows, (0, ()))[1]
        names = reading.names or tuple(_named(it) for it in _trimmed(first))
        if not names:
            raise DataError(
                f"{name}: the sheet {self._sheet.title!r} is empty; its first row must name the columns"
            )
        sample = [cells for _, cells in itertools.islice(rows, _SAMPLE)]
        self.header = Header(names, sample, given=self._given)

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, and what is wrong with those that cannot be read."""
        return (it.row for it in self.whole_rows() if it.row is not None)

    def whole_rows(self) -> Iterator[WholeRow]:
        """The rows that hold something, with all of their cells."""
        rows = self._filled()
        if not self._given:
            next(rows)
        width = len(self.header.names)
        for number, cells in rows:
            if len(_trimmed(cells)) > width:
                wrong = f"{len(_trimmed(cells))} cells, but the header has {width} columns"
                yield WholeRow(RowError(self._name, number, wrong, unit=self.unit), _trimmed(cells))
            else:
                missing = [None] * (width - len(cells))  # cells at the end that were never written
                whole = [*cells, *missing][:width]
                yield WholeRow(Row(number, self.header.values(whole), unit=self.unit), whole)

    def _filled(self) -> Iterator[tuple[int, list[Any]]]:
        """The rows that hold something, each with its number."""
        self._sheet.reset_dimensions()  # some programs write wrong ones
        for number, row in enumerate(self._sheet.iter_rows(values_only=True), start=1):
            cells = [_plain(it) for it in row]
            if any(it not in (None, "") for it in cells):
                yield number, cells


def _book(name: str, file: BinaryIO) -> Any:
    try:
        import openpyxl  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise DataError(
            f"{name}: reading Excel files needs openpyxl: pip install 'graft-serve[excel]'; or save the sheet as CSV"
        ) from None
    try:
        return openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{name}: not a whole Excel file ({error})") from None


def _sheet(name: str, book: Any, asked: str, columns: Columns | None) -> Any:
    sheets = {it.title: it for it in book.worksheets}
    if not sheets:
        raise DataError(f"{name}: there is no sheet with cells in it")
    if asked:
        title = asked if asked in sheets else like(asked, sheets)
        if title is None:
            raise DataError(f"{name}: there is no sheet {asked!r}; the sheets are: {', '.join(sheets)}")
        return sheets[title]
    fitting = [it for it in sheets.values() if columns is not None and _has(it, columns)]
    if len(fitting) > 1:
        names = ", ".join(it.title for it in fitting)
        raise DataError(f"{name}: several sheets have the columns ({names}); say which one with --sheet")
    return fitting[0] if fitting else next(iter(sheets.values()))


def _has(sheet: Any, columns: Columns) -> bool:
    sheet.reset_dimensions()
    rows = sheet.iter_rows(values_only=True)
    first = next((it for it in rows if any(cell not in (None, "") for cell in it)), ())
    names = [_named(it) for it in first]
    return all(it in names or like(it, names) for it in columns.required)


def _trimmed(cells: Sequence[Any]) -> Sequence[Any]:
    """The cells without empty ones at the end."""
    end = len(cells)
    while end and cells[end - 1] in (None, ""):
        end -= 1
    return cells[:end]


def _named(cell: Any) -> str:
    return "" if cell is None else str(_plain(cell)).strip()


def _plain(cell: Any) -> Any:
    """A cell's value as Excel shows it, as far as texts and numbers go; None of an error."""
    if isinstance(cell, str):
        return None if cell in _ERRORS else cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # Excel has no whole numbers
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return cell.date().isoformat()
    if isinstance(cell, int | float | dt.datetime | dt.date | dt.time | dt.timedelta):
        return str(cell)
    return cell
