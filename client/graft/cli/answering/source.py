"""Opens what is to be answered: a table, JSON, lines of text, or a folder of pictures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from graft._data_files.answers.asked import AskedFile, AskedFolder, AskedLines, AskedRow, Asking, Source
from graft._data_files.answers.writers import one_line
from graft._data_files.columns import Columns, DataError, Row
from graft._data_files.header import like, missing
from graft._data_files.options import Reading
from graft._streams.look_ahead import LookAhead
from graft.cli.data_options import reading_of

_LOOK_ROWS: Final = 1_000
INPUT: Final = "text"
"""The column of inputs where none is named."""


def asking_of(args: argparse.Namespace) -> Asking:
    """Where the inputs of a table are."""
    columns = Columns(
        input=args.path or args.input or INPUT,
        label="",
        path=bool(args.path),
        second=args.second,
    )
    return Asking(columns, reading_of(args))


def opened(args: argparse.Namespace, path: str, kind: str, source: BinaryIO | None) -> Source:
    """Opens a file or a folder.

    Args:
        args: The command's arguments.
        path: The file; "-" is standard input.
        kind: "table" or "lines".
        source: Where it is read from instead.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """
    if path != "-" and Path(path).is_dir():
        return AskedFolder(path)
    if kind == "lines":
        return AskedLines(path, args.encoding, source=source)
    return AskedFile(path, asking_of(args), source=source)


def keys_of(data: Source, args: argparse.Namespace, copy: BinaryIO | None = None) -> list[str]:
    """The keys of all objects of JSON, in the order in which they come.

    Args:
        data: The open file, which is read to its end.
        args: The command's arguments.
        copy: Takes the objects, one a line.

    Raises:
        DataError: No object has the column that is asked for.
    """
    asked = asking_of(args).columns
    keys: dict[str, None] = {}
    answerable = False
    for it in data.rows():
        if isinstance(it.whole.row, Row):
            keys.update(dict.fromkeys(it.whole.row.values))
        answerable = answerable or it.input is not None
        if copy is not None:
            copy.write(f"{one_line(it.whole.text)}\n".encode(errors="surrogateescape"))
    if not answerable and keys and "." not in asked.input and like(asked.input, keys) is None:
        raise DataError(f"{data.name}: {missing(asked.input, 'path' if asked.path else 'input', keys)}")
    return list(keys)


def read_twice(
    args: argparse.Namespace, path: str, data: Source, stack: ExitStack
) -> tuple[Source, list[str]]:
    """JSON with the keys of its objects, to be read once more: standard input from a temporary file."""
    if path != "-" and not Path(path).is_fifo():
        keys = keys_of(data, args)
        return stack.enter_context(opened(args, path, "table", None)), keys
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
    keys = keys_of(data, args, copy)
    copy.seek(0)
    again = AskedFile("-", replace(asking_of(args), reading=Reading("jsonl")), source=copy)
    return stack.enter_context(again), keys


class AskedAhead:
    """A stream of JSON whose first rows are looked at, for the names of their values.

    Attributes:
        name: What people call it.
        form: What it is.
        keys: The names of the values in the rows that were looked at.
    """

    def __init__(self, stream: Source) -> None:
        """Looks at as many rows as are there."""
        self.name, self.form = stream.name, stream.form
        self._stream = stream
        self._rest = stream.rows()
        self._first: list[AskedRow] = []
        self.keys: dict[str, None] = {}
        ahead = LookAhead(_LOOK_ROWS)
        while ahead.within and (asked := next(self._rest, None)) is not None:
            self._first.append(asked)
            values = asked.whole.row.values if isinstance(asked.whole.row, Row) else {}
            self.keys.update(dict.fromkeys(values))
            ahead.at(values.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def done(self) -> float:
        """Which share of it has been read: unknown."""
        return self._stream.done

    def rows(self) -> Iterator[AskedRow]:
        """The rows, as they are read."""
        yield from self._first
        yield from self._rest
