"""`graft metadata`: show and change the metadata of a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft.cli.arguments import Verbs, add_verb, pair

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft metadata support/intents
  graft metadata support/intents owner=ann team='customer support'
  graft metadata support/intents --remove team

Metadata is for people and programs to find again; it decides nothing. That of
a version is given when it is made: 'graft adapt MODEL train.csv --metadata
source=train.csv'.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "metadata", "show a model's metadata, or change it", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "pairs", metavar="KEY=VALUE", nargs="*", type=pair, help="a pair to set; default: show all of them"
    )
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="KEY",
        help="a key to remove; may be given several times; default: none",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Shows or changes the metadata of a model."""
    changes: dict[str, str | None] = {**dict.fromkeys(args.remove), **dict(args.pairs)}
    model = client.set_metadata(args.model, changes) if changes else client.model(args.model)
    if args.json:
        terminal.json(model.metadata)
        return
    for key, value in model.metadata.items():
        terminal.line(f"{key}={' '.join(value.splitlines())}")
    if not model.metadata:
        terminal.line(f"{model.name}: no metadata")
