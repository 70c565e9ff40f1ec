"""What an example of a data file should be answered with."""

from __future__ import annotations

from typing import Any, Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns

_ONES: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def target_of(cells: Cells, columns: Columns) -> dict[str, Any]:
    """The target's field. JSON lines may hold a list of labels, or an object of probabilities, as they are."""
    if columns.value:
        return {"value": cells.number(columns.value)}
    if columns.labels_from:
        return {"labels": tuple(it for it in columns.labels_from if _applies(cells, it))}
    found = _labels(cells, columns.label, columns.separator)
    if isinstance(found, str):
        return {"label": found}
    return {"labels": found} if isinstance(found, tuple) else {"distribution": found}


def _applies(cells: Cells, column: str) -> bool:
    """Whether the label that a column stands for applies."""
    value = cells.value(column)
    found = _ONES.get(str(value).strip().lower())
    if found is None:
        raise cells.wrong(
            column, f"{'' if value is None else value!r:.60} is neither 1 (the label applies) nor 0"
        )
    return found


def _labels(cells: Cells, column: str, separator: str) -> str | tuple[str, ...] | dict[str, float]:
    value = cells.value(column)
    if isinstance(value, list) and all(isinstance(it, str) for it in value):
        return tuple(value)
    if isinstance(value, dict) and all(isinstance(it, int | float) for it in value.values()):
        return {label: float(probability) for label, probability in value.items()}
    if not separator:
        return cells.word(column)
    return tuple(filter(None, (it.strip() for it in cells.word(column).split(separator))))
