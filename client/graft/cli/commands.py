"""What each command of `graft` does. Arguments come parsed, errors leave as exceptions: see `program`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from graft._client.sync import Client
from graft._data_files.columns import DataError, RowError
from graft._data_files.refused import RowsRead
from graft._records.evaluations import EvaluationResult
from graft._records.label_forms import asked
from graft._records.predictions import Prediction
from graft._records.records import AdaptProgress, CheckResult, Rejection
from graft._report.page import page
from graft._streams.options import FineTuning
from graft.cli import phrases
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
from graft.cli.bars import AdaptBar, CountBar
from graft.cli.data_options import columns_of
from graft.cli.following import FollowedLines
from graft.cli.reading import ReadFile, Wanted, read_file
from graft.cli.terminal import Terminal, plain

T = TypeVar("T")

_MIB: Final = 1024 * 1024
_INTERACTIVE_CHUNK: Final = 1
_BULK_CHUNK: Final = 64


Command = Callable[[argparse.Namespace, Client, Terminal], None]


def adapt(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Streams a data file in and prints the report of the version that comes of it."""
    if args.follow:
        _follow(args, client, terminal)
        return
    if args.check:
        _check(args, client, terminal)
        return
    rows = RowsRead()
    terminal.interrupts.hint = (
        f"what was stored stays; go on by the same command with --adaptation-id {args.adaptation_id}"
    )

    name = "standard input" if args.data == "-" else args.data
    said = f"adaptation {args.adaptation_id} of {args.model}; reading {name}"
    # Nothing may come of a stream for long; of a file that is not there nothing is read.
    waits = args.data == "-" or Path(args.data).is_fifo()
    if waits:
        terminal.say(said)

    def wanted() -> Wanted:
        if not waits:
            terminal.say(said)
        return _wanted(args)

    with read_file(args, terminal, wanted) as data, AdaptBar(terminal) as bar:
        result = client.adapt(
            args.model,
            data.examples(bar.reading, rows),
            **{**_how_to_adapt(args), "task": data.task},
            on_progress=bar.show,
            on_published=terminal.outcome,
        )
    notes = _told_at_the_end(data, terminal)
    if args.json:
        terminal.json(_with_refused(result, rows, notes))
    else:
        terminal.report(result.model, result.version, result.report, full=args.full)
    terminal.rejections(result.rejected, result.rejected_count, rows)


def _follow(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Streams lines of standard input in for as long as they come, then commits; the adaptation stays open."""
    if args.data != "-":
        raise ValueError(f"--follow reads JSON lines from standard input: give - instead of {args.data}")
    _require_followable(args)
    rows = RowsRead()
    interrupts = terminal.interrupts
    interrupts.hint = f"what was stored stays; go on with --follow --adaptation-id {args.adaptation_id}"
    with interrupts.ending_input_first(), AdaptBar(terminal) as bar:
        terminal.say(f"adaptation {args.adaptation_id} of {args.model}; following standard input")

        def show(progress: AdaptProgress) -> None:
            rows.first_sequence = progress.first_sequence
            bar.show(progress)

        result = client.adapt(
            args.model,
            FollowedLines(interrupts, columns_of(args), rows.take, _told(rows, terminal)),
            **_how_to_adapt(args),
            close=False,
            append=True,
            on_progress=show,
            on_published=terminal.outcome,
        )
    if args.json:
        terminal.json(_with_refused(result, rows))
    else:
        terminal.report(result.model, result.version, result.report, full=args.full)
    terminal.rejections(result.rejected, result.rejected_count, rows)
    terminal.say(f"the adaptation is open: go on with --follow --adaptation-id {args.adaptation_id}")


def _require_followable(args: argparse.Namespace) -> None:
    """Refuses options that look at more than one line, or at cells: a stream that is followed would ignore them."""
    given = {
        "--merge-labels": args.merge_labels,
        "--label-cells": args.label_cells,
        "--id-repeats keep": args.id_repeats == "keep",
    }
    if ignored := [option for option, value in given.items() if value]:
        raise ValueError(
            f"{', '.join(ignored)} cannot be given with --follow: each line is taken as it comes, and a later one of "
            "an id replaces an earlier one; leave --follow away, or write the labels as they are meant"
        )


def _check(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Says which examples of a data file would be refused, and why. Nothing is stored."""
    rows = RowsRead()
    with read_file(args, terminal, lambda: _wanted(args)) as data, AdaptBar(terminal) as bar:
        result = client.check(
            args.model,
            data.examples(bar.reading, rows),
            **{**_what_to_adapt(args), "task": data.task},
            on_progress=bar.show,
        )
    notes = _told_at_the_end(data, terminal, _found_by_check(result, data))
    if args.json:
        terminal.json(_with_refused(result, rows, notes))
    else:
        good, found = result.examples - result.rejected_count, result.examples + rows.refused_count
        task = f" for the task {result.task.replace('_', '-')}" if result.task else ""
        terminal.line(f"{good:,} of {found:,} examples would be taken{task}; nothing was stored")
    terminal.rejections(result.rejected, result.rejected_count, rows)


def _wanted(args: argparse.Namespace) -> Wanted:
    """What an adaptation or its check wants of the data file."""
    return Wanted(_task(args), tuple(args.labels or ()), checked=args.check)


def _task(args: argparse.Namespace) -> str:
    """The task, as far as the arguments tell."""
    return args.task or (
        "regression" if args.value else "multi-label" if args.label_separator or args.labels_from else ""
    )


def _found_by_check(result: CheckResult, data: ReadFile) -> list[str]:
    """What the check of the examples found; of a file that was looked at as a whole, what is not said already."""
    similar = asked(result.similar_labels)
    return [*([] if data.whole else result.notices), *([f"warning: {similar}"] if similar else [])]


def _told_at_the_end(data: ReadFile, terminal: Terminal, more: Sequence[str] = ()) -> list[str]:
    """Says what was found while the examples were taken, and returns all that was found."""
    late = [*more, *data.end_notes()]
    for note in late:
        terminal.note(note)
    return [*data.notes, *late]


def _what_to_adapt(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `check` for an adaptation."""
    return {
        "method": args.method,
        "backbone": args.backbone,
        "task": _task(args),
        "labels": args.labels,
        "closed_labels": args.closed_labels,
        "base_version": args.base_version,
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
        "fine_tuning": _fine_tuning(args),
        "time_budget": args.time_budget,
    }


def _fine_tuning(args: argparse.Namespace) -> FineTuning | None:
    asked = FineTuning(unfrozen_layers=args.layers, epochs=args.epochs, learning_rate=args.learning_rate)
    return None if asked == FineTuning() else asked


def predict(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
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


def evaluate(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Measures a version on a data file."""
    rows = RowsRead()

    def wanted() -> Wanted:
        served = client.version(args.model, args.version, alias=args.alias)
        return Wanted(served.report.task, tuple(label.name for label in served.labels), by_id=False)

    with read_file(args, terminal, wanted) as data, CountBar(terminal, "evaluating:") as bar:
        result = client.evaluate(
            args.model,
            data.examples(bar.reading, rows),
            version=args.version,
            alias=args.alias,
            on_progress=lambda sent: bar.show(f"{sent:,} examples sent"),
        )
    notes = _told_at_the_end(data, terminal)
    if args.json:
        terminal.json(_with_lines(result, rows) | _refused(rows) | {"notes": notes})
    else:
        terminal.evaluation(result, rows, full=args.full)
    refused = [Rejection(it.index, it.reason, "", it.detail, "") for it in result.rejected]
    terminal.rejections(refused, result.rejected_count, rows)
    if not result.examples:
        raise DataError(f"no figure can be stated: {phrases.why_nothing(result, rows.refused_count)}")


def models(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists models."""
    _print(args, terminal, client.models(args.prefix), terminal.models)


def versions(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists a model's versions."""
    _print(args, terminal, client.versions(args.model), terminal.versions)


def backbones(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists the server's backbones."""
    _print(args, terminal, client.backbones(), terminal.backbones)


def report(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Prints a version's report, or writes it as a page and prints where."""
    version = client.version(args.model, args.version, alias=args.alias)
    if args.html:
        Path(args.html).write_text(page(version), encoding="utf-8")
    if args.json:
        terminal.json(version)
    elif args.html:
        terminal.line(args.html)
    else:
        terminal.report(
            version.model, version.version, version.report, aliases=version.aliases, full=args.full
        )


def promote(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Points an alias at a version."""
    model = client.set_alias(args.model, args.alias, args.version, expected_version=args.expected_version)
    if args.json:
        terminal.json(model)
    else:
        terminal.line(f"{model.name}: {args.alias} is version {model.aliases.get(args.alias, 0)}")


def examples(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists stored examples."""
    found = client.examples(
        args.model,
        adaptation_id=args.adaptation_id,
        subject=args.subject,
        include_inputs=args.inputs,
    )
    _print(args, terminal, found, terminal.examples)


def forget(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Erases examples."""
    erasure = client.delete_examples(
        args.model, ids=args.ids, subject=args.subject, delete_versions=args.delete_versions
    )
    if args.json:
        terminal.json(erasure)
        return
    terminal.line(f"{args.model}: {erasure.erased:,} erased")
    if erasure.deleted_versions:
        terminal.line(f"deleted versions: {_numbers(erasure.deleted_versions)}")
    if erasure.affected_versions:
        terminal.say(
            f"versions that may have been trained on them: {_numbers(erasure.affected_versions)}; adapt again with "
            "--base-version, then repeat this with --delete-versions"
        )


def _numbers(versions: Iterable[int]) -> str:
    return ", ".join(map(str, versions))


def export(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Writes a version's bundle to a folder."""
    with CountBar(terminal, "exporting:") as bar:
        bundle = client.export(
            args.model,
            args.directory,
            version=args.version,
            alias=args.alias,
            on_progress=lambda path, received: bar.show(f"{path}, {received / _MIB:.1f} MiB"),
        )
    for path in bundle.files:
        terminal.line(str(path))
    terminal.say(f"{len(bundle.files)} files, {bundle.size / _MIB:.1f} MiB, checked against their SHA-256")


def watch(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Follows an adaptation's events."""
    for event in client.watch(args.model, args.adaptation, from_event=args.from_event):
        if args.json:
            terminal.json(event)
        else:
            terminal.event(event)


def _with_refused(result: Any, rows: RowsRead, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A result for programs, with the rows that were refused before anything was sent, and notes on the file."""
    return {**plain(result), **_refused(rows), "notes": list(notes)}


def _refused(rows: RowsRead) -> dict[str, Any]:
    refused = [{"line": it.line, "place": it.place, "reason": it.reason} for it in rows.refused]
    return {"unread_count": rows.refused_count, "unread": refused}


def _with_lines(result: EvaluationResult, lines: Sequence[int]) -> dict[str, Any]:
    """An evaluation for programs, with the lines of its examples; figures that there are not are null."""
    value: dict[str, Any] = plain(result)
    value["trained_on_lines"] = [lines[it] for it in result.trained_on]
    for label in value["unknown_labels"]:
        label["lines"] = [lines[it] for it in label["indices"]]
    return value


def _told(rows: RowsRead, terminal: Terminal) -> Callable[[RowError], None]:
    def on_bad(error: RowError) -> None:
        rows.refuse(error)
        terminal.warning(str(error))

    return on_bad


def _print_prediction(
    args: argparse.Namespace, terminal: Terminal, text: str, prediction: Prediction
) -> None:
    if args.json:
        label, probability = prediction.label, prediction.probability
        terminal.json({"input": text, "label": label, "probability": probability, **plain(prediction)})
    else:
        terminal.prediction_line(text, prediction)


def _print(
    args: argparse.Namespace, terminal: Terminal, items: list[T], table: Callable[[list[T]], None]
) -> None:
    if args.json:
        for item in items:
            terminal.json(item)
    else:
        table(items)
