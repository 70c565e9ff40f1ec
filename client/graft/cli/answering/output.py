"""Where answers go: to which file, in which format, beside the columns of the input."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from graft._data_files.answers.parquet import NotedRows
from graft._data_files.answers.writers import AnswerWriter, JsonWriter, Layout, TableWriter
from graft._data_files.columns import DataError
from graft._data_files.content import ENDINGS
from graft._data_files.formats.parquet_writing import require_parquet
from graft._data_files.formats.whole import FileForm

FORMATS: Final = ("csv", "tsv", "jsonl", "json", "parquet")
"""What answers are written as."""
_PACKED: Final[dict[str, Callable[..., Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True, slots=True)
class Output:
    """Where answers go."""

    path: Path | None
    """The file; None: standard output."""
    output_format: str
    """One of `FORMATS`."""
    packed: str = ""
    """The ending by which the file is compressed."""

    @property
    def name(self) -> str:
        """What people call it."""
        return "standard output" if self.path is None else str(self.path)


def output_of(name: str | None, asked: str, form: FileForm) -> Output:
    """Chooses the format: the one that is asked for, or that the name's ending says, or the input's.

    Raises:
        DataError: Files of that kind are not written.
    """
    path = None if name in (None, "-") else Path(str(name))
    plain, packed = str(path or "").lower(), ""
    for ending in _PACKED:
        if plain.endswith(ending):
            plain, packed = plain.removesuffix(ending), ending
    known = asked or ENDINGS.get(Path(plain).suffix, "")
    if known not in ("", *FORMATS):
        raise DataError(
            f"{name}: Excel files are read, but not written; end the name with .csv, .tsv, .jsonl or .parquet"
        )
    if not known:
        known = form.data_format if form.data_format in FORMATS else "csv"
    if known == "parquet" and path is None:
        known = "jsonl"
    if known == "parquet":
        require_parquet(str(path))
        if packed:
            raise DataError(f"{path}: Parquet files are compressed by themselves; leave {packed} away")
    return Output(path, known, packed)


def input_names(form: FileForm, found: Sequence[str], output_format: str) -> tuple[str, ...]:
    """The names of the input's columns in the output: as they are in a table; in JSON each another.

    Args:
        form: The input.
        found: The keys of its objects, where it is JSON.
        output_format: One of `FORMATS`.
    """
    if not form.names:
        return tuple(found)
    if output_format in ("csv", "tsv"):
        return form.names
    names: dict[str, None] = {}
    for at, name in enumerate(form.names, start=1):
        wanted = name or f"column_{at}"
        count, free = 1, wanted
        while free in names or (free != name and free in form.names):
            count += 1
            free = f"{wanted}_{count}"
        names[free] = None
    return tuple(names)


def not_in(form: FileForm, texts: Sequence[str]) -> str:
    """The first of these texts that the encoding of a table cannot write; "" if it can write all."""
    for text in texts:
        try:
            text.encode(form.text.encoding)
        except UnicodeEncodeError:
            return text
    return ""


def writer_to(out: BinaryIO, output: Output, layout: Layout, *, begun: bool) -> AnswerWriter:
    """The writer of a format.

    Args:
        out: Where to.
        output: What is written.
        layout: The columns.
        begun: Whether rows were written already.
    """
    if output.output_format == "parquet":
        return NotedRows(out, layout)
    if output.output_format in ("csv", "tsv"):
        return TableWriter(out, layout, output.output_format)
    return JsonWriter(out, layout, listed=output.output_format == "json", begun=begun)


def packed(part: Path, ending: str) -> Path:
    """A compressed copy of a file, beside it."""
    made = part.with_name(f"{part.name}{ending}")
    with part.open("rb") as source, _PACKED[ending](made, "wb") as target:
        shutil.copyfileobj(source, target)
    return made
