"""Opens data files and folders, and reads their labelled examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from graft._data_files.absent import Absent
from graft._data_files.columns import Columns, DataError, RowError, Rows
from graft._data_files.examples import example_of
from graft._data_files.files import DataFile
from graft._data_files.folders import FOLDER_COLUMNS, FolderTree
from graft._data_files.options import Reading
from graft._records.examples import Example

Data: TypeAlias = DataFile | FolderTree


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
    on_error: Literal["raise"] | Callable[[RowError], None] = "raise",
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

        on_error: What happens at a row that cannot be used. "raise" raises its `RowError`; anything else is called
            with it, and the file's other rows follow.

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
        for _, example in numbered_examples(data, asked, _raised if on_error == "raise" else on_error):
            yield example


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
    for row in data.rows():
        try:
            if isinstance(row, RowError):
                raise row
            absent.see(row)
            example = example_of(data, row, columns)
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
