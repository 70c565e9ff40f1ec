"""`graft examples`: list stored examples."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.stored_examples import StoredExample
from graft.cli import phrases
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_COLUMNS: Final = ("adaptation", "writer", "sequence", "id", "target", "subject", "state", "text")


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "examples", "list what is stored of a model's examples")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "--subject", default="", metavar="WHO", help="only the examples of this person; default: of all"
    )
    parser.add_argument(
        "--adaptation-id",
        default="",
        metavar="ID",
        help="only the examples of this adaptation; default: of all",
    )
    parser.add_argument("--inputs", action="store_true", help="show the texts, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    """Lists stored examples."""
    found = client.examples(
        args.model,
        adaptation_id=args.adaptation_id,
        subject=args.subject,
        include_inputs=args.inputs,
    )
    if args.json:
        terminal.json_lines(found)
    else:
        terminal.table(_COLUMNS, map(_cells, found))


def _cells(example: StoredExample) -> tuple[object, ...]:
    return (
        example.adaptation_id,
        example.writer_id,
        example.sequence,
        example.id,
        phrases.target(example),
        example.subject,
        "replaced or removed" if example.deleted else "",
        example.text or "",
    )
