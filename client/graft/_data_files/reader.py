"""Opens data files and folders, and reads their labelled examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from graft._data_files.absent import Absent
from graft._data_files.columns import Columns, DataError, RowError, Rows
from graft._data_files.examples import example_of
from graft._data_files.files import DataFile
from graft._data_files.folders.tree import FOLDER_COLUMNS, FolderTree
from graft._data_files.options import Reading
from graft._data_files.refused import RowsRead
from graft._records.inputs.examples import Example

Data: TypeAlias = DataFile | FolderTree
_NAMED: Final = 3


def read_examples(
    path: str | Path,
    *,
    input: str = "text",  # noqa: A002  (the column's name, as in the command line)
    label: str = "label",
    id: str | None = None,  # noqa: A002
    weight: str | None = None,
    group: str | None = None,
    split: str | None = None,
    subject: str | None = None,
    confirmed: str | None = None,
    data_format: str = "",
    delimiter: str | None = None,
    quote: str = "",
    encoding: str = "",
    columns: Sequence[str] = (),
    sheet: str = "",
    decimal: str = "",
    files: bool = False,
    label_separator: str = "",
    labels_from: Sequence[str] = (),
    value: str | None = None,
    second: str | None = None,
    on_error: Literal["raise"] | Callable[[RowError], None] | None = None,
) -> Iterator[Example]:
    """Reads labelled examples from a file, a row at a time: CSV, TSV, JSON, Parquet or Excel, also compressed.

    What is not said is found out; where it cannot be, the error says what to give.

    Args:
        path: The file; "-" is standard input. Or a folder of folders that are named as classes are, with images or
            clips.
        input: The column of what is to be classified.
        files: Whether that column names files of images or clips, from the data file's folder on.
        label: The column of labels.
        id: The column of ids, if there is one.
        weight: The column of weights, if there is one.
        group: The column of groups, if there is one.
        split: The column that says "train" or "validation", if there is one.
        subject: The column of whose data it is, if there is one.
        confirmed: The column that says whether a person looked at the label and kept it, if there is one.
        data_format: "csv", "tsv", "jsonl", "json", "parquet" or "xlsx". Empty: what the file is by content and name.
        delimiter: What separates cells.
        quote: What encloses cells that contain the delimiter: '"', "'" or "none".
        encoding: The encoding of the text. Empty: UTF-8 or UTF-16.
        columns: The names of the columns of a file without a header line.
        sheet: The sheet of an Excel file. Empty: the one that has the columns.
        decimal: What numbers have before their decimals, "." or ",".
        label_separator: What separates several labels in a cell, for a multi-label model. A cell may also be a list,
            in JSON or as Python writes one.
        labels_from: Columns each of which is a label that applies where the cell is 1, in place of `label`.
        value: The column of the numbers to answer with, for a regression: labels are not looked at.
        second: The column of second texts, where inputs are pairs.

        on_error: What happens at a row that cannot be used. "raise" raises its `RowError`, and so does None, but for
            the files of a folder: there the others follow, and a `UserWarning` names those that were left out.
            Anything else is called with the error, and the other rows follow.

    Warns:
        UserWarning: Files of a folder were left out, because their format is not read or they are a test split.

    A target is missing if its cell is empty, if JSON has null or NaN there, or if a row of JSON lacks the key; "nan",
    "NA", "None" and "null" are labels, but no values. Such examples carry no target.

    Raises:
        DataError: The file cannot be read as such, or no row of it can be used; the message names the line and the
            column.
    """
    asked = Columns(
        input=input,
        label=label,
        id=id,
        weight=weight,
        group=group,
        split=split,
        subject=subject,
        confirmed=confirmed,
        path=files,
        separator=label_separator,
        value=value,
        second=second,
        labels_from=tuple(labels_from),
        decimal=decimal,
    )
    if Path(path).is_dir():
        asked = FOLDER_COLUMNS
    reading = Reading(data_format, delimiter or "", quote, encoding, tuple(columns), sheet)
    with open_data(path, reading, asked) as data:
        left_out = RowsRead(data.unit)
        if isinstance(data, FolderTree):
            for remark in data.losses:
                warnings.warn(f"{data.name}: {remark}", UserWarning, stacklevel=2)
            on_error = left_out.refuse if on_error is None else on_error
        on_bad = _raised if on_error is None or on_error == "raise" else on_error
        for _, example in numbered_examples(data, asked, on_bad):
            yield example
        if left_out.refused_count:
            warnings.warn(_said(data, left_out), UserWarning, stacklevel=2)


def _said(data: Data, left_out: RowsRead) -> str:
    """Names the first files of a folder that were left out, and why."""
    named = "; ".join(f"{it.place}: {it.reason}" for it in left_out.refused[:_NAMED])
    more = f"; and {left_out.refused_count - _NAMED:,} more" if left_out.refused_count > _NAMED else ""
    files = (
        "1 file of {} is" if left_out.refused_count == 1 else f"{left_out.refused_count:,} files of {{}} are"
    )
    return f"{files.format(data.name)} left out: {named}{more}"


def numbered_examples(
    data: Rows, columns: Columns, on_bad: Callable[[RowError], None]
) -> Iterator[tuple[int, Example]]:
    """The examples of a file's rows, each with the line on which its row begins, as they are read.

    Args:
        data: The open file or folder.
        columns: Which columns hold what.
        on_bad: Called for a row that cannot be used, in place of which nothing follows.

    Raises:
        DataError: The file cannot be read as such, or all its rows are bad.
    """
    first: RowError | None = None
    taken = bad = 0
    columns = data.fitted(columns)
    absent = Absent(data.name, columns)
    # A folder has looked into its files already.
    opened = on_bad is not _raised and not isinstance(data, FolderTree)
    for row in data.rows():
        try:
            if isinstance(row, RowError):
                raise row
            absent.see(row)
            example = example_of(data, row, columns, opened=opened)
        except RowError as error:
            first, bad = first or error, bad + 1
            on_bad(error)
        else:
            taken += 1
            yield row.line, example
    if first is not None and not taken:
        others = f" (none of the {bad:,} rows can be used)" if bad > 1 else ""
        raise DataError(f"{first}{others}")
    absent.require()


def _raised(error: RowError) -> None:
    raise error


def open_data(
    path: str | Path, reading: Reading, columns: Columns, *, source: BinaryIO | None = None
) -> Data:
    """Opens a data file, or a folder tree, to read these columns. Where there is a `source`, it is read from there."""
    if Path(path).is_dir():
        return FolderTree(path)
    return DataFile(path, reading=reading, columns=columns, source=source)
