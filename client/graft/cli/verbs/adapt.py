"""`graft adapt`: labelled examples in, a served version out."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graft._client.sync import Client
from graft._data_files.columns import RowError
from graft._data_files.refused import RowsRead
from graft._records.adapting.told import AdaptProgress, AdaptResult, CheckResult
from graft._records.evaluation.label_forms import asked
from graft._streams.options import FineTuning
from graft.cli.adapting.extending import Ground, add_ground, foreseen, ground_of, say_extension, say_meanwhile
from graft.cli.adapting.following import FollowedLines
from graft.cli.adapting.stopping import Stopping, same_command
from graft.cli.arguments import Verbs, add_full, add_verb, names, pair, positive
from graft.cli.correcting.edited_list import adapt_by_list, base_of_list, is_edited_list
from graft.cli.data_options import DATA_FILES, add_data, columns_of
from graft.cli.reading import Known, ReadFile, Wanted, read_file, told_at_the_end
from graft.cli.refusals import refusals_told, say_refusals, say_rows, with_refused
from graft.cli.showing.live import not_live
from graft.cli.showing.reports import quoted, show_report

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft adapt support/intents train.csv --input text --label intent
  graft adapt support/intents train.jsonl.gz --group customer --split part
  graft adapt shop/products photos/ --backbone resnet
  graft adapt shop/products photos.csv --path file --label product --backbone resnet
  graft adapt support/intents train.xlsx --sheet 2024 --label Category
  graft adapt support/intents export.tsv --quote none --encoding cp1252
  zcat *.jsonl.gz | graft adapt support/intents -
  graft adapt support/intents train.csv --check
  graft adapt support/intents more.csv
  graft adapt support/intents other.csv --replace
  tail -f labels.jsonl | graft adapt support/intents - --follow --publish-every 500 --publish-seconds 60
  graft adapt support/answers train.csv --input question --second answer --label fits
  graft adapt support/topics train.csv --label topics --label-separator ';'
  graft adapt support/tone train.csv --labels-from toxic,insult,threat
  graft adapt support/hours train.csv --value hours
  graft adapt support/intents few.csv --unlabelled inbox.csv

{data_files}

On a model that has a live version, the rows extend it: its examples are trained on too, and a row with the id of one,
or without an id and with the same input, is that example. So a file that has grown, or was corrected, is sent again as
it is.

A broken connection is resumed by itself; an interrupted command goes on with the same
--adaptation-id. With --follow, a line is {{"id": …, "text": …, "label": …}} or {{"delete": ID}}; the end of the input
and Ctrl-C commit, and leave the adaptation open.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs,
        "adapt",
        "stream labelled examples in and get a served version",
        _EXAMPLES.format(data_files=DATA_FILES),
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="the model to publish to, for example support/intents; it need not exist",
    )
    add_data(parser)
    parser.add_argument(
        "--unlabelled",
        metavar="FILE",
        help="a file of inputs without labels, read as DATA is: they follow its rows, and training learns from them "
        "where that makes the model better; default: none",
    )
    settings = parser.add_argument_group("how to adapt")
    settings.add_argument(
        "--id-repeats",
        default="",
        choices=["replace", "keep"],
        help="of rows with the same id, let the last one replace the others, or keep the first one; default: "
        "ask on a "
        "terminal, else stop",
    )
    settings.add_argument(
        "--backbone", default="", metavar="NAME", help="the backbone; default: the server's default backbone"
    )
    settings.add_argument(
        "--task",
        default="",
        choices=["single-label", "multi-label", "regression"],
        help="whether the model answers with one label, several labels or a number; default: what the data "
        "file shows",
    )
    settings.add_argument(
        "--method",
        default="auto",
        metavar="METHOD",
        help="frozen trains a head on the backbone's features, partial also tunes the backbone's upper "
        "layers, full all "
        "of them; auto tunes within --time-budget and keeps that where it helps; default: auto",
    )
    settings.add_argument(
        "--layers",
        type=int,
        default=0,
        metavar="N",
        help="how many upper layers are tuned; default: a third of them",
    )
    settings.add_argument(
        "--epochs",
        type=int,
        default=0,
        metavar="N",
        help="how often tuning sees each example at most; default: 4",
    )
    settings.add_argument(
        "--learning-rate",
        type=float,
        default=0.0,
        metavar="NUMBER",
        help="the learning rate of the uppermost layer in tuning; default: 0.0001",
    )
    settings.add_argument(
        "--time-budget",
        type=float,
        metavar="SECONDS",
        help="how long tuning may take; default: no limit, and the method auto does not tune",
    )
    settings.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the number that every random choice is derived from; default: 0",
    )
    settings.add_argument(
        "--labels",
        type=names,
        metavar="A,B,C",
        help="labels that are known in advance, in output order; default: those of the examples",
    )
    settings.add_argument(
        "--closed-labels", action="store_true", help="refuse examples whose labels are not among --labels"
    )
    add_ground(settings)
    settings.add_argument(
        "--adaptation-id",
        default="",
        metavar="ID",
        help="the name of this adaptation; give that of an interrupted command to go on where it was; "
        "default: a new one",
    )
    settings.add_argument(
        "--publish-every",
        type=int,
        default=0,
        metavar="N",
        help="have the server publish a version after every N examples; default: only at the end",
    )
    settings.add_argument(
        "--publish-seconds",
        type=positive,
        default=0.0,
        metavar="SECONDS",
        help="have the server publish what is new after so long; default: only at the end",
    )
    settings.add_argument(
        "--no-promote",
        action="store_true",
        help="publish without making the version live: it is asked for by its number until 'graft promote' moves live; "
        "default: a version goes live as it is published, unless live is pinned",
    )
    settings.add_argument(
        "--metadata",
        action="append",
        type=pair,
        default=[],
        metavar="KEY=VALUE",
        help="a pair to find again with the adaptation and its versions, for example source=train.csv; may be "
        "repeated; default: none",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--check",
        action="store_true",
        help="store nothing; say which rows would be refused, and why; the exit code is 1 where there are any",
    )
    how.add_argument(
        "--follow",
        action="store_true",
        help="read lines of JSON from standard input for as long as they come, then publish",
    )
    settings.add_argument(
        "--writer-id",
        default="",
        metavar="ID",
        help="the name of this feeder, where several feed one adaptation; default: default",
    )
    add_full(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Streams a data file in and prints the report of the version that comes of it. Returns the exit code."""
    resumed = bool(args.adaptation_id)
    args.adaptation_id = args.adaptation_id or uuid.uuid4().hex
    if not args.check:
        terminal.interrupts.hint = same_command(args, resumed=resumed)(None)
    if is_edited_list(args, terminal):
        if args.unlabelled:
            raise ValueError(
                f"{args.data} is a list of stored examples: send --unlabelled {args.unlabelled} with a data file, in a "
                "command of its own"
            )
        return _by_list(args, client, terminal, resumed=resumed)
    if args.check:
        return _check(args, client, terminal, resumed=resumed)
    (_follow if args.follow else _adapt)(args, client, terminal, resumed=resumed)
    return 0


def _adapt(args: argparse.Namespace, client: Client, terminal: Terminal, *, resumed: bool) -> None:
    rows = RowsRead()
    name = "standard input" if args.data == "-" else args.data
    said = f"adaptation {args.adaptation_id} of {args.model}; reading {name}"
    ground = Ground()
    # Nothing may come of a stream for long; of a file that is not there nothing is read.
    waits = args.data == "-" or Path(args.data).is_fifo()
    if waits:
        terminal.say(said)

    def known() -> Known:
        nonlocal ground
        ground = ground_of(args, client, terminal, resumed=resumed)
        if ground.said:
            terminal.say(ground.said)
        return ground.known

    def wanted() -> Wanted:
        if not waits:
            terminal.say(said)
        return _wanted(args, known)

    with (
        refusals_told(terminal, rows, args),
        read_file(args, terminal, wanted) as data,
        terminal.adapt_bar() as bar,
        Stopping(args, client, terminal, bar, same_command(args, resumed=resumed)) as stopping,
    ):
        ground.require_task(data.task, name)
        result = client.adapt(
            args.model,
            data.examples(bar.reading, rows),
            **{**_how_to_adapt(args), **ground.arguments, "task": data.task or ground.task},
            on_progress=stopping.show,
            on_published=partial(terminal.outcome, args.model),
        )
    notes = told_at_the_end(data, terminal)
    counts = data.counts(result.rows, rows)
    if args.json:
        terminal.json(with_refused(result, rows, notes, counts))
    else:
        _show(args, client, terminal, result, ground)
    say_rows(terminal, counts)
    say_refusals(terminal, result.rejected, result.rejected_count, rows, args)
    _say_live(terminal, result)
    say_meanwhile(result, terminal)


def _by_list(args: argparse.Namespace, client: Client, terminal: Terminal, *, resumed: bool) -> int:
    """Sends what a person changed in a list of stored examples. Returns the exit code."""
    base = base_of_list(args, client, resumed=resumed)
    # What the list is about is known of the version; the adaptation goes on from it.
    known = {"task", "adaptation_id", *(() if args.backbone else ("backbone",))}
    known |= set() if args.labels else {"labels"}
    settings = {name: value for name, value in _how_to_adapt(args).items() if name not in known}
    return adapt_by_list(args, client, terminal, settings, base, go_on=same_command(args, resumed=resumed))


def _follow(args: argparse.Namespace, client: Client, terminal: Terminal, *, resumed: bool) -> None:
    """Streams lines of standard input in for as long as they come, then commits; the adaptation stays open."""
    if args.data != "-":
        raise ValueError(f"--follow reads JSON lines from standard input: give - instead of {args.data}")
    _require_followable(args)
    rows = RowsRead()
    interrupts = terminal.interrupts
    with (
        refusals_told(terminal, rows, args),
        interrupts.ending_input_first(),
        terminal.adapt_bar() as bar,
        Stopping(args, client, terminal, bar, same_command(args, resumed=resumed)) as stopping,
    ):
        terminal.say(f"adaptation {args.adaptation_id} of {args.model}; following standard input")
        ground = ground_of(args, client, terminal, resumed=resumed)
        ground.require_task(_task(args), "standard input")
        if ground.said:
            terminal.say(ground.said)

        def show(progress: AdaptProgress) -> None:
            rows.first_sequence = progress.first_sequence
            stopping.show(progress)

        result = client.adapt(
            args.model,
            FollowedLines(interrupts, columns_of(args), rows.take, _told(rows, terminal)),
            **{**_how_to_adapt(args), **ground.arguments, "task": _task(args) or ground.task},
            close=False,
            append=True,
            on_progress=show,
            on_published=partial(terminal.outcome, args.model),
        )
    counts = None if result.rows is None else result.rows.with_more(refused=rows.refused_count)
    if args.json:
        terminal.json(with_refused(result, rows, counts=counts))
    else:
        _show(args, client, terminal, result, ground)
    say_rows(terminal, counts)
    say_refusals(terminal, result.rejected, result.rejected_count, rows, args)
    _say_live(terminal, result)
    say_meanwhile(result, terminal)
    terminal.say(f"the adaptation is open: go on with --follow --adaptation-id {args.adaptation_id}")


def _show(
    args: argparse.Namespace, client: Client, terminal: Terminal, result: AdaptResult, ground: Ground
) -> None:
    """Shows what came of the rows, and the version if it is a new one."""
    say_extension(result, ground, terminal)
    if not result.nothing_new:
        show_report(
            terminal, result.model, result.version, quoted(client, result), full=args.full, brief=True
        )


def _say_live(terminal: Terminal, result: AdaptResult) -> None:
    """Says that the version is not live, if it is not."""
    if why := not_live(result.model, result):
        terminal.remark(why)


def _require_followable(args: argparse.Namespace) -> None:
    """Refuses options that look at more than one line, or at cells: a stream that is followed would ignore them."""
    given = {
        "--merge-labels": args.merge_labels,
        "--label-cells": args.label_cells,
        "--id-repeats keep": args.id_repeats == "keep",
        "--unlabelled": args.unlabelled,
    }
    if ignored := [option for option, value in given.items() if value]:
        raise ValueError(
            f"{', '.join(ignored)} cannot be given with --follow: each line is taken as it comes, and a later one of "
            "an id replaces an earlier one; leave --follow away, or write the labels as they are meant"
        )


def _check(args: argparse.Namespace, client: Client, terminal: Terminal, *, resumed: bool) -> int:
    """Says which rows of a data file would be refused, and why; 1 if there are any. Nothing is stored."""
    rows = RowsRead()
    ground = Ground()

    def known() -> Known:
        nonlocal ground
        ground = ground_of(args, client, terminal, resumed=resumed, asks=False)
        return ground.known

    with (
        refusals_told(terminal, rows, args),
        read_file(args, terminal, lambda: _wanted(args, known)) as data,
        terminal.adapt_bar() as bar,
    ):
        ground.require_task(data.task, args.data)
        result = client.check(
            args.model,
            data.examples(bar.reading, rows),
            **{**_what_to_adapt(args), **ground.arguments, "task": data.task or ground.task},
            on_progress=bar.show,
        )
    notes = told_at_the_end(data, terminal, _found_by_check(result, data))
    counts = data.counts(result.rows, rows)
    if args.json:
        terminal.json(with_refused(result, rows, notes, counts))
    else:
        good, found = result.examples - result.rejected_count, result.examples + rows.refused_count
        task = f" for the task {result.task.replace('_', '-')}" if result.task else ""
        terminal.line(f"{good:,} of {found:,} examples would be taken{task}; nothing was stored")
        if result.extension is not None:
            terminal.line(foreseen(result.extension))
    say_rows(terminal, counts)
    say_refusals(terminal, result.rejected, result.rejected_count, rows, args)
    return 1 if result.rejected_count + rows.refused_count else 0


def _wanted(args: argparse.Namespace, known: Callable[[], Known]) -> Wanted:
    """What an adaptation or its check wants of the data file."""
    return Wanted(_task(args), tuple(args.labels or ()), checked=args.check, known=known)


def _task(args: argparse.Namespace) -> str:
    """The task, as far as the arguments tell."""
    return args.task or (
        "regression" if args.value else "multi-label" if args.label_separator or args.labels_from else ""
    )


def _found_by_check(result: CheckResult, data: ReadFile) -> list[str]:
    """What the check of the examples found; of a file that was looked at as a whole, what is not said already."""
    similar = asked(result.similar_labels)
    return [*([] if data.whole else result.notices), *([f"warning: {similar}"] if similar else [])]


def _what_to_adapt(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `check` for an adaptation."""
    return {
        "method": args.method,
        "backbone": args.backbone,
        "task": _task(args),
        "labels": args.labels,
        "closed_labels": args.closed_labels,
        "fine_tuning": _fine_tuning(args),
        "time_budget": args.time_budget,
    }


def _how_to_adapt(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the further arguments of `adapt`."""
    return {
        **_what_to_adapt(args),
        "adaptation_id": args.adaptation_id,
        "writer_id": args.writer_id,
        "seed": args.seed,
        "publish_every": args.publish_every,
        "publish_seconds": args.publish_seconds,
        "promote": not args.no_promote,
        "metadata": dict(args.metadata),
    }


def _fine_tuning(args: argparse.Namespace) -> FineTuning | None:
    asked = FineTuning(unfrozen_layers=args.layers, epochs=args.epochs, learning_rate=args.learning_rate)
    return None if asked == FineTuning() else asked


def _told(rows: RowsRead, terminal: Terminal) -> Callable[[RowError], None]:
    def on_bad(error: RowError) -> None:
        rows.refuse(error)
        terminal.warning(str(error))

    return on_bad
