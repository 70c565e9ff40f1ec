"""The example that a row of a data file stands for."""

from __future__ import annotations

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, Origin, Row
from graft._data_files.targets import target_of
from graft._records.examples import Example, Input, TextPair
from graft._records.media import unusable


def example_of(data: Origin, row: Row, columns: Columns, *, opened: bool = True) -> Example:
    """Returns the example of a row.

    Args:
        data: The source of the row.
        row: The row.
        columns: Which columns hold what.
        opened: Whether a file that the row names is looked into; if not, it is read when it is sent.

    Raises:
        RowError: A column is missing, a value has the wrong type, or a file is no image or clip.
    """
    cells = Cells(data.name, row, columns.decimal)
    return Example(
        input=_input(data, cells, columns, opened=opened),
        **target_of(cells, columns),
        id=cells.attribute(columns.id),
        weight=cells.number(columns.weight) if columns.weight else None,
        split=cells.one_of(columns.split, ("", "train", "validation")) if columns.split else "",
        group=cells.attribute(columns.group),
        subject=cells.attribute(columns.subject),
    )


def _input(data: Origin, cells: Cells, columns: Columns, *, opened: bool) -> Input:
    value = cells.value(columns.input)
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and {"bytes", "path"} <= {*value}:
        # A picture or a clip, as the data sets of Hugging Face keep it in Parquet.
        if value["bytes"] is None and value["path"] is None:
            raise cells.wrong(columns.input, "there is neither the content nor the path of a file")
        content: bytes | None = value["bytes"]
        return data.folder / str(value["path"]) if content is None else content
    text = cells.text(columns.input)
    if columns.path:
        path = data.folder / text
        if opened and (reason := unusable(path)):
            raise cells.wrong(columns.input, f"{text}: {reason}")
        return path
    return TextPair(text, cells.text(columns.second)) if columns.second else text
