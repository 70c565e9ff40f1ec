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


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the data file and its options to a command."""
    parser.add_argument(
        "data",
        metavar="DATA",
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
        help="what is to be classified (text); in JSON also within other values, as data.text",
    )
    content.add_argument(
        "--path", metavar="COLUMN", help="instead: names of image or audio files, from DATA's folder on"
    )
    data.add_argument(
        "--second", metavar="COLUMN", help="the second text, where --input is the first of a pair"
    )


def _add_columns(data: argparse._ArgumentGroup) -> None:
    add_inputs(data, "text")
    data.add_argument(
        "--label", default="label", metavar="COLUMN", help="what it should be answered with (label)"
    )
    target = data.add_mutually_exclusive_group()
    target.add_argument(
        "--labels-from",
        type=_names,
        default=[],
        metavar="COLUMN,COLUMN,…",
        help="instead: each of these columns is a label, which applies where the cell is 1: a multi-label model",
    )
    target.add_argument(
        "--value", metavar="COLUMN", help="a number to answer with, in place of a label: a regression"
    )
    data.add_argument(
        "--label-separator",
        default="",
        metavar="CHARS",
        help="a cell of labels holds any number of them, separated so: a multi-label model",
    )
    data.add_argument(
        "--label-cells",
        default="",
        choices=["read", "keep"],
        help="read cells that look like lists as lists of labels, or keep each cell as a label (what most cells tell)",
    )
    data.add_argument(
        "--merge-labels",
        action="store_true",
        help="give labels that differ by case, spacing or invisible characters only the most frequent one's name",
    )
    data.add_argument(
        "--id", metavar="COLUMN", help="the example's id, a column that tells every row from every other"
    )
    data.add_argument("--weight", metavar="COLUMN", help="how much the example counts")
    data.add_argument("--group", metavar="COLUMN", help="what cross-validation must not tear apart")
    data.add_argument("--split", metavar="COLUMN", help="train or validation (held out, never trained on)")
    data.add_argument(
        "--subject", metavar="COLUMN", help="whose data the example is: 'graft forget' erases by it"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds how a data file is written."""
    how = parser.add_argument_group("how the data file is written (found out where nothing is said)")
    how.add_argument(
        "--format",
        choices=FORMATS,
        default="",
        help="what the file is, where neither its content nor its ending says so",
    )
    how.add_argument(
        "--delimiter", type=_delimiter, default="", metavar="CHAR", help="between cells: , ; | or tab"
    )
    how.add_argument(
        "--quote",
        choices=QUOTES,
        default="",
        metavar="CHAR",
        help="what encloses cells that contain the delimiter: \" or '; none: quotes are characters like others",
    )
    how.add_argument(
        "--encoding",
        default="",
        metavar="NAME",
        help="of the text, as cp1252 or utf-16; UTF-8 where nothing tells",
    )
    how.add_argument(
        "--columns",
        type=_all_names,
        default=[],
        metavar="A,B,…",
        help="the names of the columns of a file without a header line; an empty one passes a column over",
    )
    how.add_argument(
        "--sheet", default="", metavar="NAME", help="of an Excel file (the one with the columns)"
    )
    how.add_argument(
        "--decimal",
        choices=(".", ","),
        default="",
        metavar="CHAR",
        help="before the decimals of numbers: . or ,",
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
