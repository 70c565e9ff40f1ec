"""The example that a row of a data file stands for."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, Origin, Row
from graft._data_files.targets import target_of
from graft._records.inputs.examples import Example, Input, TextPair
from graft._records.inputs.media import media_message, unusable
from graft._records.inputs.shapes import features_of, is_array

_ORIGIN_BYTES: Final = 256
"""The most of an example's origin that a server takes."""
_HEAD_BYTES: Final = 64
"""Where a file's kind is."""


def example_of(
    data: Origin,
    row: Row,
    columns: Columns,
    *,
    opened: bool = True,
    given: Input | None = None,
    origin: str = "",
) -> Example:
    """Returns the example of a row.

    Args:
        data: The source of the row.
        row: The row.
        columns: Which columns hold what.
        opened: Whether a file that the row names is looked into; if not, it is read when it is sent.
        given: The input, where it is known.
        origin: Where the row came from, for people; "" where the file's name and the line say it.

    Raises:
        RowError: A column is missing, a value has the wrong type, or a file is no image or clip.
    """
    cells = Cells(data.name, row, columns.decimal)
    return Example(
        input=input_of(data, row, columns, opened=opened) if given is None else given,
        **target_of(cells, columns),
        id=cells.attribute(columns.id),
        weight=cells.number(columns.weight) if columns.weight else None,
        split=cells.one_of(columns.split, ("", "train", "validation")) if columns.split else "",
        group=cells.attribute(columns.group),
        subject=cells.attribute(columns.subject),
        origin=_ended(origin) if origin else _origin(data, row, columns),
        confirmed=columns.confirmed is not None and cells.flag(columns.confirmed),
    )


def _origin(data: Origin, row: Row, columns: Columns) -> str:
    """Where a row came from, for people: the picture or clip that it names, or the file and the line."""
    named = row.values.get(columns.input) if columns.path else None
    if isinstance(named, str) and named:
        return _ended(named)
    return _ended(f"{Path(data.name).name}:{row.line}")


def _ended(text: str) -> str:
    """The end of a text, if it is longer than a server takes: names differ at their ends."""
    content = text.encode(errors="replace")
    if len(content) <= _ORIGIN_BYTES:
        return content.decode()
    return "…" + content[3 - _ORIGIN_BYTES :].decode(errors="ignore")


def input_of(data: Origin, row: Row, columns: Columns, *, opened: bool = True) -> Input:
    """Returns the input of a row.

    Raises:
        RowError: It is missing, or is none; or a file is no image or clip.
    """
    cells = Cells(data.name, row, columns.decimal)
    value = cells.value(columns.input)
    if not isinstance(value, str) and (found := _in_memory(cells, columns, value)) is not None:
        return found
    name = _named(value)
    if name is None:
        name = cells.text(columns.input)
        if not columns.path:
            return TextPair(name, cells.text(columns.second)) if columns.second else name
    return _file(data, cells, columns, name, opened=opened)


def _named(value: Any) -> str | None:
    """The name of the file that a value stands for, if it is no text."""
    if isinstance(value, dict) and value.get("path") is not None and "bytes" in value:
        return str(value["path"])
    return os.fspath(value) if isinstance(value, os.PathLike) else None


def _in_memory(cells: Cells, columns: Columns, value: Any) -> Input | None:
    """The input that a value is by itself: content, a pair, features, a picture of Pillow; None for others."""
    if isinstance(value, dict) and {"bytes", "path"} <= {*value}:
        # A picture or a clip, as the data sets of Hugging Face keep it in Parquet.
        if value["bytes"] is None and value["path"] is None:
            raise cells.wrong(columns.input, "there is neither the content nor the path of a file")
        value = value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return _content(cells, columns, bytes(value))
    if isinstance(value, TextPair):
        return value
    if is_array(value) and value.ndim:
        try:
            features_of(value)
        except (TypeError, ValueError) as error:
            raise cells.wrong(columns.input, str(error)) from None
        return value
    if any(it.__module__ == "PIL.Image" for it in type(value).__mro__):
        content = io.BytesIO()
        value.save(content, "PNG")
        return content.getvalue()
    return None


def _content(cells: Cells, columns: Columns, content: bytes) -> bytes:
    try:
        media_message(content[:_HEAD_BYTES])
    except ValueError as error:
        raise cells.wrong(columns.input, str(error)) from None
    return content


def _file(data: Origin, cells: Cells, columns: Columns, name: str, *, opened: bool) -> Path:
    path = data.folder / name
    if opened and (reason := unusable(path)):
        raise cells.wrong(columns.input, f"{name}: {reason}")
    return path
