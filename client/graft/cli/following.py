"""Standard input as a stream of changes that need never end: JSON lines, each an example or a deletion.

A line that cannot be used is told and passed over, because a stream of months must not end at one. The first
Ctrl-C (or SIGTERM) ends the stream and not the command, which then commits; the second one ends that, too.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self, TextIO

from graft._data_files.reader import Columns, DataError, Row, example_of
from graft._records.examples import ChangeLike, Delete

DELETE: Final = "delete"
"""The key whose value is the id of an example to take back."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Ended(Exception):  # noqa: N818  (it is not an error)
    """The user wants the stream to end."""


class FollowedLines:
    """The changes that come in on standard input, for as long as they come. Use it in the main thread."""

    name = "standard input"
    """What people call it."""
    folder = Path()
    """Where names of files begin."""

    def __init__(self, source: TextIO, columns: Columns, on_bad: Callable[[str], None]) -> None:
        """Describes the stream; it begins to mind signals as it is entered.

        Args:
            source: Where lines come from.
            columns: Under which keys a line has its input, label and so on.
            on_bad: Told what is wrong with a line that is passed over.
        """
        self._source = source
        self._columns = columns
        self._on_bad = on_bad
        self._reading = False
        self._ended = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._end) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __iter__(self) -> Iterator[ChangeLike]:
        number = 0
        while (line := self._next_line()) is not None:
            number += 1
            if line.strip():
                try:
                    yield self._change(number, line)
                except DataError as error:
                    self._on_bad(str(error))

    def _next_line(self) -> str | None:
        """The next line; None at the end of the input, or when the user ended it."""
        try:
            self._reading = True
            if self._ended:
                return None
            return self._source.readline() or None
        except _Ended:
            return None
        finally:
            self._reading = False

    def _change(self, number: int, line: str) -> ChangeLike:
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"line {number} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise DataError(f"line {number} is not a JSON object, but {line.strip():.40}")
        if DELETE in values:
            if not (isinstance(values[DELETE], str) and values[DELETE]):
                raise DataError(
                    f"line {number}: {DELETE!r} must be the id of an example, not {values[DELETE]!r:.40}"
                )
            return Delete(values[DELETE])
        columns = self._columns
        if columns.id is None and "id" in values:
            columns = replace(columns, id="id")
        return example_of(self, Row(number, values), columns)

    def _end(self, _: int, __: FrameType | None) -> None:
        if self._ended:
            raise KeyboardInterrupt
        self._ended = True
        if self._reading:
            raise _Ended
