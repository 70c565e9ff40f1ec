"""Reads labelled examples from CSV, TSV and JSON lines, a row at a time: files may be larger than memory.

Formats go by the name's ending, also before ".gz"; "-" is standard input, as JSON lines. A folder is a tree of images
or clips in folders that are named as their classes are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol, Self, TextIO, TypeAlias

from graft._records.examples import Example, Input, TextPair
from graft._records.media import ENDINGS, class_files

_FORMATS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
# The csv module's own limit is 128 KiB, and texts may be longer.
_MAX_CELL_CHARACTERS: Final = 32 * 1024 * 1024


class DataError(Exception):
    """A data file is not as it must be; the message names the file, the line and the column."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what."""

    input: str
    """What is to be classified."""
    label: str
    """What it should be answered with."""
    id: str | None = None
    """The example's id."""
    weight: str | None = None
    """How much it counts."""
    group: str | None = None
    """What must not be torn apart by cross-validation."""
    split: str | None = None
    """ "train" or "validation"."""
    subject: str | None = None
    """Whose data it is."""
    path: bool = False
    """Whether `input` names files of images or clips, from the data file's folder on, rather than holding texts."""
    separator: str = ""
    """What separates several labels in a cell of `label`; empty: a cell is one label."""
    value: str | None = None
    """What number it should be answered with, in place of a label."""
    second: str | None = None
    """The second text, where `input` is the first of a pair."""


class Origin(Protocol):
    """Where rows come from."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def folder(self) -> Path:
        """Where names of files begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    line: int
    """The line on which it begins, from 1."""
    values: Mapping[str, Any]
    """Its values by column."""


class DataFile:
    """An open data file, read row by row."""

    folder = Path()
    """Where names of files begin."""

    def __init__(
        self,
        path: str | Path,
        *,
        data_format: str | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8-sig",
        source: BinaryIO | None = None,
    ) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        self.size = 0
        self.folder = Path() if str(path) == "-" else Path(path).parent
        self._format = data_format or _format_of(path, delimiter)
        self._delimiter = delimiter or ("\t" if self._format == "tsv" else ",")
        self._encoding = encoding
        self._stack = ExitStack()
        self._raw = self._open(path, source)
        self._text = self._decoded(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def position(self) -> int:
        """How many bytes of the file (as it is on disk) have been read; 0 where that cannot be told."""
        try:
            return self._raw.tell() if self.size and not self._raw.closed else 0
        except OSError:
            return 0

    def rows(self) -> Iterator[Row]:
        """The file's rows, as they are read.

        Raises:
            DataError: The file is not in its format.
        """
        line = 0
        try:
            rows = self._json_rows() if self._format == "jsonl" else self._table_rows()
            for row in rows:
                line = row.line
                yield row
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name}, after line {line}: byte 0x{error.object[error.start]:02x} is not "
                f"{error.encoding}; save the file as UTF-8, or name its encoding"
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{self.name}, after line {line}: not a whole gzip file ({error})") from None

    def _open(self, path: str | Path, source: BinaryIO | None) -> BinaryIO:
        if source is not None:
            return source
        if str(path) == "-":
            return sys.stdin.buffer
        try:
            raw = Path(path).open("rb")  # noqa: SIM115  (the stack closes it)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        self.size = Path(path).stat().st_size
        return self._stack.enter_context(raw)

    def _decoded(self, path: str | Path) -> TextIO:
        zipped = str(path).lower().endswith(".gz")
        stream: Any = self._raw
        if zipped:
            stream = self._stack.enter_context(gzip.GzipFile(fileobj=self._raw))
        # Line ends inside quoted cells are the csv module's to read.
        return io.TextIOWrapper(
            stream, encoding=self._encoding, newline=None if self._format == "jsonl" else ""
        )

    def _table_rows(self) -> Iterator[Row]:
        csv.field_size_limit(_MAX_CELL_CHARACTERS)
        reader = csv.reader(self._text, delimiter=self._delimiter, strict=True)
        line = 1
        header: list[str] | None = None
        try:
            for cells in reader:
                begins, line = line, reader.line_num + 1
                if not cells:
                    continue
                if header is None:
                    header = self._header(cells)
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{self.name}, line {begins}: {len(cells)} cells, but the header has {len(header)} "
                        f"columns ({', '.join(header)}); quote cells that contain {self._delimiter!r}"
                    )
                yield Row(begins, dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            raise DataError(f"{self.name}, line {line}: {error}") from None
        if header is None:
            raise DataError(f"{self.name}: empty; the first line must name the columns")

    def _header(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{self.name}, line 1: more than one column is named {twice[0]!r}")
        return names

    def _json_rows(self) -> Iterator[Row]:
        for line, text in enumerate(self._text, start=1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{self.name}, line {line}, column {error.colno}: not JSON ({error.msg}); "
                    "each line must be one object"
                ) from None
            if not isinstance(values, dict):
                raise DataError(f"{self.name}, line {line}: {text.strip()!r:.60} is not a JSON object")
            yield Row(line, values)


class FolderTree:
    """Images or clips in folders that are named as their classes are, as if a file listed them.

    Rows have the columns "path", from the folder on, and "label".
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        self.folder = Path(folder)
        self._files = list(class_files(self.folder))
        self.size = len(self._files)
        self.position = 0
        if not self._files:
            raise DataError(
                f"{folder}: no images or clips in it; put them into one folder for each class, with the endings "
                f"{', '.join(sorted(ENDINGS))}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def rows(self) -> Iterator[Row]:
        """A row a file."""
        for number, (file, label) in enumerate(self._files, start=1):
            self.position = number
            yield Row(number, {"path": file.relative_to(self.folder).as_posix(), "label": label})


FOLDER_COLUMNS = Columns(input="path", label="label", path=True)
"""What a `FolderTree` holds."""


def read_examples(
    path: str | Path,
    *,
    input: str = "text",  # noqa: A002  (the column's name, as in the command line)
    label: str = "label",
    id: str | None = None,  # noqa: A002
    weight: str | None = None,
    group: str | None = None,
    split: str | None = None,
    subject: str | None = None,
    delimiter: str | None = None,
    files: bool = False,
    label_separator: str = "",
    value: str | None = None,
    second: str | None = None,
) -> Iterator[Example]:
    """Reads labelled examples from a CSV, TSV or JSON lines file, also with ".gz" behind, a row at a time.

    Args:
        path: The file; "-" reads JSON lines from standard input. Or a folder of folders that are named as classes
            are, with images or clips.
        input: The column of what is to be classified.
        files: Whether that column names files of images or clips, from the data file's folder on.
        label: The column of labels.
        id: The column of ids, if there is one.
        weight: The column of weights, if there is one.
        group: The column of groups, if there is one.
        split: The column that says "train" or "validation", if there is one.
        subject: The column of whose data it is, if there is one.
        delimiter: What separates cells, where the ending does not say.
        label_separator: What separates several labels in a cell, for a multi-label model.
        value: The column of the numbers to answer with, for a regression: labels are not looked at.
        second: The column of second texts, where inputs are pairs.

    Raises:
        DataError: The file cannot be read as such; the message names the line and the column.
    """
    columns = Columns(
        input=input,
        label=label,
        id=id,
        weight=weight,
        group=group,
        split=split,
        subject=subject,
        path=files,
        separator=label_separator,
        value=value,
        second=second,
    )
    if Path(path).is_dir():
        columns = FOLDER_COLUMNS
    with open_data(path, delimiter=delimiter) as data:
        for row in data.rows():
            yield example_of(data, row, columns)


def open_data(
    path: str | Path,
    *,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
    source: BinaryIO | None = None,
) -> Data:
    """Opens a data file, or a folder tree. Where there is a `source`, the file is read from there."""
    if Path(path).is_dir():
        return FolderTree(path)
    return DataFile(path, delimiter=delimiter, encoding=encoding, source=source)


def example_of(data: Origin, row: Row, columns: Columns) -> Example:
    """The example that a row holds.

    Raises:
        DataError: A column is missing, or a value is not of its kind.
    """
    cells = _Cells(data.name, row)
    return Example(
        input=_input(data, cells, columns),
        **_target(cells, columns),
        id=cells.word(columns.id) if columns.id else "",
        weight=cells.number(columns.weight) if columns.weight else None,
        split=cells.one_of(columns.split, ("", "train", "validation")) if columns.split else "",
        group=cells.word(columns.group) if columns.group else "",
        subject=cells.word(columns.subject) if columns.subject else "",
    )


def _input(data: Origin, cells: _Cells, columns: Columns) -> Input:
    text = cells.text(columns.input)
    if columns.path:
        return data.folder / text
    return TextPair(text, cells.text(columns.second)) if columns.second else text


def _target(cells: _Cells, columns: Columns) -> dict[str, Any]:
    """The target's field. JSON lines may hold a list of labels, or an object of probabilities, as they are."""
    if columns.value:
        return {"value": cells.number(columns.value)}
    found = cells.labels(columns.label, columns.separator)
    if isinstance(found, str):
        return {"label": found}
    return {"labels": found} if isinstance(found, tuple) else {"distribution": found}


Data: TypeAlias = DataFile | FolderTree


@dataclass(frozen=True, slots=True)
class _Cells:
    """The values of one row, asked for by column."""

    name: str
    row: Row

    def text(self, column: str) -> str:
        value = self._value(column)
        if not isinstance(value, str):
            raise self._wrong(column, f"{value!r:.60} is not a text")
        return value

    def word(self, column: str) -> str:
        # Labels and ids are often numbers in JSON; a fraction or a list is a mistake.
        value = self._value(column)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong(column, f"{value!r:.60} is not a text")
        return str(value)

    def labels(self, column: str, separator: str) -> str | tuple[str, ...] | dict[str, float]:
        value = self._value(column)
        if isinstance(value, list) and all(isinstance(it, str) for it in value):
            return tuple(value)
        if isinstance(value, dict) and all(isinstance(it, int | float) for it in value.values()):
            return {label: float(probability) for label, probability in value.items()}
        if not separator:
            return self.word(column)
        return tuple(filter(None, (it.strip() for it in self.word(column).split(separator))))

    def number(self, column: str) -> float | None:
        value = self._value(column)
        if value in (None, ""):
            return None
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self._wrong(column, f"{value!r:.60} is not a number") from None

    def one_of(self, column: str, choices: tuple[str, ...]) -> str:
        value = str(self._value(column) or "").strip().lower()
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices if choice)
            raise self._wrong(column, f"{value!r:.60} is none of {expected}, and not empty")
        return value

    def _value(self, column: str) -> Any:
        try:
            return self.row.values[column]
        except KeyError:
            raise DataError(
                f"{self.name}, line {self.row.line}: no column {column!r}; "
                f"the columns are: {_names(self.row.values)}"
            ) from None

    def _wrong(self, column: str, what: str) -> DataError:
        return DataError(f"{self.name}, line {self.row.line}, column {column!r}: {what}")


def _format_of(path: str | Path, delimiter: str | None) -> str:
    if str(path) == "-":
        return "jsonl"
    suffix = Path(str(path).lower().removesuffix(".gz")).suffix
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    if delimiter is not None:
        return "csv"
    raise DataError(
        f"{path}: the ending {suffix!r} does not say the format; use one of {', '.join(_FORMATS)} "
        "(also with .gz), or give the delimiter"
    )


def _names(columns: Iterable[str]) -> str:
    return ", ".join(columns) or "(none)"
