"""The columns of a data file, its rows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
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


class Origin(Protocol):
    """The source of rows."""

    @property
    def name(self) -> str:
        """The name for messages."""

    @property
    def folder(self) -> Path:
        """Where names of files begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    line: int
    """The line on which it begins, from 1."""
    values: Mapping[str, Any]
    """Its values by column."""
