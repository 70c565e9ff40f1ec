"""`graft models`: list models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Model
from graft.cli import phrases
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_COLUMNS: Final = ("model", "live", "latest", "versions", "other aliases", "created")


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "models", "list models")
    parser.add_argument(
        "prefix",
        metavar="PREFIX",
        nargs="?",
        default="",
        help="only models whose names start with this; default: all",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists models."""
    models = client.models(args.prefix)
    if args.json:
        terminal.json_lines(models)
    else:
        terminal.table(_COLUMNS, map(_cells, models))


def _cells(model: Model) -> tuple[object, ...]:
    others = ", ".join(f"{alias}={version}" for alias, version in model.aliases.items() if alias != "live")
    return (
        model.name,
        model.aliases.get("live", ""),
        model.latest_version or "",
        model.versions,
        others,
        phrases.time(model.create_time),
    )
