"""The examples and inputs of a table: it is looked at first, then each row becomes one example, or is refused alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from graft._data_files.absent import Absent
from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.examples import example_of, input_of
from graft._data_files.survey import Survey, look
from graft._records.inputs.examples import MAX_MESSAGE_BYTES, Example, Input
from graft._records.inputs.targets import is_missing
from graft._streams.look_ahead import LookAhead
from graft._tables.options import Asked, as_arguments
from graft._tables.sources import Frame, Source
from graft._tables.stored import StoredRows

LOG = logging.getLogger("graft")

_LOOK_ROWS: Final = 1_000
"""The most rows of a stream that are looked at before the first is sent."""
_MOST_BYTES: Final = MAX_MESSAGE_BYTES - 1024 * 1024
"""Larger files do not fit into a message, with what goes beside them."""
_MOST_REFUSED: Final = 10_000
"""The most refused rows whose reasons are kept."""


class TableRows:
    """The rows of a table on their way to the server, each in its place.

    A row that is no example stands as one without an input, which the server refuses alone: so the number of an example
    at the server is that of its row, also where a call is repeated.

    Attributes:
        source: The table.
        notes: What was found, in sentences, with what overrules it.
        refused: By their places, the first rows that are no examples, with the reason.
        refused_count: How many rows are no examples.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes: tuple[str, ...] = ()
        self.refused: dict[int, RowError] = {}
        self.refused_count = 0
        self._lines: dict[int, int] = {}
        self._count = 0
        self._first_refused: RowError | None = None

    def place(self, index: int) -> str:
        """Names the row of the example with this number, from 0."""
        return self.source.place(self._lines.get(index, index))

    def _take(self, row: Row | RowError) -> None:
        if row.line != self._count:
            self._lines[self._count] = row.line
        self._count += 1

    def _refuse(self, error: RowError) -> None:
        self.refused_count += 1
        self._first_refused = self._first_refused or error
        if len(self.refused) < _MOST_REFUSED:
            self.refused[self._count - 1] = error


class TableExamples(TableRows):
    """The examples of a table.

    Attributes:
        task: The task, as it was named, or as the targets tell; "" if nothing tells.
    """

    def __init__(
        self, source: Source, asked: Asked, *, task: str, id_repeats: str = "", checked: bool = False
    ) -> None:
        """Looks at a table: at all of it, or at the first rows of a stream.

        Args:
            source: The table.
            asked: What the caller says of its columns.
            task: The task that the caller names; "" for none.
            id_repeats: "replace" allows that rows of the same id replace each other.
            checked: Whether ids that lose rows are only told.

        Raises:
            DataError: It has no such column.
            ValueError: Ids stand for several rows, and nothing allows that.
        """
        super().__init__(source)
        columns = _fitted(source, asked.columns)
        survey = Survey(source, columns)
        self._rows = _narrowed(source, columns).rows()
        self._first: list[Row | RowError] = []
        if source.whole:
            with _arguments():
                look(_narrowed(source, columns).rows(), survey)
                survey.absent.require()
        else:
            self._look_ahead(survey)
        if columns.id is not None and survey.ids.lossy and not (checked or id_repeats == "replace"):
            raise ValueError(
                f"{source.name}: the column {columns.id!r} is not unique: {survey.ids.said('rows', 'inputs')}. A row "
                f"replaces an earlier row of the same id, so that {survey.ids.lost:,} rows would be lost. Name a "
                "column that tells every row from every other, or none; id_repeats='replace' lets the last row of an "
                "id count"
            )
        found = survey.reading(task, asked.label_cells, whole=source.whole)
        self.notes = (*source.remarks, *(as_arguments(it) for it in found.notes))
        if said := survey.swap.said():
            LOG.warning(
                "%s: give input=%r and label=%r, if these are meant", said, columns.label, columns.input
            )
        if found.doubt:
            LOG.warning("%s", as_arguments(found.doubt))
        self.task = found.columns.task
        self._columns = found.columns
        self._absent = Absent(source.name, found.columns)

    def __iter__(self) -> Iterator[Example]:
        """The examples, one for each row; see `example` and `end`."""
        for row in self.rows():
            yield self.example(row)
        self.end()

    def rows(self) -> Iterator[Row | RowError]:
        """All rows, those that were looked at first."""
        yield from self._first
        with _arguments():
            yield from self._rows

    def example(self, row: Row | RowError) -> Example:
        """The example of the next row; one without an input, if it is none."""
        self._take(row)
        try:
            if isinstance(row, RowError):
                raise row
            self._absent.see(row)
            value = _input_of(self.source, row, self._columns)
            origin = "" if isinstance(self.source, StoredRows) else self.source.place(row.line)
            return example_of(self.source, row, self._columns, given=value, origin=origin)
        except RowError as error:
            self._refuse(error)
            return Example("")

    def end(self) -> None:
        """Notes that there are no more rows.

        Raises:
            DataError: None of the rows is an example, or a column is in none of them.
        """
        with _arguments():
            self._absent.require()
        if self._first_refused is not None and self.refused_count == self._count:
            others = f" (none of the {self._count:,} rows can be used)" if self._count > 1 else ""
            raise DataError(f"{as_arguments(str(self._first_refused))}{others}")

    def _look_ahead(self, survey: Survey) -> None:
        ahead = LookAhead(_LOOK_ROWS)
        while (
            (survey.open or not ahead.count) and ahead.within and (row := next(self._rows, None)) is not None
        ):
            ahead.at(row.values.values() if isinstance(row, Row) else ())
            self._first.append(row)
            survey.add(row)


class TableInputs(TableRows):
    """The inputs of a table, one for each row."""

    def __init__(self, source: Source, asked: Asked) -> None:
        """Finds the columns.

        Raises:
            DataError: The table has no such column.
        """
        super().__init__(source)
        columns = replace(asked.columns, label="")
        if not asked.named and isinstance(source, Frame) and source.only:
            columns = replace(columns, input=source.only)
        self._columns = _fitted(source, columns)
        self._absent = Absent(source.name, self._columns)

    def __iter__(self) -> Iterator[Input]:
        """The inputs, one for each row; see `input` and `end`."""
        for row in _narrowed(self.source, self._columns).rows():
            yield self.input(row)
        self.end()

    def input(self, row: Row | RowError) -> Input:
        """The input of the next row; a text without a character in place of one that is missing, or is none."""
        self._take(row)
        try:
            if isinstance(row, RowError):
                raise row
            self._absent.see(row)
            return _input_of(self.source, row, self._columns)
        except RowError as error:
            self._refuse(error)
            return ""

    def end(self) -> None:
        """Notes that there are no more rows.

        Raises:
            DataError: A column is in none of the rows.
        """
        with _arguments():
            self._absent.require()


class _arguments:  # noqa: N801 - a context manager, written as others are
    """Has errors name the client's arguments in place of the command line's options."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DataError) and not isinstance(error, RowError):
            raise DataError(as_arguments(str(error))) from None


def _fitted(source: Source, columns: Columns) -> Columns:
    with _arguments():
        return source.fitted(columns)


def _narrowed(source: Source, columns: Columns) -> Source:
    """The source with no more columns than these, if it is a frame."""
    if not isinstance(source, Frame):
        return source
    return source.narrowed({*columns.named.values(), *columns.labels_from})


def _input_of(source: Source, row: Row, columns: Columns) -> Input:
    """The input of a row, ready to be sent; "" if it is missing.

    Raises:
        RowError: It is none.
    """
    cells = Cells(source.name, row, columns.decimal)
    if row.sparse and not cells.has(columns.input):
        raise RowError(source.name, row.line, f"there is no {columns.input!r}", unit=row.unit)
    if is_missing(cells.value(columns.input)):
        return ""
    value = input_of(source, row, columns)
    if isinstance(value, Path):
        path = value
        try:
            value = path.read_bytes()
        except OSError as error:
            raise cells.wrong(columns.input, f"{path} cannot be read: {error.strerror or error}") from None
    if isinstance(value, bytes) and len(value) > _MOST_BYTES:
        raise cells.wrong(
            columns.input, f"the file takes {len(value):,} bytes; at most {_MOST_BYTES:,} can be sent"
        )
    return value
