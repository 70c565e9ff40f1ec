"""`graft review`: look at what is doubtful in a version's examples, and adapt with what is mended."""

from __future__ import annotations

import argparse
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from graft._client.sync import Client
from graft._data_files.corrections.reading import Found
from graft._data_files.corrections.writing import Listed, written
from graft._data_files.refused import RowsRead
from graft._records.adapting.told import AdaptProgress
from graft._records.inputs.examples import TextPair
from graft._records.inputs.media import ending_of
from graft._records.records import Version
from graft.cli.arguments import Verbs, add_full, add_selector, add_verb
from graft.cli.correcting.items import Item, conflicts_of, duplicates_of, errors_of
from graft.cli.correcting.keys import Keys
from graft.cli.correcting.review import Ending, Review
from graft.cli.correcting.sending import Sending, newest_base
from graft.cli.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_HELP: Final = """\
Each example is shown with its label and the suggested one. A key answers, or without a terminal a line:
  k  keep the label: it is confirmed, and not asked about again
  c  correct it to the suggested label
  l  write another label; Tab completes it, and a new one is asked about. Without a terminal also: l LABEL
  d  delete the example from the versions to come
  s  skip it
  b  go back to the one before
  q  quit: what was decided is shown, and sent if you say yes
At the end the changes are shown. Nothing is sent without a yes; decisions that are not sent can be saved to a file,
which 'graft adapt MODEL FILE' sends. Ctrl-C asks what is to become of them.

examples:
  graft review support/intents
  graft review support/intents --version 3 --conflicts
"""


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(verbs, "review", "go through a version's doubtful labels, mend them and adapt", _HELP)
    parser.add_argument("model", metavar="MODEL", help="the model")
    add_selector(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--probable-errors",
        action="store_true",
        help="labels worth a second look, least likely first; this is the default",
    )
    what.add_argument(
        "--conflicts", action="store_true", help="inputs that occur under several labels instead"
    )
    what.add_argument("--duplicates", action="store_true", help="inputs that occur more than once instead")
    parser.add_argument(
        "--adaptation-id",
        default=uuid.uuid4().hex,
        metavar="ID",
        help="names the adaptation with the changes; default: a new one",
    )
    parser.add_argument(
        "--no-promote",
        action="store_true",
        help="publish without making the version live; default: it goes live, unless live is pinned",
    )
    add_full(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Goes through a version's doubtful labels, and adapts with what was decided.

    Returns:
        The exit code: 1 where the input ended, and 130 where a signal ended it, before a word of what to do.
    """
    version = client.version(args.model, args.version, alias=args.alias)
    kind = conflicts_of if args.conflicts else duplicates_of if args.duplicates else errors_of
    items = kind(client, version)
    if not items:
        what = (
            "conflict" if args.conflicts else "duplicate" if args.duplicates else "label worth a second look"
        )
        terminal.line(f"{version.model} version {version.version} has no {what} that is not confirmed")
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="graft-review-") as folder,
        terminal.interrupts.ending_input_first(),
        Keys(terminal) as keys,
    ):
        names = [label.name for label in version.labels]
        review = Review(terminal, keys, items, names, _Inputs(client, version, Path(folder)).shown)
        with Kept(terminal, version, items, review):
            ending = review.run(f"Adapt {version.model} with them?")
    if ending is Ending.SAVE:
        _save(terminal, version, items, review.found())
    if ending is not Ending.SEND:
        return INTERRUPTED if terminal.interrupts.input_ended else int(review.cut_off)
    chosen = args.version is not None or args.alias is not None
    found, rows = review.found(), RowsRead("example")
    args.data = "-"  # no file has the rows that a server refuses
    settings = {"promote": not args.no_promote}
    with Kept(terminal, version, items, review) as kept:
        base = newest_base(client, terminal, version, chosen=chosen)
        sending = Sending(client, terminal, base, args, _nothing_trained, settings, kept.sent)
        result = sending.send(found, rows)
    sending.finish(result, found, rows)
    return 0


class Kept:
    """Saves what was decided where an error or a signal ends the block, unless it was sent by then."""

    def __init__(self, terminal: Terminal, version: Version, items: list[Item], review: Review) -> None:
        self._terminal = terminal
        self._version = version
        self._items = items
        self._review = review
        self._sent = False

    def sent(self) -> None:
        """Notes that the server has it for good."""
        self._sent = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._sent and (found := self._review.found()).said():
            _save(self._terminal, self._version, self._items, found)


def _nothing_trained(_: AdaptProgress | None) -> str:
    return "nothing is being trained"


class _Inputs:
    """The inputs of the items, fetched when they are shown: texts to read, files to open."""

    def __init__(self, client: Client, version: Version, folder: Path) -> None:
        self._client = client
        self._version = version
        self._folder = folder
        self._known: dict[str, str] = {}

    def shown(self, item: Item) -> str:
        """The text, or where the picture or clip can be opened."""
        id_ = item.example.id
        if id_ not in self._known:
            self._known[id_] = self._fetched(id_)
        return self._known[id_]

    def _fetched(self, id_: str) -> str:
        found = self._client.examples(
            self._version.model, version=self._version.version, ids=[id_], include_inputs=True
        )
        match found[0].input if found else None:
            case str(text):
                return text
            case TextPair(first, second):
                return f"{first}\n{second}"
            case bytes(content):
                path = self._folder / f"{len(self._known) + 1}{ending_of(content)}"
                path.write_bytes(content)
                return str(path)
            case None:
                return "(the example was erased since)"
            case _:
                return "(features)"


def _save(terminal: Terminal, version: Version, items: list[Item], found: Found) -> None:
    """Writes the decisions as a list that `graft adapt` reads."""
    path = _free(f"{version.model.replace('/', '-')}-review")
    edits = {edit.id: edit.fields for edit in found.edits}
    deleted = {id_ for _, id_ in found.deleted}
    listed = []
    for item in items:
        id_ = item.example.id
        if id_ in deleted:
            listed.append(Listed(item.example, delete=True))
        elif id_ in edits:
            fields: dict[str, Any] = {"distribution": None} if "label" in edits[id_] else {}
            listed.append(Listed(replace(item.example, **fields, **edits[id_])))
    with path.open("w", encoding="utf-8", newline="") as file:
        written(listed, file, version=version.version, as_json=False)
    terminal.say(
        f"no version was made; the decisions are in {path}, and 'graft adapt {version.model} {path}' sends them"
    )


def _free(stem: str) -> Path:
    """A file name that is not taken."""
    numbers = (f"{stem}{f'-{number}' if number else ''}.csv" for number in range(1_000_000))
    return next(path for path in map(Path, numbers) if not path.exists())
