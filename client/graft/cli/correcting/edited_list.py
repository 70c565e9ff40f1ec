"""`graft adapt MODEL fixes.csv`: an edited list of stored examples, as `graft examples --output` wrote it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft._client.sync import Client
from graft._data_files.columns import DataError, RowError
from graft._data_files.corrections.reading import Found, ListRow, list_rows, take
from graft._data_files.files import DataFile
from graft._data_files.formats.edited_list import reading_of_list
from graft._data_files.reader import open_data
from graft._data_files.refused import RowsRead
from graft._records.adapting.told import AdaptProgress
from graft._records.evaluation.label_forms import new_labels
from graft._records.records import Version
from graft._records.stored_examples import StoredExample
from graft.cli.correcting.sending import Sending
from graft.cli.data_options import columns_of, reading_of
from graft.cli.refusals import say_refusals
from graft.errors import NotFoundError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal


def is_edited_list(args: argparse.Namespace, terminal: Terminal) -> bool:
    """Whether a command's data file is such a list, and nothing was said of its ids."""
    if args.id is not None or args.follow:
        return False
    reading = reading_of(args)
    if args.data == "-":
        ahead: bytes = terminal.interrupts.stdin.buffer.peek()  # type: ignore[attr-defined]
        return reading_of_list(ahead, reading) is not None
    if not Path(args.data).is_file():
        return False
    with DataFile(args.data, reading=reading, columns=columns_of(args)) as data:
        return data.is_list


def base_of_list(args: argparse.Namespace, client: Client, *, resumed: bool) -> Version:
    """The version that an edited list is about to change: the live one, if no other is asked for.

    Args:
        args: The arguments of `graft adapt`.
        client: The client.
        resumed: Whether the adaptation's id was given, so that it may have begun.

    Raises:
        DataError: The arguments say that the new version has no examples of another one.
    """
    if args.replace or args.base_version == "none":
        raise DataError(
            f"{args.data} is a list of examples that are stored already, and changes those of a version: leave "
            "--replace and --base-version none away, or name its columns (--id id) to train on its rows alone"
        )
    if resumed:
        with suppress(NotFoundError):
            extension = client.adaptation(args.model, args.adaptation_id).extension
            if extension is not None:
                return client.version(args.model, extension.base_version)
    number = args.base_version if args.base_version not in (None, "live") else None
    return client.version(args.model, None if number is None else int(number))


def adapt_by_list(
    args: argparse.Namespace,
    client: Client,
    terminal: Terminal,
    settings: dict[str, Any],
    base: Version,
    *,
    go_on: Callable[[AdaptProgress | None], str],
) -> int:
    """Sends what a person changed in a list, and shows the version that comes of it.

    Args:
        args: The arguments of `graft adapt`.
        client: The client.
        terminal: Where it is shown.
        settings: How to adapt.
        base: The version to go on from.
        go_on: Says how to go on, where the command ends before the server trains.

    Returns:
        The exit code: 1 for a check by which rows would be refused.
    """
    rows = RowsRead()
    listed = _rows(args, terminal, base, rows)
    found, number = _found(client, base, listed, rows)
    name = "standard input" if args.data == "-" else args.data
    what = f"{name} is a list of examples of version {number}"
    if number != base.version:
        what += f"; its changes go on top of version {base.version}"
    terminal.say(f"{what}: {found.said() or 'nothing is changed'}, {found.same:,} as they were")
    if found.texts:
        terminal.note(
            f"warning: {found.texts:,} texts differ from the stored ones, which stay: to change a text, send it in "
            "another file with its id and label, and name the column by --id"
        )
    for note in new_labels(found.labels, [it.name for it in base.labels]):
        terminal.note(note)
    if args.check or not found.said():
        _say_nothing_sent(terminal, args, found, rows)
        return int(args.check and rows.refused_count > 0)
    sending = Sending(client, terminal, base, args, go_on, settings)
    sending.finish(sending.send(found, rows), found, rows)
    return 0


def _rows(args: argparse.Namespace, terminal: Terminal, base: Version, rows: RowsRead) -> list[ListRow]:
    with (
        terminal.interrupts.opened(args.data) as source,
        open_data(args.data, reading_of(args), columns_of(args), source=source) as data,
    ):
        if not isinstance(data, DataFile):
            raise DataError(f"{args.data}: not a file")
        rows.unit, rows.place = data.unit, data.place
        return list(list_rows(data, base.task, rows.refuse))


def _found(client: Client, base: Version, listed: list[ListRow], rows: RowsRead) -> tuple[Found, int]:
    """What the rows change, and the version that they are compared with."""
    ids = [row.id for row in listed if row.id]
    number = max((row.version for row in listed), default=0) or base.version
    with_texts = any(row.text for row in listed)
    try:
        stored = client.examples(base.model, version=number, ids=ids, include_inputs=with_texts)
    except NotFoundError:  # the version was deleted since
        number = base.version
        stored = client.examples(base.model, version=number, ids=ids, include_inputs=with_texts)
    known: dict[str, StoredExample] = {it.id: it for it in stored}
    found, seen = Found(), set[str]()
    for row in listed:
        try:
            if row.id and row.id in seen:
                raise row.refusal(f"an earlier row has the id {row.id!r:.80}: leave one of them")
            seen.add(row.id)
            take(row, known.get(row.id), found)
        except RowError as error:
            rows.refuse(error)
    if number != base.version:
        changed = [*(it.id for it in found.edits), *(id_ for _, id_ in found.deleted)]
        newest = client.examples(base.model, version=base.version, ids=changed)
        found.on_top_of({it.id: it for it in newest})
    return found, number


def _say_nothing_sent(terminal: Terminal, args: argparse.Namespace, found: Found, rows: RowsRead) -> None:
    if args.json:
        refused = [{"line": it.line, "reason": it.reason} for it in rows.refused]
        terminal.json({"changes": found.counts, "unread_count": rows.refused_count, "unread": refused})
    elif args.check:
        terminal.line(f"{found.said() or 'nothing'} would be changed; nothing was stored")
    else:
        terminal.line("nothing is changed: the list says what is stored already, and no version was made")
    say_refusals(terminal, (), 0, rows, args)
