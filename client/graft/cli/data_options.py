"""The options that say how a data file is read, and which of its columns hold what."""

from __future__ import annotations

import argparse
from typing import Final

from graft._data_files.columns import Columns
from graft._data_files.options import FORMATS, QUOTES, Reading

DATA_FILES: Final = """\
Data files are CSV, TSV, JSON lines, JSON lists, Parquet (pip install 'graft-serve[parquet]') or Excel's .xlsx
(pip install 'graft-serve[excel]'), also gzipped, by their content, else by their ending; "-" is standard input.
Delimiter, quotes, UTF-8 and UTF-16 are found out; where that cannot be, the error names the option to give. A row
that cannot be used is refused alone, by its line; the others are taken."""


def add_data(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Adds the data file and its options to a command."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?" if optional else None,
        help="a CSV, TSV, JSON, Parquet or Excel file, - (standard input), or a folder of classes",
    )
    _add_columns(parser.add_argument_group("the columns of the data file"))
    add_reading(parser)


def add_inputs(data: argparse._ArgumentGroup, default: str | None) -> None:
    """Adds the columns of inputs; `default` is what --input is where nothing is said."""
    content = data.add_mutually_exclusive_group()
    content.add_argument(
        "--input",
        default=default,
        metavar="COLUMN",
        help="the column of the inputs; in JSON also within other values, as data.text; default: text",
    )
    content.add_argument(
        "--path",
        metavar="COLUMN",
        help="instead of --input: the column of names of image or audio files, relative to DATA's folder; "
        "default: none",
    )
    data.add_argument(
        "--second",
        metavar="COLUMN",
        help="the column of the second texts, where --input holds the first ones of pairs; default: none",
    )


def _add_columns(data: argparse._ArgumentGroup) -> None:
    add_inputs(data, "text")
    data.add_argument(
        "--label", default="label", metavar="COLUMN", help="the column of the labels; default: label"
    )
    target = data.add_mutually_exclusive_group()
    target.add_argument(
        "--labels-from",
        type=_names,
        default=[],
        metavar="COLUMN,COLUMN,…",
        help="instead of --label: each of these columns is a label, which applies where the cell is 1; makes a "
        "multi-label model; default: none",
    )
    target.add_argument(
        "--value",
        metavar="COLUMN",
        help="instead of --label: the column of the numbers to answer with; makes a regression; default: none",
    )
    data.add_argument(
        "--label-separator",
        default="",
        metavar="CHARS",
        help="what separates the labels in a cell; makes a multi-label model; default: a cell is one label",
    )
    data.add_argument(
        "--label-cells",
        default="",
        choices=["read", "keep"],
        help="read cells that look like lists as lists of labels, or keep each cell as one label; default: "
        "what most cells "
        "show",
    )
    data.add_argument(
        "--merge-labels",
        action="store_true",
        help="make one label of those that differ by case, spacing or invisible characters only, under the "
        "most frequent "
        "name",
    )
    data.add_argument(
        "--id",
        metavar="COLUMN",
        help="the column of ids, one for each example: a later row with the same id replaces an earlier one; "
        "default: none",
    )
    data.add_argument(
        "--weight",
        metavar="COLUMN",
        help="the column of numbers that say how much each example counts; default: all count 1",
    )
    data.add_argument(
        "--group",
        metavar="COLUMN",
        help="the column of groups that cross-validation keeps together; default: none",
    )
    data.add_argument(
        "--split",
        metavar="COLUMN",
        help="the column that says train or validation (held out, never trained on); default: all are for training",
    )
    data.add_argument(
        "--subject",
        metavar="COLUMN",
        help="the column of whose data each example is, by which 'graft forget' erases; default: none",
    )
    data.add_argument(
        "--confirmed",
        metavar="COLUMN",
        help="the column that says whether a person looked at the label and kept it (yes or no), so that it "
        "is not listed "
        "as a probable error; default: none",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds how a data file is written."""
    how = parser.add_argument_group("how the data file is written")
    how.add_argument(
        "--format",
        choices=FORMATS,
        default="",
        help="what the file is; default: what its content or its ending says",
    )
    how.add_argument(
        "--delimiter",
        type=_delimiter,
        default="",
        metavar="CHAR",
        help="what stands between cells: , ; | or tab; default: found out",
    )
    how.add_argument(
        "--quote",
        choices=QUOTES,
        default="",
        metavar="CHAR",
        help="what encloses cells that contain the delimiter: \" or '; none: quotes are characters like "
        "others; default: "
        "found out",
    )
    how.add_argument(
        "--encoding",
        default="",
        metavar="NAME",
        help="the encoding of the text, as cp1252 or utf-16; default: found out, else UTF-8",
    )
    how.add_argument(
        "--columns",
        type=_all_names,
        default=[],
        metavar="A,B,…",
        help="the names of the columns of a file without a header line; an empty one passes a column over; "
        "default: those "
        "of the first line",
    )
    how.add_argument(
        "--sheet",
        default="",
        metavar="NAME",
        help="the sheet of an Excel file; default: the one that has the columns",
    )
    how.add_argument(
        "--decimal",
        choices=(".", ","),
        default="",
        metavar="CHAR",
        help="what stands before the decimals of numbers: . or ,; default: found out",
    )


def reading_of(args: argparse.Namespace) -> Reading:
    """How the data file is written, as far as was said."""
    return Reading(args.format, args.delimiter, args.quote, args.encoding, tuple(args.columns), args.sheet)


def columns_of(args: argparse.Namespace) -> Columns:
    """Which columns hold what."""
    return Columns(
        input=args.path or args.input,
        path=bool(args.path),
        label=args.label,
        id=args.id,
        weight=args.weight,
        group=args.group,
        split=args.split,
        subject=args.subject,
        confirmed=args.confirmed,
        separator=args.label_separator,
        value=args.value,
        second=args.second,
        labels_from=tuple(args.labels_from),
        decimal=args.decimal,
    )


def _delimiter(text: str) -> str:
    value = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}.get(
        text, text
    )
    if len(value) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _all_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
