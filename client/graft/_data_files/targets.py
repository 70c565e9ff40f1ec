"""What an example of a data file should be answered with."""

from __future__ import annotations

from typing import Any

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns


def target_of(cells: Cells, columns: Columns) -> dict[str, Any]:
    """The target's field. JSON lines may hold a list of labels, or an object of probabilities, as they are."""
    if columns.value:
        return {"value": cells.number(columns.value)}
    found = _labels(cells, columns.label, columns.separator)
    if isinstance(found, str):
        return {"label": found}
    return {"labels": found} if isinstance(found, tuple) else {"distribution": found}


def _labels(cells: Cells, column: str, separator: str) -> str | tuple[str, ...] | dict[str, float]:
    value = cells.value(column)
    if isinstance(value, list) and all(isinstance(it, str) for it in value):
        return tuple(value)
    if isinstance(value, dict) and all(isinstance(it, int | float) for it in value.values()):
        return {label: float(probability) for label, probability in value.items()}
    if not separator:
        return cells.word(column)
    return tuple(filter(None, (it.strip() for it in cells.word(column).split(separator))))
