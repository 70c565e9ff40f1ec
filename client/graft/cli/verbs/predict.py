"""`graft predict`: classify texts, images or clips."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._records.predictions import Prediction
from graft.cli.arguments import Verbs, add_selector, add_verb
from graft.cli.asking import (
    Asked,
    Questions,
    given_files,
    given_pairs,
    given_texts,
    line_as_file,
    line_as_pair,
    line_as_text,
    lines_of,
)
from graft.cli.plain import plain

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft predict support/intents "where is my parcel?"
  graft predict support/intents - < lines.txt > answers.tsv
  graft predict support/intents --json --top-k 3 "where is my parcel?"

On a terminal the answer is a table; elsewhere lines of label, probability and text, separated by tabs, with what is to
be minded behind: "abstained: ...", "truncated: ...", or "error: ..." where there is no answer. Each line of standard
input has its line, also a blank one. The exit code is 1 where no input could be answered.
"""

_INTERACTIVE_CHUNK: Final = 1
_BULK_CHUNK: Final = 64


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "predict", "classify texts, images or clips", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("text", metavar="TEXT", nargs="+", help="texts, or - for the lines of standard input")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--files", action="store_true", help="the texts, or the lines, are names of image or audio files"
    )
    kind.add_argument(
        "--pairs",
        action="store_true",
        help="the texts are pairs: the first with the second, and so on; in a line, a tab separates the two",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="N", help="how many labels each input gets; default: 5"
    )
    add_selector(parser).add_argument(
        "--adaptation",
        metavar="ID",
        help="ask what this open adaptation has learned so far; default: a version",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Classifies the texts or files that were given, or the lines of standard input, and counts those that fail."""
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
        questions = Questions(_given(args))
        predictions = client.predict(args.model, questions.inputs(), **selected)
        table = not args.json and terminal.out.is_terminal
    answered = questions.answered(predictions)
    if table:
        terminal.predictions(list(answered))
    for text, prediction in answered:
        _print_prediction(args, terminal, text, prediction)
    _count_errors(questions, terminal)


def _given(args: argparse.Namespace) -> Iterator[Asked]:
    """What was given to classify."""
    if args.files:
        return given_files(args.text)
    return given_pairs(args.text) if args.pairs else given_texts(args.text)


def _count_errors(questions: Questions, terminal: Terminal) -> None:
    """Says how many inputs could not be answered.

    Raises:
        DataError: None could.
    """
    if questions.first_error is None:
        return
    failed = f"{questions.errors:,} of {questions.count:,} inputs could not be answered"
    if questions.errors == questions.count:
        raise DataError(f"{failed}: {questions.first_error.message}")
    terminal.say(f"{failed}, the first because: {questions.first_error.message}")


def _print_prediction(
    args: argparse.Namespace, terminal: Terminal, text: str, prediction: Prediction
) -> None:
    if args.json:
        label, probability = prediction.label, prediction.probability
        terminal.json({"input": text, "label": label, "probability": probability, **plain(prediction)})
    else:
        terminal.prediction_line(text, prediction)
