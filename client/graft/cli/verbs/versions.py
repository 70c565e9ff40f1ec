"""`graft versions`: list a model's versions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Version
from graft._report import words
from graft.cli import phrases
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

COLUMNS: Final = ("version", "aliases", "examples", "classes", "accuracy", "macro-F1", "backbone", "created")


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "versions", "list a model's versions, newest first")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists a model's versions."""
    versions = client.versions(args.model)
    if args.json:
        terminal.json_lines(versions)
    else:
        terminal.table(COLUMNS, map(cells, versions))


def cells(version: Version) -> tuple[object, ...]:
    """A version's row."""
    report = version.report
    return (
        version.version,
        ", ".join(version.aliases),
        f"{report.examples:,}",
        report.classes,
        words.accuracy(report) if report.regression is None else "",
        words.percent(report.macro_f1) if words.stated(report) and report.regression is None else "",
        report.backbone,
        phrases.time(version.create_time),
    )
