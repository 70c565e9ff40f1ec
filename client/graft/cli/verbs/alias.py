"""`graft alias`: list, set and remove aliases."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Model
from graft.cli.arguments import Verbs, add_verb, version_or_latest
from graft.cli.showing.live import pinned

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft alias support/intents
  graft alias support/intents canary 5
  graft alias support/intents canary latest
  graft alias support/intents canary --remove

Aliases stay where they are pointed. Only live follows publications; it stays
too where it was pointed at another version than the newest. 'graft promote
MODEL VERSION' moves live.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "alias", "list a model's aliases, or point one at a version", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the alias; default: list all of them")
    parser.add_argument(
        "version",
        metavar="VERSION",
        nargs="?",
        type=version_or_latest,
        help="the number of the version that it is to point at, or latest; default: say where it points",
    )
    parser.add_argument("--remove", action="store_true", help="remove the alias")
    parser.add_argument(
        "--expected-version",
        type=int,
        metavar="N",
        help="stop unless the alias points at this version now, 0 for none; default: move it from wherever it is",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists, sets or removes aliases."""
    if args.remove and (args.name is None or args.version is not None):
        raise ValueError("--remove takes the name of an alias, and no version")
    if args.version is not None or args.remove:
        version = 0 if args.remove else args.version
        changed = client.set_alias(args.model, args.name, version, expected_version=args.expected_version)
        _say(changed, args, terminal)
        return
    model = client.model(args.model)
    if args.name is not None:
        client.version(args.model, alias=args.name)  # raises what is right where there is none
        _say(model, args, terminal)
    elif args.json:
        terminal.json(model.aliases)
    else:
        columns = ("alias", "version", "")
        cells = ((alias, version, _note(model, alias)) for alias, version in model.aliases.items())
        terminal.table(columns, cells)


def _say(model: Model, args: argparse.Namespace, terminal: Terminal) -> None:
    version = model.aliases.get(args.name)
    if args.json:
        terminal.json(model)
    elif version is None:
        terminal.line(f"{model.name}: {args.name} is removed")
    else:
        terminal.line(f"{model.name}: {args.name} is version {version}")
        if note := _note(model, args.name):
            terminal.say(note)


def _note(model: Model, alias: str) -> str:
    return pinned(model) if alias == "live" else ""
