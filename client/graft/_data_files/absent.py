"""Columns that no row of JSON has: a name that is mistyped, where one that some rows lack is a missing value."""

from __future__ import annotations

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, DataError, Row
from graft._data_files.header import missing


class Absent:
    """Watches for columns that are in no row."""

    def __init__(self, name: str, columns: Columns) -> None:
        """Begins.

        Args:
            name: The file's name, for messages.
            columns: What a caller asks for.
        """
        self._name = name
        self._absent = columns.named
        self._seen: dict[str, None] = {}

    def see(self, row: Row) -> None:
        """Looks at a row. Tables lack no column that is asked for."""
        if not row.sparse:
            self._absent = {}
        elif self._absent:
            cells = Cells(self._name, row)
            self._absent = {option: it for option, it in self._absent.items() if not cells.has(it)}
            self._seen.update(dict.fromkeys(row.values))

    def require(self) -> None:
        """Raises DataError if a column is in none of the rows."""
        if self._seen and self._absent:
            option, column = next(iter(self._absent.items()))
            raise DataError(f"{self._name}: {missing(column, option, self._seen)}")
