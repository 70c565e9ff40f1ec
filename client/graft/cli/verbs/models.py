"""`graft models`: list models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Model
from graft._report import words
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

COLUMNS: Final = ("model", "live", "newest", "accuracy", "examples", "backbone", "published")

_EXAMPLES: Final = """\
examples:
  graft models
  graft models support/
  graft models --json

The accuracy, the examples, the backbone and the time are those of the live
version; each accuracy was measured on the model's own examples. A live version
that is pinned stays live when others are published: see 'graft promote
--help'.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "models", "list models, and how good what is live of each is", _EXAMPLES)
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
    elif not models:
        named = f" whose name starts with {args.prefix}" if args.prefix else ""
        terminal.say(f"there is no model{named}: 'graft adapt MODEL train.csv' makes one")
    else:
        terminal.table(COLUMNS, map(cells, models))


def cells(model: Model) -> tuple[object, ...]:
    """A model's row."""
    live = model.live
    if live is None:
        return model.name, "none", model.latest_version or "", "", "", "", phrases.moment(model.create_time)
    pinned = " (pinned)" if model.live_pinned_time is not None else ""
    return (
        model.name,
        f"{live.version}{pinned}",
        model.latest_version,
        words.score(live.report),
        f"{live.report.examples:,}",
        live.report.backbone,
        phrases.moment(live.create_time),
    )
