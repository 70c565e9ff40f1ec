"""`graft report`: what a version was trained on, and how good it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from graft._client.sync import Client
from graft._report.page import page
from graft.cli.arguments import Verbs, add_full, add_selector, add_verb
from graft.cli.showing.reports import show_report

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "report", "show what a version was trained on and how good it is")
    parser.add_argument("model", metavar="MODEL", help="the model")
    add_selector(parser)
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write the report to this file, as one page that needs no other file; default: print it",
    )
    add_full(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Prints a version's report, or writes it as a page and prints where."""
    version = client.version(args.model, args.version, alias=args.alias, quotes=True)
    if args.html:
        Path(args.html).write_text(page(version), encoding="utf-8")
    if args.json:
        terminal.json(version)
    elif args.html:
        terminal.line(args.html)
    else:
        show_report(
            terminal,
            version.model,
            version.version,
            version.report,
            aliases=version.aliases,
            extension=version.extension,
            full=args.full,
        )
