"""CSV, TSV and JSON lines, read a row at a time: files may be larger than memory.

The name's ending, before ".gz" if present, decides the format; "-" is standard input, as JSON lines.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TextIO

from graft._data_files.columns import DataError, Row, RowError

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
        """The bytes of the file on disk that have been read; 0 if unknown."""
        try:
            return self._raw.tell() if self.size and not self._raw.closed else 0
        except OSError:
            return 0

    def rows(self) -> Iterator[Row | RowError]:
        """The file's rows, as they are read; in place of a row that cannot be read, what is wrong with it.

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
        # The csv module reads line ends inside quoted cells.
        return io.TextIOWrapper(
            stream, encoding=self._encoding, newline=None if self._format == "jsonl" else ""
        )

    def _table_rows(self) -> Iterator[Row | RowError]:
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
                    yield RowError(
                        self.name,
                        begins,
                        f"{len(cells)} cells, but the header has {len(header)} "
                        f"columns ({', '.join(header)}); quote cells that contain {self._delimiter!r}",
                    )
                    continue
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

    def _json_rows(self) -> Iterator[Row | RowError]:
        for line, text in enumerate(self._text, start=1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except json.JSONDecodeError as error:
                wrong = f"not JSON ({error.msg}, at character {error.colno}); each line must be one object"
                yield RowError(self.name, line, wrong)
                continue
            if isinstance(values, dict):
                yield Row(line, values, sparse=True)
            else:
                yield RowError(self.name, line, f"{text.strip()!r:.60} is not a JSON object")


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
