"""Asks a model row by row, and writes each row with its answer, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from graft._data_files.answers.asked import AskedRow
from graft._data_files.columns import RowError
from graft._records.inputs.examples import Input, sendable_input
from graft._records.inputs.media import unusable
from graft._records.predicting.answer_columns import AnswerColumns, reason_of
from graft._records.predicting.predictions import Prediction

Write: TypeAlias = Callable[[AskedRow, "list[Any] | None", bool], None]
"""Takes a row, what its answer's columns hold (None: it is no row), and whether that is an error."""

_LONG: Final = 4_000_000
"""Shorter texts fit into a message, whatever their characters are."""
_WAITING: Final = 4_096
"""So many rows may wait for an answer before one is asked for, where no row among them can be asked."""


class Answering:
    """Rows on their way through a model.

    Attributes:
        taken: How many rows have been read.
        answered: How many rows have an answer or an error.
        failed: How many have an error.
        first_error: The first of these, with its place.
    """

    def __init__(self, rows: Iterator[AskedRow], columns: AnswerColumns) -> None:
        self.taken = self.answered = self.failed = 0
        self.first_error = ""
        self._rows = rows
        self._columns = columns
        self._waiting: deque[tuple[AskedRow, str, bool]] = deque()
        self._unasked = 0

    def inputs(self) -> Iterator[Input]:
        """Yields what can be asked, as rows are read."""
        for row in self._rows:
            asked, error = _question(row)
            self.taken += row.asks
            self._unasked = 0 if asked is not None else self._unasked + 1
            # Answers alone take rows out of memory: so one is asked for now and then, and not looked at.
            pump = self._unasked >= _WAITING
            if pump:
                self._unasked, asked = 0, ""
            self._waiting.append((row, error, asked is not None))
            if asked is not None:
                yield asked

    @property
    def done(self) -> float:
        """Which share of the rows that were read has been answered, 0 to 1."""
        return self.answered / self.taken if self.taken else 0.0

    def written(self, predictions: Iterable[Prediction], write: Write) -> None:
        """Hands every row to `write`, in order, with what its answer's columns hold and whether it failed."""
        for prediction in predictions:
            self._pass_on(write)
            row, error, _ = self._waiting.popleft()
            self._write(row, error or prediction, write)
            self._pass_on(write)
        self._pass_on(write)

    def _pass_on(self, write: Write) -> None:
        """Writes the rows in front that are not asked."""
        while self._waiting and not self._waiting[0][2]:
            row, error, _ = self._waiting.popleft()
            self._write(row, error, write)

    def _write(self, row: AskedRow, answer: Prediction | str, write: Write) -> None:
        if not row.asks:
            write(row, None, False)
            return
        self.answered += 1
        error = answer if isinstance(answer, str) else answer.error and reason_of(answer.error)
        if error:
            self.failed += 1
            self.first_error = self.first_error or f"{_place(row)}: {error}"
        write(row, self._columns.values(answer), bool(error))


def _place(row: AskedRow) -> str:
    found = row.whole.row
    if isinstance(found, RowError):
        return found.place
    if found is None:
        return ""
    return str(row.whole.cells[0]) if found.unit == "file" else f"{found.unit} {found.line}"


def _question(row: AskedRow) -> tuple[Input | None, str]:
    """What is sent for a row, or why nothing can be."""
    value = row.input
    if value is None:
        return None, row.error
    try:
        if isinstance(value, Path):
            if reason := unusable(value):
                return None, f"{value}: {reason}"
            value = value.read_bytes()
        elif isinstance(value, str) and len(value) < _LONG:
            return value, ""
        sendable_input(value)
    except OSError as error:
        return None, f"{error.filename} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return None, str(error)
    return value, ""


class Pace:
    """How many rows a second, and when to say so."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._began = self._said = clock()

    def due(self) -> bool:
        """Whether it is time for the next word."""
        now = self._clock()
        if now - self._said < self._every_s:
            return False
        self._said = now
        return True

    def words(self, rows: int, begun: int = 0) -> str:
        """The rows so far, and how fast they come, of which so many were there at the beginning."""
        seconds = self._clock() - self._began
        rate = f", {(rows - begun) / seconds:,.0f} a second" if seconds > 1 else ""
        return f"{rows:,} rows answered{rate}"
