"""`graft promote`: point an alias at a version."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft.cli.arguments import Verbs, add_verb, version_or_latest
from graft.cli.showing.live import pinned

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft promote support/intents 4
  graft promote support/intents latest

An older version than the newest is pinned: what is published later does not go
live by itself. 'graft promote MODEL latest' makes the newest version live, and
releases the pin.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "promote", "make a version the live one; also rolls back", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "version", metavar="VERSION", type=version_or_latest, help="the version's number, or latest"
    )
    parser.add_argument(
        "--alias", default="live", metavar="ALIAS", help="the alias that is moved; default: live"
    )
    parser.add_argument(
        "--expected-version",
        type=int,
        metavar="N",
        help="stop unless the alias points at this version now; default: move it from wherever it is",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Points an alias at a version."""
    model = client.set_alias(args.model, args.alias, args.version, expected_version=args.expected_version)
    if args.json:
        terminal.json(model)
    else:
        terminal.line(f"{model.name}: {args.alias} is version {model.aliases.get(args.alias, 0)}")
        if args.alias == "live" and (said := pinned(model)):
            terminal.say(said)
