"""The columns of a data file, its rows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class DataError(Exception):
    """A data file is malformed; the message names the file, the line and the column."""


class RowError(DataError):
    """One row cannot be used; the file's other rows can.

    Attributes:
        line: The line on which the row begins, from 1; its number where rows are no lines.
        place: Where it is: "line 5", "row 5", or the path of a file within a folder.
        reason: What is wrong with the row, and what would be right.
    """

    def __init__(
        self,
        name: str,
        line: int,
        reason: str,
        *,
        column: str | None = None,
        unit: str = "line",
        path: str = "",
    ) -> None:
        """Says what is wrong with a row, or with its cell of `column`.

        Args:
            name: The file or folder.
            line: The line, or its number where rows are no lines.
            reason: What is wrong.
            column: The cell's column.
            unit: What `line` counts.
            path: The file within the folder `name`.
        """
        self.place = path or f"{unit} {line}"
        place = f"{name}/{path}" if path else f"{name}, {self.place}"
        super().__init__(f"{place}: {reason}" if column is None else f"{place}, column {column!r}: {reason}")
        self.line = line
        self.reason = reason if column is None else f"column {column!r}: {reason}"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file."""

    input: str
    """The input to classify."""
    label: str
    """The label of the input; "" where only inputs are read."""
    id: str | None = None
    """The example's id."""
    weight: str | None = None
    """The example's weight."""
    group: str | None = None
    """The group that cross-validation keeps together."""
    split: str | None = None
    """ "train" or "validation"."""
    subject: str | None = None
    """The person whose data it is."""
    confirmed: str | None = None
    """Whether a person looked at the target and kept it."""
    path: bool = False
    """Whether `input` names files of images or clips, relative to the data file's folder, instead of holding texts."""
    separator: str = ""
    """The separator of several labels in a cell of `label`; empty: a cell is one label."""
    value: str | None = None
    """The number to predict, in place of a label."""
    second: str | None = None
    """The second text, if `input` is the first of a pair."""
    labels_from: tuple[str, ...] = ()
    """Columns each of which is a label that applies where the cell is 1, in place of `label`."""
    decimal: str = ""
    """The character before the decimals of numbers, "." or ","; empty: a point, and a comma is asked about."""
    task: str = ""
    """ "single_label", "multi_label", "regression", or "" if it is not known."""
    lists: bool = False
    """Whether cells of `label` that look like lists are lists; they are in any case where there is a separator."""
    numbers: bool = False
    """Whether the zeros and ones of a list are names of labels, as other numbers in lists are."""
    codes: bool = False
    """Whether labels such as "2.0" are codes that became fractions: "2"."""
    merge: Callable[[str], str] | None = None
    """Gives similar labels one name."""

    @property
    def target(self) -> str:
        """The column of what an example is answered with, unless `labels_from` are."""
        return self.value or self.label

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without which a table is not the one that is meant."""
        return (self.input, *filter(None, self.labels_from or (self.target,)))

    @property
    def named(self) -> dict[str, str]:
        """By their options, the columns that some row must have."""
        targets = {"labels-from": self.labels_from[0]} if self.labels_from else {}
        targets = targets or ({"value": self.value} if self.value else {"label": self.label})
        others = {
            it: getattr(self, it)
            for it in ("second", "id", "weight", "group", "split", "subject", "confirmed")
        }
        found = {**targets, "path" if self.path else "input": self.input, **others}
        return {option: column for option, column in found.items() if column}


class Origin(Protocol):
    """The source of rows."""

    @property
    def name(self) -> str:
        """The name for messages."""

    @property
    def folder(self) -> Path:
        """Where names of files begin."""


class Rows(Origin, Protocol):
    """A source of rows."""

    def fitted(self, columns: Columns) -> Columns:
        """The columns by the names that the source has for them; DataError if it has no such column."""

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, as they are read; in place of a row that cannot be read, what is wrong with it."""


class Row(NamedTuple):
    """One row of a file."""

    line: int
    """The line on which it begins, from 1; its number where rows are no lines."""
    values: Mapping[str, Any]
    """Its values by column."""
    sparse: bool = False
    """Whether a column that it lacks is a missing value: in JSON, not in tables."""
    unit: str = "line"
    """What `line` counts: "line" or "row"."""
