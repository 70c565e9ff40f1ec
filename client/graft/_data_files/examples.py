"""The example that a row of a data file stands for."""

from __future__ import annotations

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, Origin, Row
from graft._data_files.targets import target_of
from graft._records.examples import Example, Input, TextPair


def example_of(data: Origin, row: Row, columns: Columns) -> Example:
    """Returns the example of a row.

    Raises:
        RowError: A column is missing, or a value has the wrong type.
    """
    cells = Cells(data.name, row)
    return Example(
        input=_input(data, cells, columns),
        **target_of(cells, columns),
        id=cells.word(columns.id) if columns.id else "",
        weight=cells.number(columns.weight) if columns.weight else None,
        split=cells.one_of(columns.split, ("", "train", "validation")) if columns.split else "",
        group=cells.word(columns.group) if columns.group else "",
        subject=cells.word(columns.subject) if columns.subject else "",
    )


def _input(data: Origin, cells: Cells, columns: Columns) -> Input:
    text = cells.text(columns.input)
    if columns.path:
        return data.folder / text
    return TextPair(text, cells.text(columns.second)) if columns.second else text
