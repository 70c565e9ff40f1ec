"""Rows that were refused, for people and for programs: by the reason, how many, and the first of each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graft._data_files.columns import DataError
from graft._data_files.refused import FIRST, RowsRead
from graft._records.adapting.row_counts import RowCounts
from graft.cli.reading import BEYOND, shown_values
from graft.cli.showing.plain import plain
from graft.cli.showing.spoken import spoken
from graft.errors import GraftError, Rejection

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was refused."""

    line: int
    """Its line, from 1; of an example whose line is not known, its number."""
    place: str
    """The same in words: "line 5"."""
    detail: str
    """What was wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class RefusedKind:
    """Rows that were refused for one reason."""

    reason: str
    """UPPER_SNAKE_CASE, of the server; "" if the row could not be read."""
    count: int
    """How many there are."""
    first: tuple[RefusedRow, ...]
    """The first three."""


def refused_kinds(rejected: Sequence[Rejection], rows: RowsRead) -> list[RefusedKind]:
    """The rows that were refused, by the reason, the most frequent first.

    Args:
        rejected: The examples that the server refused.
        rows: The rows that were read, and those of which no example could be made.
    """
    kinds = [
        RefusedKind("", rows.kinds[kind], tuple(RefusedRow(it.line, it.place, it.reason) for it in first))
        for kind, first in rows.first_of_kind.items()
    ]
    by_reason: dict[str, list[Rejection]] = {}
    for it in rejected:
        by_reason.setdefault(it.reason, []).append(it)
    kinds += [
        RefusedKind(reason, len(found), tuple(_row(it, rows) for it in found[:FIRST]))
        for reason, found in by_reason.items()
    ]
    return sorted(kinds, key=lambda it: (-it.count, it.first[0].line))


def _row(rejection: Rejection, rows: RowsRead) -> RefusedRow:
    line = rows.line(rejection.sequence)
    place = f"example {rejection.sequence}" if line is None else rows.place(line)
    return RefusedRow(rejection.sequence if line is None else line % BEYOND, place, rejection.detail)


def say_refusals(
    terminal: Terminal,
    rejected: Sequence[Rejection],
    count: int,
    rows: RowsRead,
    args: argparse.Namespace,
) -> None:
    """Which rows were refused, by the reason: the first three of each, with their lines and values where known.

    Args:
        terminal: Where it is said.
        rejected: The first examples that the server refused.
        count: How many it refused.
        rows: The rows that were read, and those of which no example could be made.
        args: The command's arguments, which name the file and its columns.
    """
    if not (total := count + rows.refused_count):
        return
    terminal.err.print(f"[yellow]{total:,} example{'s were' if total > 1 else ' was'} refused:[/]")
    kinds = refused_kinds(rejected, rows)
    values = shown_values(args, {row.line for kind in kinds if kind.reason for row in kind.first})
    for kind in kinds:
        tag = f" [{kind.reason}]" if kind.reason else ""
        indent = "  "
        if kind.count > 1:
            of = kind.reason or "rows that cannot be read"
            terminal.say(f"  {kind.count:,} × {of}{', the first' if kind.count > len(kind.first) else ''}:")
            tag, indent = "", "    "
        for row in kind.first:
            terminal.say(f"{indent}{row.place}: {spoken(row.detail)}{tag}{_value(values, row)}")
    if (told := sum(kind.count for kind in kinds)) < total:
        terminal.say(f"  … and {total - told:,} more")


def _value(values: Mapping[int, str], row: RefusedRow) -> str:
    return f" (the row: {values[row.line]})" if row.line in values else ""


@contextmanager
def refusals_told(terminal: Terminal, rows: RowsRead, args: argparse.Namespace) -> Iterator[None]:
    """Says which rows were refused where the work in its block fails: they may be why."""
    try:
        yield
    except GraftError as error:
        say_refusals(terminal, error.rejections, error.rejected_count, rows, args)
        raise
    except DataError:
        if rows.refused_count > 1:  # the error itself tells a single one
            say_refusals(terminal, (), 0, rows, args)
        raise


def say_rows(terminal: Terminal, counts: RowCounts | None) -> None:
    """Says what became of the rows, where there are fewer examples than rows, and where most were refused."""
    if counts is None:
        return
    if counts.examples != counts.read:
        terminal.say(counts.said())
    if 2 * counts.refused > counts.read:
        terminal.note(f"warning: most rows were refused: {counts.refused:,} of {counts.read:,}")


def with_refused(
    result: Any, rows: RowsRead, notes: Sequence[str] = (), counts: RowCounts | None = None
) -> dict[str, Any]:
    """A result for programs, with the rows that were refused, by the reason, what became of all, and notes.

    Args:
        result: An adaptation's or a check's.
        rows: The rows that were read, and those of which no example could be made.
        notes: What was found in the file, in sentences.
        counts: What became of the file's rows.
    """
    kinds = plain(refused_kinds(result.rejected, rows))
    return {
        **plain(result),
        **refused(rows),
        "rows": plain(counts),
        "refused_by_reason": kinds,
        "notes": list(notes),
    }


def refused(rows: RowsRead) -> dict[str, Any]:
    """The rows that were refused before anything was sent, for programs."""
    found = [{"line": it.line, "place": it.place, "reason": it.reason} for it in rows.refused]
    return {"unread_count": rows.refused_count, "unread": found}
