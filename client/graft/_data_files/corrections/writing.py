"""Writes stored examples as CSV or JSON lines, in the form that `graft adapt` knows again and reads back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from graft._records.evaluation.probable_errors import ProbableError
from graft._records.inputs.examples import TextPair
from graft._records.inputs.label_cells import cell_of
from graft._records.stored_examples import StoredExample

CONFIRMED: Final = "confirmed"
DELETE: Final = "delete"
VERSION: Final = "version"
SUGGESTED: Final = "suggested"
YES: Final = "yes"


@dataclass(frozen=True, slots=True)
class Listed:
    """A stored example in a list, with what is suggested of its label."""

    example: StoredExample
    error: ProbableError | None = None
    """What makes its label doubtful, where that is listed."""
    delete: bool = False
    """Whether it is marked to be deleted."""


def written(listed: Iterable[Listed], file: TextIO, *, version: int, as_json: bool) -> int:
    """Writes examples, one a row, and returns how many there were.

    The columns are those that an example of the list has: a text, or two, where inputs are texts; what is suggested,
    where the list is of probable errors; group, subject, weight and split where the list is of all.

    Args:
        listed: The examples.
        file: Where they go.
        version: The version whose examples they are, so that an edit is told from a change by somebody else.
        as_json: Whether they are written as JSON lines; else as CSV, with line ends as RFC 4180 has them.
    """
    rows = [_row(it, version) for it in listed]
    columns = _columns(rows)
    if as_json:
        for row in rows:
            kept = {name: row.get(name) for name in columns}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    else:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name, "")) for name in columns] for row in rows)
    return len(rows)


_COLUMNS: Final = (
    *("id", "text", "second", "label", "value", SUGGESTED, "probability", "suggested_probability"),
    *(CONFIRMED, DELETE, "split", "group", "subject", "weight", "origin", VERSION),
)
_ALWAYS: Final = frozenset({"id", CONFIRMED, DELETE, "origin", VERSION})


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns, in order: what no row has is left out."""
    had = {name for row in rows for name in row}
    targets = {"value"} if "value" in had else {"label"}
    return [it for it in _COLUMNS if it in had | _ALWAYS | targets]


def _row(listed: Listed, version: int) -> dict[str, Any]:
    example, error = listed.example, listed.error
    row: dict[str, Any] = {"id": example.id, **_input(example), **target(example)}
    if error is None:
        row |= {"split": example.split, "group": example.group, "subject": example.subject}
        row["weight"] = example.weight
    else:
        row[SUGGESTED] = error.suggested if isinstance(error.suggested, str) else list(error.suggested)
        row["probability"] = round(error.probability, 4)
        row["suggested_probability"] = round(error.suggested_probability, 4)
    confirmed = {CONFIRMED: YES if example.confirmed else "", DELETE: YES if listed.delete else ""}
    return row | confirmed | {"origin": example.origin, VERSION: version}


def _input(example: StoredExample) -> dict[str, str]:
    match example.input:
        case str():
            return {"text": example.input}
        case TextPair():
            return {"text": example.input.first, "second": example.input.second}
        case _:
            return {}


def target(example: StoredExample) -> dict[str, Any]:
    """The target, as a row has it; none of an unlabelled example."""
    if example.labels is not None:
        return {"label": list(example.labels)}
    if example.distribution is not None:
        return {"label": dict(example.distribution)}
    if example.value is not None:
        return {"value": example.value}
    return {} if example.label is None else {"label": example.label}


def _cell(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, list):
        return cell_of(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
