"""`graft forget`: erase examples."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft forget support/intents --subject customer-4711
  graft forget support/intents --id ticket-12 --id ticket-19 --delete-versions

Versions that were trained on what is erased stay until they are deleted. To go on without a pause: forget, adapt
again with --base-version, then repeat forget with --delete-versions.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "forget", "erase examples for good, with their features", _EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "--subject",
        default="",
        metavar="WHO",
        help="erase all examples of this person; default: only those of --id",
    )
    parser.add_argument(
        "--id",
        dest="ids",
        action="append",
        default=[],
        metavar="ID",
        help="erase this example; may be given several times; default: only those of --subject",
    )
    parser.add_argument(
        "--delete-versions",
        action="store_true",
        help="also delete the versions that may have been trained on erased examples",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Erases examples."""
    erasure = client.delete_examples(
        args.model, ids=args.ids, subject=args.subject, delete_versions=args.delete_versions
    )
    if args.json:
        terminal.json(erasure)
        return
    terminal.line(f"{args.model}: {erasure.erased:,} erased")
    if erasure.deleted_versions:
        terminal.line(f"deleted versions: {_numbers(erasure.deleted_versions)}")
    if erasure.affected_versions:
        terminal.say(
            f"versions that may have been trained on them: {_numbers(erasure.affected_versions)}; adapt again with "
            "--base-version, then repeat this with --delete-versions"
        )


def _numbers(versions: Iterable[int]) -> str:
    return ", ".join(map(str, versions))
