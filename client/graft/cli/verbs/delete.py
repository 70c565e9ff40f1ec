"""`graft delete`: delete a model, or one of its versions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.records import Model
from graft._report import words
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases
from graft.cli.verbs.adaptations import sent
from graft.errors import NotFoundError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft delete support/intents --version 3
  graft delete support/intents
  graft delete support/intents --yes

On a terminal it says what goes, and asks. Elsewhere it needs --yes. A version
that an alias points at is not deleted. Examples stay stored when a version is
deleted; 'graft forget' erases examples of a model that stays.
"""

NOT_DELETED: Final = 1
"""The exit code where the answer to the question was no."""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs,
        "delete",
        "delete a model with its versions, adaptations and examples, or one version",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="delete only the version with this number; default: the whole model",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Deletes a model or a version."""
    what = _model(args, client) if args.version is None else _version(args, client)
    if not args.yes:
        answer = terminal.ask(f"{what}. This cannot be undone. Delete? [y/N] ")
        if answer is None:
            raise ValueError(
                f"nothing was deleted, because nobody can be asked here: {what}; give --yes for it"
            )
        if answer.lower() not in ("y", "yes"):
            terminal.say("nothing was deleted")
            return NOT_DELETED
    if args.version is None:
        client.delete_model(args.model)
    else:
        client.delete_version(args.model, args.version)
    if args.json:
        terminal.json({"model": args.model, "version": args.version, "deleted": True})
    else:
        terminal.line(
            f"{args.model}: {'deleted' if args.version is None else f'version {args.version} is deleted'}"
        )
    return 0


def _model(args: argparse.Namespace, client: Client) -> str:
    """What goes with a model."""
    adaptations = client.adaptations(args.model)
    try:
        model: Model | None = client.model(args.model)
    except NotFoundError:
        if not adaptations:
            raise
        model = None
    versions = words.plural(model.versions if model else 0, "version")
    live = f", of which version {model.live.version} is live" if model and model.live else ""
    return f"{args.model} goes with {versions}{live}, and {sent(adaptations)}"


def _version(args: argparse.Namespace, client: Client) -> str:
    """What goes with a version."""
    version = client.version(args.model, args.version)
    if version.aliases:
        raise ValueError(
            f"version {version.version} of {version.model} is what {', '.join(version.aliases)} points at, and is not "
            f"deleted: {_remedy(version.model, version.aliases)}"
        )
    figures = words.in_short(version.report)
    made = phrases.time(version.create_time)
    return f"version {version.version} of {version.model} goes ({figures}; published {made}); its examples stay stored"


def _remedy(model: str, aliases: tuple[str, ...]) -> str:
    """How to point aliases away from a version."""
    others = [it for it in aliases if it != "live"]
    live = [f"'graft promote {model} VERSION' points live at another one"] if "live" in aliases else []
    return "; ".join([*live, *(f"'graft alias {model} {it} --remove' removes {it}" for it in others)])
