"""`graft predict`: classify texts, images or clips."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._records.predicting.answer_columns import reason_of
from graft._records.predicting.predictions import Prediction
from graft.cli.answering.asking import (
    Questions,
    given_files,
    given_pairs,
    given_texts,
    line_as_file,
    line_as_pair,
    line_as_text,
    lines_of,
)
from graft.cli.answering.file import answer_file
from graft.cli.answering.output import FORMATS
from graft.cli.answering.what import Given, given
from graft.cli.arguments import Verbs, add_selector, add_verb
from graft.cli.data_options import add_inputs, add_reading
from graft.cli.showing.plain import plain

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft predict support/intents "where is my parcel?"
  graft predict support/intents in.csv --output out.csv
  graft predict support/intents tickets.jsonl --input body --output answers.parquet
  graft predict shop/products photos.csv --path file --output found.csv
  graft predict shop/products photos/ > found.csv
  graft predict support/intents - < lines.txt > answers.tsv
  zcat *.csv.gz | graft predict support/intents - --input text --output out.csv
  graft predict support/intents --json --top-k 3 "where is my parcel?"

A file's rows are written once more, in order and as they are, each with its answer behind it: label and probability
(labels and probabilities; value, low and high), abstained, truncated, novelty and error. A name that the input has a
column for gets "predicted_" before it. A row that cannot be answered has an error, and the exit code is 1.
OUTPUT.part is what an interrupted command leaves; the same command goes on behind it, by the same version. The format
is that of OUTPUT's ending, else the input's.

Of texts, the answer is a table on a terminal; elsewhere lines of label, probability and text, separated by tabs, with
what is to be minded behind: "abstained: ...", "truncated: ...", or "error: ..." where there is no answer. In them, \\t,
\\n and \\r are a tab and line ends of the text, \\\\ a backslash, and \\x.. or \\u.... other line separators. Each line
of standard input has its line, also a blank one. The exit code is 1 where an input could not be answered.
"""

_INTERACTIVE_CHUNK: Final = 1
_BULK_CHUNK: Final = 64


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "predict", "classify texts, images or clips, or a file of them", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="texts; or a file of inputs, a folder of pictures, or - for standard input: its lines, or with --input a "
        "table",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--text", dest="text_only", action="store_true", help="all are texts, also FILE.csv")
    kind.add_argument(
        "--files", action="store_true", help="the texts, or the lines, are names of image or audio files"
    )
    kind.add_argument(
        "--pairs",
        action="store_true",
        help="the texts are pairs: the first with the second, and so on; in a line, a tab separates the two",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=0,
        metavar="N",
        help="how many labels each input gets; default: 5, in a file 1",
    )
    add_selector(parser).add_argument(
        "--adaptation",
        metavar="ID",
        help="ask what this open adaptation has learned so far; default: a version",
    )
    _add_output(parser.add_argument_group("where the answers of a file go"))
    add_inputs(parser.add_argument_group("the columns of the file"), None)
    add_reading(parser)
    parser.set_defaults(run=run)


def _add_output(output: argparse._ArgumentGroup) -> None:
    output.add_argument(
        "--output", metavar="FILE", help="write the rows with their answers to FILE; default: standard output"
    )
    output.add_argument(
        "--output-format",
        choices=FORMATS,
        default="",
        help="what is written; default: what FILE's ending says, else what the input is",
    )
    output.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    output.add_argument(
        "--restart", action="store_true", help="answer all rows anew, also those of an interrupted command"
    )
    output.add_argument(
        "--scores", action="store_true", help="add a column for each label, with its probability"
    )
    output.add_argument(
        "--prefix",
        default="",
        metavar="TEXT",
        help="begin the names of the answers' columns with TEXT; default: none",
    )


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Classifies what is given: a file's rows, texts, files, or the lines of standard input."""
    what = given(args, terminal)
    written = args.output is not None or bool(args.output_format)
    if what.kind == "table" or (what.kind == "lines" and (written or what.path != "-")):
        answer_file(args, client, terminal, what.path, what.kind)
    else:
        _answer(args, client, terminal, what)


def _answer(args: argparse.Namespace, client: Client, terminal: Terminal, what: Given) -> None:
    """Prints an answer for each of the texts, files, or lines of standard input, and counts those that fail."""
    selected = {
        "version": args.version,
        "alias": args.alias,
        "adaptation_id": args.adaptation,
        "top_k": args.top_k,
    }
    predictions: Iterable[Prediction]
    if args.text == ["-"]:
        stdin = terminal.interrupts.stdin
        read = line_as_file if args.files else line_as_pair if args.pairs else line_as_text
        questions = Questions(lines_of(stdin.buffer, stdin.encoding, read))
        chunk = _INTERACTIVE_CHUNK if stdin.isatty() else _BULK_CHUNK
        predictions = client.predict_stream(
            args.model, questions.inputs(), **selected, chunk_size=chunk, on_progress=terminal.say
        )
        table = False
    else:
        asked = given_files if what.kind == "media" else given_pairs if args.pairs else given_texts
        questions = Questions(asked(args.text))
        predictions = client.predict(args.model, questions.inputs(), **selected)
        table = not args.json and terminal.out.is_terminal
    answered = questions.answered(predictions)
    if table:
        terminal.predictions(list(answered))
    for text, prediction in answered:
        _print_prediction(args, terminal, text, prediction)
    _require_answers(questions)


def _require_answers(questions: Questions) -> None:
    """Says how many inputs could not be answered.

    Raises:
        DataError: Some could not.
    """
    if questions.first_error is not None:
        failed = f"{questions.errors:,} of {questions.count:,} inputs could not be answered"
        first = "" if questions.errors == questions.count else "the first because "
        raise DataError(f"{failed}: {first}{reason_of(questions.first_error)}")


def _print_prediction(
    args: argparse.Namespace, terminal: Terminal, text: str, prediction: Prediction
) -> None:
    if args.json:
        label, probability = prediction.label, prediction.probability
        terminal.json({"input": text, "label": label, "probability": probability, **plain(prediction)})
    else:
        terminal.prediction_line(text, prediction)
