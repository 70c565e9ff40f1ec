"""The rows of a data file with all that stands in them, for files that are written again with more columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graft._data_files.columns import Row, RowError
from graft._data_files.formats.records import Dialect


class WholeRow(NamedTuple):
    """A row, or what stands between rows."""

    row: Row | RowError | None
    """The row, or what is wrong with it; None: an empty line, or the header."""
    cells: Sequence[Any] = ()
    """The cells in the order of the columns, as far as they can be told; in JSON the object's values."""
    text: str = ""
    """The text of its lines, with their ends; in JSON the text of the object. Empty where the file is no text."""
    is_plain: bool = True
    """Whether `text` is how a table writes these cells, and cells may be written behind it."""
    is_header: bool = False
    """Whether it is the header, with what stands before it, or the header once more where files were joined."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How a text file is written."""

    encoding: str = "utf-8"
    """The encoding, of which a byte order mark is no part."""
    mark: bytes = b""
    """The byte order mark."""
    dialect: Dialect | None = None
    """How the cells of a table are written."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """What a data file is, as far as another is to be written like it."""

    data_format: str
    """"csv", "tsv", "jsonl", "json", "parquet", "xlsx", "lines" (each line is a text) or "folder"."""
    names: tuple[str, ...] = ()
    """The names of its columns, in order; "" for one without a name. Empty for JSON."""
    text: TextForm = TextForm()
    """How its text is written."""
    has_header: bool = True
    """Whether a table's first row names the columns."""
