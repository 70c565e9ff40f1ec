"""`graft next`: which inputs to label next, in a table or in a file to be filled in."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graft._client.sync import Client
from graft._data_files.answers.asked import Source, ending_of
from graft._data_files.columns import DataError, Row
from graft._records.inputs.examples import Input, TextPair
from graft._records.predicting.suggestions import Suggestion, Suggestions
from graft._report import words
from graft._report.charts import cut
from graft.cli.answering.source import opened
from graft.cli.arguments import Verbs, add_selector, add_verb
from graft.cli.data_options import DATA_FILES, add_inputs, add_reading
from graft.cli.showing import phrases
from graft.cli.showing.plain import plain
from graft.cli.showing.spoken import spoken

if TYPE_CHECKING:
    from graft._data_files.answers.asked import AskedRow
    from graft.cli.showing.terminal import Terminal

_ROOM: Final = 100
"""Characters of a text in a table."""
_HELP: Final = """\
examples:
  graft next support/intents --from pool.csv
  graft next support/intents --from pool.csv -n 50 --output next.csv
  graft adapt support/intents next.csv
  graft next support/intents
  graft next shop/products --from photos/ --output next.csv

Worth a label is what the version cannot tell, what many others in the pool are like, and what is unlike all that is
labelled and suggested before; outliers and copies are not. A model without a version is asked for the first examples to
label: they are compared with each other alone.

In a file of --output the rows are as they are in the pool, with a column for the label to be filled in, and the columns
suggested (what the version would answer) and why. Fill in the labels, and 'graft adapt MODEL FILE' teaches them; rows
whose label is left empty are no harm.

{data_files}
"""
_REFUSED: Final = 3
_PATH: Final = "path"
"""The column of the names of a folder's files."""
_SAID: Final = ("suggested", "why")
"""The columns that a file of --output has beside the pool's."""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs,
        "next",
        "say what to label next: the inputs whose labels would teach a version most",
        _HELP.format(data_files=DATA_FILES),
    )
    parser.add_argument("model", metavar="MODEL", help="the model; it need not exist")
    parser.add_argument(
        "--from",
        dest="pool",
        metavar="FILE",
        help="the unlabelled inputs: a data file, a text file, a folder of pictures or clips, or - for standard input, "
        "its lines, or with --input a table; default: the unlabelled examples that are stored",
    )
    parser.add_argument(
        "-n",
        "--count",
        type=int,
        default=20,
        metavar="N",
        help="how many inputs to suggest at most; default: 20",
    )
    add_selector(parser)
    parser.add_argument(
        "--backbone",
        default="",
        metavar="NAME",
        help="where the model has no version: the backbone to compare by; default: the server's default backbone",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the rows to FILE, with a column for the label: CSV, or JSON lines if it ends with .jsonl; "
        "default: show them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    columns = parser.add_argument_group("the columns of the pool")
    add_inputs(columns, None)
    columns.add_argument(
        "--label",
        default="label",
        metavar="COLUMN",
        help="the column of the label to be filled in; default: label",
    )
    add_reading(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Says what to label next.

    Raises:
        DataError: The pool cannot be read, the output cannot be written, or there is nothing to suggest.
    """
    output = _output(args)
    _check_target(args, output)
    pool = _Pool()
    with ExitStack() as stack:
        candidates = None
        if args.pool is not None:
            source = stack.enter_context(terminal.interrupts.opened(args.pool))
            data = stack.enter_context(opened(args, args.pool, _kind(args), source))
            bar = stack.enter_context(terminal.count_bar("ranking:"))
            candidates = pool.inputs(data, bar.reading)
            tell = bar.show
        else:
            tell = terminal.say
        found = client.suggest(
            args.model,
            candidates,
            n=args.count,
            version=args.version,
            alias=args.alias,
            backbone=args.backbone,
            on_progress=lambda sent: tell(f"{sent:,} candidates sent"),
        )
    _say(terminal, args, pool, found)
    if output is not None:
        _write(args, output, pool, found)
        again = _adapting(args, output, found)
        count = words.plural(len(found), "row")
        terminal.say(f"{output}: {count} to label; fill in the column {_target(args, found)}, then: {again}")
    elif args.json:
        terminal.json(_plain(pool, found))
    elif found:
        terminal.table(
            ("rank", "id" if args.pool is None else "line", "input", "probably", "why"),
            [_cells(rank, it, pool) for rank, it in enumerate(found, 1)],
        )
    if not found:
        raise DataError("nothing is left to suggest: every candidate is labelled, or like one that is")


class _Pool:
    """The rows of the pool that are candidates."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        """The line of each candidate, and its values by column."""
        self.unread: list[str] = []
        """What is wrong with the first rows that are none."""
        self.unread_count = 0

    def inputs(self, data: Source, on_read: Any) -> Iterator[Input]:
        """The candidates, as they are read."""
        for asked in data.rows():
            if not asked.asks:
                continue
            on_read(data.done)
            blank = isinstance(asked.input, str) and not asked.input.strip()
            if blank and data.form.data_format == "lines":
                continue
            if asked.input is None or blank:
                self._refuse(asked)
            else:
                self.rows.append(_values(asked))
                yield asked.input

    def _refuse(self, asked: AskedRow) -> None:
        self.unread_count += 1
        if len(self.unread) < _REFUSED:
            line = getattr(asked.whole.row, "line", 0)
            self.unread.append(f"line {line}: {asked.error or 'the input is empty'}")


def _values(asked: AskedRow) -> tuple[int, dict[str, Any]]:
    row = asked.whole.row
    if isinstance(row, Row):
        return row.line, dict(row.values)
    return getattr(row, "line", 0), {_PATH: str(asked.input)}


def _kind(args: argparse.Namespace) -> str:
    named = any(
        getattr(args, it) for it in ("input", "path", "second", "columns", "sheet", "delimiter", "format")
    )
    if named or (args.pool != "-" and Path(args.pool).is_dir()):
        return "table"
    return "lines" if args.pool == "-" or ending_of(args.pool) == "lines" else "table"


def _output(args: argparse.Namespace) -> Path | None:
    if args.output is None:
        return None
    path = Path(args.output)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give --output the name of a file")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}; make it first")
    if path.exists():
        if args.pool not in (None, "-") and Path(args.pool).exists() and path.samefile(args.pool):
            raise DataError(f"{path} is the pool, too; give --output another name")
        if not args.overwrite:
            raise DataError(f"{path} is there already; --overwrite replaces it")
    return path


def _check_target(args: argparse.Namespace, output: Path | None) -> None:
    """Refuses a column of labels that holds something else."""
    if output is None:
        return
    if args.label in (args.path or args.input or "text", args.second):
        raise DataError(f"the column '{args.label}' is the input's; give --label the name of another")
    if args.label in _SAID:
        raise DataError(f"the column '{args.label}' is what --output adds; give --label another name")


def _say(terminal: Terminal, args: argparse.Namespace, pool: _Pool, found: Suggestions) -> None:
    """Says what came of the candidates that are not suggested."""
    if not found.version:
        terminal.note(
            f"{args.model} has no version yet, so that candidates were compared with each other alone: these are the "
            "first to label"
        )
    refused = pool.unread_count + found.rejected_count
    if refused:
        terminal.note(f"warning: {words.plural(refused, 'candidate')} could not be read")
        for text in pool.unread:
            terminal.say(f"  {text}")
        for it in found.rejected[:_REFUSED]:
            terminal.say(f"  line {pool.rows[it.index][0]}: {spoken(it.detail)} [{it.reason}]")
    left = [
        (found.labelled, "labelled already"),
        (found.copies, "the same as an earlier one"),
    ]
    if any(count for count, _ in left):
        terminal.say(
            f"{words.plural(found.candidates, 'candidate')} ranked; left out: "
            + ", ".join(f"{count:,} {what}" for count, what in left if count)
        )


def _cells(rank: int, it: Suggestion, pool: _Pool) -> tuple[str, ...]:
    place = it.id if it.index is None else str(pool.rows[it.index][0])
    return str(rank), place, _shown(it), _probably(it), it.why


def _shown(it: Suggestion) -> str:
    match it.input:
        case str(text):
            shown = text
        case TextPair(first, second):
            shown = f"{first} | {second}"
        case bytes() | None:
            shown = ""
        case _:
            shown = str(it.input)
    return cut(words.printable(" ".join(shown.split())), _ROOM)


def _probably(it: Suggestion) -> str:
    if it.prediction is None:
        return ""
    label, certainty, _ = phrases.answer(it.prediction)
    return f"{label} ({certainty})" if label and certainty else label


def _target(args: argparse.Namespace, found: Suggestions) -> str:
    """The column to be filled in."""
    return "value" if found.task == "regression" and args.label == "label" else str(args.label)


def _adapting(args: argparse.Namespace, output: Path, found: Suggestions) -> str:
    """The command that sends the file."""
    target = _target(args, found)
    options = {
        "--input": args.input,
        "--path": args.path or (_PATH if _has_paths(found) else None),
        "--second": args.second,
        "--value" if found.task == "regression" else "--label": None if target == "label" else target,
    }
    given = [word for option, value in options.items() if value for word in (option, value)]
    return shlex.join(["graft", "adapt", args.model, str(output), *given])


def _has_paths(found: Suggestions) -> bool:
    return any(isinstance(it.input, os.PathLike) for it in found)


def _rows(args: argparse.Namespace, pool: _Pool, found: Suggestions) -> list[dict[str, Any]]:
    """The rows of the file to be filled in."""
    rows = []
    for it in found:
        values = _stored(it) if it.index is None else dict(pool.rows[it.index][1])
        if isinstance(it.input, os.PathLike) and args.output:
            # Names of files begin at the folder of the file that has them.
            values[args.path or _PATH] = os.path.relpath(it.input, Path(args.output).parent)
        suggested = "" if it.prediction is None else phrases.answer(it.prediction)[0]
        values.setdefault(_target(args, found), "")
        rows.append({**values, "suggested": suggested, "why": it.why})
    return rows


def _stored(it: Suggestion) -> dict[str, Any]:
    match it.input:
        case str(text):
            return {"id": it.id, "text": text}
        case TextPair(first, second):
            return {"id": it.id, "text": first, "second": second}
        case _:
            return {"id": it.id}


def _write(args: argparse.Namespace, path: Path, pool: _Pool, found: Suggestions) -> None:
    rows = _rows(args, pool, found)
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["text", args.label]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            return
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows(
            ["" if (value := row.get(name)) is None else value for name in columns] for row in rows
        )


def _plain(pool: _Pool, found: Suggestions) -> dict[str, Any]:
    """What was found, for programs."""
    suggestions = []
    for it in found:
        value: dict[str, Any] = {**plain(it), "why": it.why}
        value["input"] = it.input if isinstance(it.input, str) else None
        value["line"] = None if it.index is None else pool.rows[it.index][0]
        suggestions.append(value)
    facts = ("model", "version", "task", "candidates", "labelled", "copies", "rejected_count")
    return {name: getattr(found, name) for name in facts} | {
        "unread_count": pool.unread_count,
        "suggestions": suggestions,
    }
