"""Which columns of a table hold what, as a caller of the client names them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias, TypedDict

from graft._data_files.columns import Columns
from graft._records.inputs.examples import ChangeLike, Input


class TableColumns(TypedDict, total=False):
    """The columns of a table, by name: a data frame, an Arrow table, a split of a data set, rows as dicts, a data file.

    Names that differ only in case, spaces and the like are found too.
    """

    input: Any
    """The column of what is to be classified; "text" where nothing is said."""
    path: Any
    """In place of `input`: the column of the names of image or audio files."""
    second: Any
    """The column of second texts, where inputs are pairs."""
    label: Any
    """The column of labels; "label" where nothing is said."""
    labels_from: Sequence[Any]
    """In place of `label`: columns each of which is a label that applies where the cell is 1 or true."""
    value: Any
    """In place of `label`: the column of the numbers to answer with, for a regression."""
    label_separator: str
    """What separates several labels in a cell, for a multi-label model."""
    label_cells: str
    """"read" reads cells that look like lists as lists of labels, "keep" makes a label of each; what most cells tell
    where nothing is said."""
    id: Any
    """The column of ids."""
    weight: Any
    """The column of weights."""
    group: Any
    """The column of what cross-validation keeps together."""
    split: Any
    """The column that says "train" or "validation"."""
    subject: Any
    """The column of whose data it is."""
    confirmed: Any
    """The column that says whether a person looked at the label and kept it."""
    decimal: str
    """What numbers in texts have before their decimals, "." or ","."""


class InputColumns(TypedDict, total=False):
    """The columns of a table of inputs; see `TableColumns`."""

    input: Any
    """The column of inputs; "text" where nothing is said."""
    path: Any
    """In place of `input`: the column of the names of image or audio files."""
    second: Any
    """The column of second texts, where inputs are pairs."""


class ArrowStream(Protocol):
    """A table that any library of Arrow reads: a data frame of pandas or polars, an Arrow table, a query's result."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Gives its record batches."""


Examples: TypeAlias = (
    Iterable[ChangeLike] | Iterable[Mapping[str, Any]] | ArrowStream | str | os.PathLike[str]
)
"""Pairs (input, label), `Example`s and `Delete`s; or a table: a data frame, an Arrow table, a split of a data set of
Hugging Face's `datasets`, a structured NumPy array, rows as mappings, or the path of a data file or of a folder."""
Inputs: TypeAlias = Iterable[Input] | Iterable[Mapping[str, Any]] | ArrowStream
"""Inputs; or a table of them, as for `Examples`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller says of a table."""

    columns: Columns
    """Its columns."""
    label_cells: str
    """How cells of labels are read: "read", "keep" or "": what most cells tell."""
    named: bool
    """Whether the caller named anything."""


_OTHERS: Final = ("id", "weight", "group", "split", "subject", "confirmed", "value", "second")
_WORDS: Final = ("label_separator", "label_cells", "decimal")
"""Options that are no columns."""
_ARGUMENT: Final = re.compile(
    r"--(input|path|second|labels-from|label-separator|label-cells|label|value|id|weight|group|split|subject|confirmed"
    r"|decimal|task|encoding|quote|delimiter|columns|sheet|format)"
    r"(?: ('[^']*'|[^\s-]\S*?(?=[;.:,)]?(?:\s|$))))?(?![\w-])"
)
"""An option of the command line in a message, with its value."""


_OF_FILES: Final = frozenset({"encoding", "quote", "delimiter", "columns", "sheet", "data_format"})
"""How a file is written, which `graft.read_examples` is told."""


def asked_of(
    options: Mapping[str, Any], method: str, allowed: Iterable[str] = TableColumns.__annotations__
) -> Asked:
    """What a caller says of a table.

    Args:
        options: The named arguments that are for a table.
        method: The method that has them, for messages.
        allowed: The names that the method takes.

    Raises:
        TypeError: There is no such argument, or it names no column.
        ValueError: Arguments exclude each other, or one has a value that it cannot have.
    """
    known = list(allowed)
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}{meant}")
        _check(name, value)
    given = {name: value for name, value in options.items() if value is not None}
    if "path" in given and "input" in given:
        raise ValueError("give input (a column of texts) or path (a column of names of files), not both")
    targets = [it for it in ("label", "labels_from", "value") if it in given]
    if len(targets) > 1:
        raise ValueError(f"give one of label, labels_from and value, not {' and '.join(targets)}")
    if given.get("label_cells", "") not in ("", "read", "keep"):
        raise ValueError(f"label_cells is {given['label_cells']!r}; it must be 'read', 'keep' or empty")
    if given.get("decimal", "") not in ("", ".", ","):
        raise ValueError(f"decimal is {given['decimal']!r}; it must be '.', ',' or empty")
    columns = Columns(
        input=name_of(given.get("path", given.get("input", "text"))),
        label=name_of(given.get("label", "label")),
        path="path" in given,
        separator=given.get("label_separator", ""),
        decimal=given.get("decimal", ""),
        labels_from=tuple(name_of(it) for it in given.get("labels_from", ())),
    )
    others: dict[str, Any] = {it: name_of(given[it]) for it in _OTHERS if it in given}
    columns = replace(columns, **others)
    return Asked(columns, given.get("label_cells", ""), bool(given))


def _check(name: str, value: Any) -> None:
    if value is None:
        return
    if name == "labels_from":
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"labels_from must be names of columns, as a list, not {value!r:.60}")
        for it in value:
            _check("labels_from", None if isinstance(it, str | int | tuple) else _Column(it))
        return
    held = value.value if isinstance(value, _Column) else value
    if isinstance(held, str) or (isinstance(held, int | tuple) and name not in _WORDS):
        return
    if hasattr(held, "__len__") or hasattr(held, "__array__"):
        raise TypeError(
            f"{name} must be the name of a column, not a {type(held).__name__}: put it into the table as a column, "
            f"or give pairs, as zip(inputs, labels)"
        )
    raise TypeError(f"{name} must be a text, not {held!r:.60}")


@dataclass(frozen=True, slots=True)
class _Column:
    """A name of `labels_from` that is none."""

    value: Any


def name_of(column: Any) -> str:
    """The name of a column as text; the levels of one with several are joined by dots."""
    if isinstance(column, tuple):
        return ".".join(str(it) for it in column if str(it))
    return str(column)


def as_arguments(message: str) -> str:
    """A message that names options of the command line, with the arguments of the client in their place."""

    def argument(found: re.Match[str]) -> str:
        name, value = found[1].replace("-", "_"), found[2]
        name = {"format": "data_format"}.get(name, name)
        where = " of graft.read_examples" if name in _OF_FILES else ""
        if value is None or (name == "columns" and value == "names"):
            return f"{name}{where}" + (f" {value}" if value else "")
        value = value.strip("'")
        if name in ("labels_from", "columns"):
            return f"{name}={value.split(',')!r}{where}"
        return f"{name}={(value.replace('-', '_') if name == 'task' else value)!r}{where}"

    return _ARGUMENT.sub(argument, message)
