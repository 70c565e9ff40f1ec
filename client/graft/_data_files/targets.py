"""What an example of a data file should be answered with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns
from graft._records.inputs.list_cells import list_of
from graft._records.inputs.targets import distribution_of, is_collection, label_of, labels_of

CODE: Final = re.compile(r"([+-]?\d+)\.0+")
"""A whole number that was written as a fraction."""

_ONES: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def target_of(cells: Cells, columns: Columns) -> dict[str, Any]:
    """The target's field; none if it is missing.

    Raises:
        RowError: It is no target of the task.
    """
    if columns.value or columns.task == "regression":
        return {"value": cells.number(columns.target)}
    if columns.labels_from:
        return _indicated(cells, columns.labels_from)
    if not columns.label:
        return {}
    value = cells.given(columns.label)
    try:
        return _of_task(_fields(value, columns), columns)
    except (TypeError, ValueError) as error:
        raise cells.wrong(columns.label, str(error)) from None


def _indicated(cells: Cells, columns: tuple[str, ...]) -> dict[str, Any]:
    if all(cells.given(it) is None for it in columns):
        return {}
    return {"labels": tuple(it for it in columns if _applies(cells, it))}


def _applies(cells: Cells, column: str) -> bool:
    """Whether the label that a column stands for applies."""
    value = cells.value(column)
    found = _ONES.get(str(value).strip().lower())
    if found is None:
        raise cells.wrong(
            column, f"{'' if value is None else value!r:.60} is neither 1 (the label applies) nor 0"
        )
    return found


def labels_in(cell: object, columns: Columns) -> tuple[str, ...]:
    """The labels that a cell names, before they are merged; none if it is missing or no target.

    A number of JSON that may be a value names none.
    """
    try:
        found = _fields(cell, columns)
    except (TypeError, ValueError):
        return ()
    if "label" in found:
        return (found["label"],) if isinstance(found["label"], str) else ()
    return tuple(found.get("labels") or found.get("distribution") or ())


def _fields(value: Any, columns: Columns) -> dict[str, Any]:
    """JSON holds a list of labels, an object of probabilities, or a number, as it is."""
    if isinstance(value, str):
        value = _of_text(value, columns)
        if isinstance(value, str):
            return {"label": label_of(value)}
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {"distribution": distribution_of(value)}
    if is_collection(value):
        return {"labels": labels_of(map(label_of, value) if columns.numbers else value)}
    if isinstance(value, float) and not columns.task:
        return {"label": value}  # the numbers of all rows tell whether they are labels
    return {"label": label_of(value)}


def _of_text(text: str, columns: Columns) -> Any:
    if columns.lists or columns.separator:
        found = list_of(text)
        if found is not None:
            return found
    if columns.separator:
        # A cell of separators alone names nothing.
        return [part for it in text.split(columns.separator) if (part := it.strip())] or None
    code = CODE.fullmatch(text.strip()) if columns.codes else None
    return code[1] if code else text


def _of_task(found: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The target as the task has it, with similar labels merged."""
    if columns.task == "multi_label" and found.get("label") is not None:
        found = {"labels": (found["label"],)}
    if columns.task == "single_label" and found.get("labels") is not None:
        labels = found["labels"]
        if len(labels) > 1:
            raise ValueError(f"{len(labels)} labels, {', '.join(labels)!r:.60}, but the task is single-label")
        found = {"label": labels[0]} if labels else {}
    if columns.merge is None:
        return found
    return {field: _merged(target, columns.merge) for field, target in found.items()}


def _merged(target: Any, merge: Callable[[str], str]) -> Any:
    if isinstance(target, tuple):
        return tuple(dict.fromkeys(map(merge, target)))
    if isinstance(target, Mapping):
        shares: dict[str, float] = {}
        for label, share in target.items():
            name = merge(label)
            shares[name] = shares.get(name, 0.0) + share
        return shares
    return merge(target) if isinstance(target, str) else target
