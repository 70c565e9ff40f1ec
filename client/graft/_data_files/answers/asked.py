"""What is asked of a model by a file: a row of a table or of JSON, a line, or a picture of a folder, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, Self

from graft._data_files.columns import Columns, DataError, Row, RowError
from graft._data_files.content import ENDINGS as TABLES
from graft._data_files.content import PACKED_ENDINGS, Content
from graft._data_files.examples import input_of
from graft._data_files.files import DataFile, text_form
from graft._data_files.formats.encodings import encoding_of, known_encoding
from graft._data_files.formats.lines import TextLines
from graft._data_files.formats.whole import FileForm, WholeRow
from graft._data_files.options import Reading
from graft._records.inputs.examples import Input
from graft._records.inputs.media import ENDINGS as MEDIA

_LINES: Final = frozenset((".txt", ".text"))
"""The endings of files whose lines are texts, unless a column is named."""


class AskedRow(NamedTuple):
    """A row, with what is asked by it."""

    whole: WholeRow
    """The row; an empty line or a header asks nothing."""
    input: Input | None
    """What is asked; a picture or a clip by its path, which is read when it is sent. None if there is `error`."""
    error: str = ""
    """Why nothing can be asked."""

    @property
    def asks(self) -> bool:
        """Whether it is a row, which has an answer or an error."""
        return self.whole.row is not None


@dataclass(frozen=True, slots=True)
class Asking:
    """How a file is asked."""

    columns: Columns
    """Where its inputs are."""
    reading: Reading
    """How it is written."""


class Source(AbstractContextManager["Source"], Protocol):
    """Something open whose rows are asked."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def form(self) -> FileForm:
        """What it is."""

    @property
    def done(self) -> float:
        """Which share of it has been read, 0 to 1; 0 if that is unknown."""

    def rows(self) -> Iterator[AskedRow]:
        """Its rows, as they are read."""


class AskedFile:
    """An open file whose rows are asked.

    Attributes:
        name: What people call it.
        form: What it is.
    """

    def __init__(self, path: str | Path, asking: Asking, *, source: BinaryIO | None = None) -> None:
        """Opens it, and finds its columns.

        Raises:
            DataError: It cannot be opened, is not what it is said to be, or lacks a column that is asked for.
        """
        self._data = DataFile(path, reading=asking.reading, columns=asking.columns, source=source)
        try:
            self._columns = self._data.fitted(asking.columns)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.name = self._data.name
        self.form = self._data.form

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.__exit__(kind, error, trace)

    @property
    def done(self) -> float:
        """Which share of the file has been read, 0 to 1; 0 if that is unknown."""
        return self._data.position / self._data.size if self._data.size else 0.0

    @property
    def parquet(self) -> Any:
        """The `pyarrow.parquet.ParquetFile`, if it is one."""
        return self._data.parquet

    def rows(self) -> Iterator[AskedRow]:
        """The rows, as they are read.

        Raises:
            DataError: The file is not in its format.
        """
        for whole in self._data.whole_rows():
            if isinstance(whole.row, Row):
                yield self._asked(whole, whole.row)
            else:
                yield AskedRow(whole, None, whole.row.reason if isinstance(whole.row, RowError) else "")

    def _asked(self, whole: WholeRow, row: Row) -> AskedRow:
        try:
            return AskedRow(whole, input_of(self._data, row, self._columns, opened=False))
        except RowError as error:
            return AskedRow(whole, None, error.reason)


class AskedLines:
    """A file each line of which is a text, blank ones too.

    Attributes:
        name: What people call it.
        form: Lines; as a table, one column, "text".
    """

    def __init__(self, path: str | Path, encoding: str = "", *, source: BinaryIO | None = None) -> None:
        """Opens it.

        Args:
            path: The file; "-" is standard input.
            encoding: Of the text. Empty: UTF-8 or UTF-16.
            source: Where it is read from instead.

        Raises:
            DataError: It cannot be opened.
        """
        self.name = "standard input" if str(path) == "-" else str(path)
        self._stack = ExitStack()
        try:
            self._content = Content(path, Reading("csv"), source, self._stack)
        except BaseException:
            self._stack.close()
            raise
        head = self._content.head
        text = text_form(known_encoding(encoding) if encoding else encoding_of(head), head)
        self.form = FileForm("lines", ("text",), text)
        self._text_lines = TextLines.of_bytes(self._content.stream, text.encoding, head)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def done(self) -> float:
        """Which share of the file has been read, 0 to 1; 0 if that is unknown."""
        return self._content.position() / self._content.size if self._content.size else 0.0

    def rows(self) -> Iterator[AskedRow]:
        """A row a line."""
        for line in self._text_lines:
            text = line.text.rstrip("\r\n")
            if wrong := line.wrong():
                error = RowError(self.name, line.number, wrong)
                yield AskedRow(WholeRow(error, (text,), line.text), None, wrong)
            else:
                yield AskedRow(WholeRow(Row(line.number, {"text": text}), (text,), line.text), text.strip())


class AskedFolder:
    """The pictures or clips of a folder, in the order of their paths.

    Attributes:
        name: What people call it.
        form: A table of one column, "path".
        others: How many other files the folder has.
    """

    def __init__(self, folder: str | Path) -> None:
        """Lists the folder.

        Raises:
            DataError: No file in it has the ending of a picture or a clip.
        """
        self.name = str(folder)
        self.form = FileForm("folder", ("path",))
        self._folder = Path(folder)
        self._paths: list[str] = []
        self.others = 0
        for inner, folders, names in os.walk(folder):
            folders[:] = sorted(it for it in folders if not it.startswith("."))
            for name in names:
                if Path(name).suffix.lower() in MEDIA and not name.startswith("."):
                    self._paths.append((Path(inner) / name).relative_to(folder).as_posix())
                else:
                    self.others += not name.startswith(".")
        self._paths.sort()
        self._at = 0
        if not self._paths:
            raise DataError(
                f"{folder}: no images or clips in it; their endings are {', '.join(sorted(MEDIA))}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def done(self) -> float:
        """Which share of the files has been taken, 0 to 1."""
        return self._at / len(self._paths)

    def rows(self) -> Iterator[AskedRow]:
        """A row a file."""
        for number, path in enumerate(self._paths, start=1):
            self._at = number
            whole = WholeRow(Row(number, {"path": path}, unit="file"), (path,))
            yield AskedRow(whole, self._folder / path)


def ending_of(name: str) -> str:
    """The kind that a file's name speaks of: "table", "lines", "media" or ""."""
    name = name.lower()
    suffix = Path(name).suffix
    if suffix in MEDIA:
        return "media"
    for packed in PACKED_ENDINGS:
        name = name.removesuffix(packed)
    suffix = Path(name).suffix
    return "table" if suffix in TABLES else "lines" if suffix in _LINES else ""
