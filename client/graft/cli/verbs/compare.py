"""`graft compare`: say which of two versions is better."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graft._client.comparing import compare, require_comparable
from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._data_files.refused import RowsRead
from graft._records.records import Version
from graft.cli.arguments import Verbs, add_verb
from graft.cli.comparing import measured, reported
from graft.cli.data_options import DATA_FILES, add_data
from graft.cli.reading import Wanted, read_file, told_at_the_end
from graft.cli.refusals import refused, say_refusals
from graft.cli.showing.plain import plain

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_SHOWN: Final = 10

_EXAMPLES: Final = f"""\
examples:
  graft compare support/intents 4 5 test.csv --label intent
  graft compare support/intents live latest test.csv --output changes.csv
  graft compare support/intents 4 5

With a file, both versions answer the same rows, and it is said whether one is better: the difference with its 95%
interval, and the rows whose answers changed. Rows that either version was trained on, or copies of them, are left
out. Without a file, it is said what the two versions were made of, and whether the figures of their reports can be set
side by side.

{DATA_FILES}
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs, "compare", "say which of two versions is better, and which answers change", _EXAMPLES
    )
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("one", metavar="FIRST", help="a version's number, an alias, or latest")
    parser.add_argument("other", metavar="SECOND", help="the version that FIRST is compared with, likewise")
    add_data(parser, optional=True)
    parser.add_argument(
        "--changes",
        type=int,
        default=_SHOWN,
        metavar="N",
        help=f"how many changed answers are shown; default: {_SHOWN}",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write all changed answers to FILE, as CSV; default: none"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Compares two versions on a file's rows, or by their reports."""
    if args.data is None and args.output:
        raise DataError(
            "--output writes the answers that change on a file's rows: give a file of labelled examples"
        )
    output = _output(args)
    first, second = (_version(args, client, it) for it in (args.one, args.other))
    if first.version == second.version:
        raise DataError(f"{args.one} and {args.other} are the same version, {first.version}")
    if args.data is None:
        examples = reported.changed_examples(client, first, second)
        if args.json:
            terminal.json(reported.as_plain(first, second, examples))
        else:
            reported.show(terminal, first, second, examples)
        return
    require_comparable(first, second)
    _measure(args, client, terminal, (first, second), output)


def _measure(
    args: argparse.Namespace,
    client: Client,
    terminal: Terminal,
    versions: tuple[Version, Version],
    output: Path | None,
) -> None:
    rows = RowsRead()
    labels = dict.fromkeys(it.name for version in versions for it in version.labels)

    with (
        read_file(args, terminal, lambda: Wanted(versions[0].task, tuple(labels), by_id=False)) as data,
        terminal.count_bar("comparing:") as bar,
    ):
        examples = list(data.examples(lambda _: None, rows))
        bar.show(f"{len(examples):,} examples")
        found = compare(client, *versions, examples, bar.reading)
    notes = told_at_the_end(data, terminal)
    if output is not None:
        measured.write_changes(output, found, examples, rows)
    if args.json:
        lines: dict[str, Any] = {"lines": [rows[it.index] for it in found.changes]}
        said = {"sentence": measured.sentence(found), "mended": found.mended, "broken": found.broken}
        terminal.json(plain(found) | said | lines | refused(rows) | {"notes": notes})
    else:
        measured.show(terminal, found, examples, rows, most=args.changes, written=args.output is not None)
    say_refusals(terminal, (), 0, rows, args)
    if output is not None:
        terminal.say(f"{len(found.changes):,} changed answers: {output}")
    if not found.examples:
        raise DataError(measured.sentence(found))


def _output(args: argparse.Namespace) -> Path | None:
    """The file of changed answers. Raises DataError where it cannot be written."""
    if not args.output:
        return None
    path = Path(args.output)
    if path.exists() and not args.overwrite:
        raise DataError(f"{path} is there already; --overwrite replaces it")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}; make it first")
    return path


def _version(args: argparse.Namespace, client: Client, name: str) -> Version:
    """The version of a number, of an alias, or the latest one."""
    if name.isdecimal():
        return client.version(args.model, int(name))
    model = client.model(args.model)
    if name == "latest" and name not in model.aliases:
        return client.version(args.model, model.latest_version)
    if name not in model.aliases:
        known = ", ".join(["latest", *sorted(model.aliases)])
        raise DataError(f"{name!r} is no version of {args.model}: give a number, or one of {known}")
    return client.version(args.model, alias=name)
