"""Standard input as a stream of changes that need never end: JSON lines, each an example or a deletion.

A bad line is reported and skipped, because a stream of months must not end at one. The first
Ctrl-C (or SIGTERM) ends the stream and not the command, which then commits; the second one ends that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, RowError
from graft._data_files.examples import example_of
from graft._data_files.formats.json_rows import json_row
from graft._records.inputs.examples import ChangeLike, Delete
from graft.cli.interrupts import Interrupts

DELETE: Final = "delete"
"""The key whose value is the id of an example to take back."""


class FollowedLines:
    """The changes that come in on standard input, for as long as they come."""

    name = "standard input"
    """What people call it."""
    folder = Path()
    """Where names of files begin."""

    def __init__(
        self,
        interrupts: Interrupts,
        columns: Columns,
        on_row: Callable[[int], None],
        on_bad: Callable[[RowError], None],
    ) -> None:
        """Describes the stream.

        Args:
            interrupts: Where lines come from, and what ends them.
            columns: Under which keys a line has its input, label and so on.
            on_row: Called with the number of a line whose change follows.
            on_bad: Called with what is wrong with a line that is passed over.
        """
        self._interrupts = interrupts
        self._columns = columns
        self._on_row = on_row
        self._on_bad = on_bad

    def __iter__(self) -> Iterator[ChangeLike]:
        number = 0
        while (line := self._next_line()) is not None:
            number += 1
            if line.strip():
                try:
                    change = self._change(number, line)
                except RowError as error:
                    self._on_bad(error)
                else:
                    self._on_row(number)
                    yield change

    def _next_line(self) -> bytes | None:
        """The next line; None at the end of the input, or when the user ended it."""
        line = self._interrupts.stdin.buffer.readline()
        # What was read when the user ended the input may be half a line.
        return None if self._interrupts.input_ended else line or None

    def _change(self, number: int, line: bytes) -> ChangeLike:
        try:
            row = json_row(self.name, number, line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            wrong = f"byte 0x{line[error.start]:02x} is not UTF-8, in which lines are followed"
            raise RowError(self.name, number, wrong) from None
        if isinstance(row, RowError):
            raise row
        values = row.values
        if DELETE in values:
            if not (id_ := Cells(self.name, row).word(DELETE)):
                wrong = f"it must be the id of an example, not {values[DELETE]!r:.40}"
                raise RowError(self.name, number, wrong, column=DELETE)
            return Delete(id_)
        columns = self._columns
        if columns.id is None and "id" in values:
            columns = replace(columns, id="id")
        return example_of(self, row, columns)
