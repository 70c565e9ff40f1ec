"""`graft examples`: list stored examples, on the terminal or in a file that can be edited and sent back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._data_files.corrections.writing import Listed, written
from graft._records.inputs.examples import TextPair
from graft._records.stored_examples import StoredExample
from graft._report import words
from graft._report.charts import cut
from graft.cli.arguments import Verbs, add_verb
from graft.cli.showing import phrases

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_ROOM: Final = 100
"""Characters of a text in a table."""
_HELP: Final = """\
examples:
  graft examples support/intents --version 3
  graft examples support/intents --probable-errors
  graft examples support/intents --probable-errors --output fixes.csv
  graft adapt support/intents fixes.csv
  graft examples support/intents --version 3 --output all.jsonl

The list of all is in the order of adaptation, writer and sequence, which are shown; that of a version in the order in
which it goes on from its adaptations, oldest first. Probable errors are in the order of their label's probability,
the least likely first.

In a file of --output, edit the column label, or write yes in the column confirmed or delete; 'graft adapt MODEL FILE'
sends what you changed, and needs no options. Rows that you remove from the file stay as they are.
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "examples", "list what is stored of a model's examples", _HELP)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="what this version was trained or measured on, without replaced examples; default: all that is "
        "stored, or with --probable-errors or --output the live version",
    )
    parser.add_argument(
        "--probable-errors", action="store_true", help="only those whose label is worth a second look"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write them to a file to be edited and sent back: CSV, or JSON lines if it ends with .jsonl; - is "
        "standard output, as CSV, or as JSON lines with --json; default: show them",
    )
    parser.add_argument(
        "--label", default="", metavar="LABEL", help="only the examples of this label; default: of all"
    )
    parser.add_argument(
        "--split",
        default="",
        choices=["train", "validation"],
        help="only the examples of this split; default: of both",
    )
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
    number: int | None = args.version
    if number is None and (args.probable_errors or args.output):
        number = client.version(args.model).version
    listed = _listed(args, client, number)
    if args.output:
        _write(args, terminal, listed, number or 0)
    elif args.json:
        terminal.json_lines(it.error or it.example for it in listed)
    elif args.probable_errors:
        _show(terminal, [_error_row(it) for it in listed])
    else:
        _show(terminal, [_row(it.example) for it in listed])


def _listed(args: argparse.Namespace, client: Client, number: int | None) -> list[Listed]:
    """The examples that are asked for; of a list of errors all filters are ours."""
    if not args.probable_errors:
        found = client.examples(
            args.model,
            adaptation_id=args.adaptation_id,
            subject=args.subject,
            version=number,
            label=args.label,
            split=args.split,
            include_inputs=args.inputs or bool(args.output),
        )
        return [Listed(it) for it in found]
    errors = client.probable_errors(args.model, number, include_inputs=True)
    return [Listed(it.example, it) for it in errors if _wanted(args, it.example)]


def _wanted(args: argparse.Namespace, example: StoredExample) -> bool:
    labels = example.labels if example.labels is not None else (example.label,)
    return (
        args.adaptation_id in ("", example.adaptation_id)
        and args.subject in ("", example.subject)
        and args.split in ("", example.split)
        and (not args.label or args.label in labels)
    )


def _write(args: argparse.Namespace, terminal: Terminal, listed: list[Listed], number: int) -> None:
    as_json = args.json if args.output == "-" else args.output.lower().endswith((".jsonl", ".ndjson"))
    if args.output == "-":
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(newline="")  # line ends as they are in texts
        written(listed, sys.stdout, version=number, as_json=as_json)
        return
    with Path(args.output).open("w", encoding="utf-8", newline="") as file:
        count = written(listed, file, version=number, as_json=as_json)
    what = "example whose label is" if count == 1 else "examples whose label is"
    doubt = f" {what} worth a second look" if args.probable_errors else f" example{'' if count == 1 else 's'}"
    terminal.say(f"{args.output}: {count:,}{doubt} of version {number} of {args.model}")
    if count:
        terminal.say(f"edit the column label, then: graft adapt {args.model} {args.output}")


def _error_row(listed: Listed) -> dict[str, str]:
    """The cells of a probable error, by column."""
    example, error = listed.example, listed.error
    if error is None:
        return {}
    return {
        "probability": words.percent(error.probability),
        "label": phrases.target(example),
        "more likely": error.suggested_cell,
        "its probability": words.percent(error.suggested_probability),
        "from": example.origin or example.id,
        "text": _text(example),
    }


def _row(example: StoredExample) -> dict[str, str]:
    """The cells of an example, by column. Its place is in the id that the server derives; another id is beside it."""
    place = f"{example.adaptation_id}/{example.writer_id}/{example.sequence}"
    states = {"replaced or removed": example.deleted, "confirmed": example.confirmed}
    return {
        "adaptation/writer/sequence": place,
        "id": "" if example.id == place else example.id,
        "from": example.origin,
        "target": phrases.target(example),
        "split": example.split,
        "subject": example.subject,
        "state": ", ".join(state for state, is_so in states.items() if is_so),
        "text": _text(example),
    }


def _show(terminal: Terminal, rows: list[dict[str, str]]) -> None:
    """A table of the columns in which there is something."""
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    terminal.table(columns, ([row[name] for name in columns] for row in rows))


def _text(example: StoredExample) -> str:
    match example.input:
        case str(text):
            shown = text
        case TextPair(first, second):
            shown = f"{first} | {second}"
        case _:
            shown = ""
    return cut(words.printable(" ".join(shown.split())), _ROOM)
