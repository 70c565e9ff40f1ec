"""The columns of a data file, its rows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class DataError(Exception):
    """A data file is malformed; the message names the file, the line and the column."""


class RowError(DataError):
    """One row cannot be used; the file's other rows can.

    Attributes:
        line: The line on which the row begins, from 1.
        reason: What is wrong with the row, and what would be right.
    """

    def __init__(self, name: str, line: int, reason: str, *, column: str | None = None) -> None:
        """Says what is wrong with the row on `line` of the file `name`, or with its cell of `column`."""
        place = f"{name}, line {line}"
        super().__init__(f"{place}: {reason}" if column is None else f"{place}, column {column!r}: {reason}")
        self.line = line
        self.reason = reason if column is None else f"column {column!r}: {reason}"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file."""

    input: str
    """The input to classify."""
    label: str
    """The label of the input."""
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
    path: bool = False
    """Whether `input` names files of images or clips, relative to the data file's folder, instead of holding texts."""
    separator: str = ""
    """The separator of several labels in a cell of `label`; empty: a cell is one label."""
    value: str | None = None
    """The number to predict, in place of a label."""
    second: str | None = None
    """The second text, if `input` is the first of a pair."""
    task: str = ""
    """ "single_label", "multi_label", "regression", or "" if it is not known."""
    lists: bool = False
    """Whether cells of `label` that look like lists are lists; they are in any case where there is a separator."""
    codes: bool = False
    """Whether labels such as "2.0" are codes that became fractions: "2"."""
    merge: Callable[[str], str] | None = None
    """Gives similar labels one name."""

    @property
    def target(self) -> str:
        """The column of what an example is answered with."""
        return self.value or self.label

    @property
    def named(self) -> frozenset[str]:
        """All columns that some row must have."""
        extra = (self.id, self.weight, self.group, self.split, self.subject, self.second)
        return frozenset({self.input, self.target, *filter(None, extra)})


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

    def rows(self) -> Iterator[Row | RowError]:
        """The rows, as they are read; in place of a row that cannot be read, what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    line: int
    """The line on which it begins, from 1."""
    values: Mapping[str, Any]
    """Its values by column."""
    sparse: bool = False
    """Whether a column that it lacks is a missing value: in JSON, not in tables."""


def no_column(name: str, column: str, columns: Iterable[str]) -> DataError:
    """The error for a column that no row of a file has."""
    return DataError(f"{name}: no column {column!r}; the columns are: {', '.join(columns) or '(none)'}")
