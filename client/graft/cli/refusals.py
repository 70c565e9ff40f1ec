"""Rows that were refused, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from graft._data_files.refused import RowsRead
from graft.cli.plain import plain
from graft.errors import Rejection

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_SHOWN_REJECTIONS: Final = 5
_SHOWN_FINDINGS: Final = 5
_UNLIMITED_WIDTH: Final = 1000
_NUMBERS: Final = frozenset(
    {"accuracy", "classes", "evaluated", "examples", "F1", "features", "latest", "layers", "live", "log-loss"}
    | {"macro-F1", "precision", "probability", "recall", "times", "tokens", "version", "versions"}
)
"""Columns that hold numbers, and are aligned as such."""


def say_refusals(
    terminal: Terminal,
    rejected: Sequence[Rejection],
    count: int,
    rows: RowsRead,
) -> None:
    """Which rows were refused: the first few, with their lines where these are known.

    Args:
        terminal: Where it is said.
        rejected: The first examples that the server refused.
        count: How many it refused.
        rows: The rows that were read, and those of which no example could be made.
    """
    found = [(it.line, f"{it.place}: {it.reason}") for it in rows.refused]
    for it in rejected:
        line = rows.line(it.sequence)
        where = f"example {it.sequence}" if line is None else rows.place(line)
        found.append((line or it.sequence, f"{where}: {it.detail} [{it.reason}]"))
    if not (total := count + rows.refused_count):
        return
    terminal.err.print(f"[yellow]{total:,} example{'s were' if total > 1 else ' was'} refused:[/]")
    for _, text in sorted(found)[:_SHOWN_REJECTIONS]:
        terminal.say(f"  {text}")
    if total > _SHOWN_REJECTIONS:
        terminal.say(f"  … and {total - _SHOWN_REJECTIONS:,} more")


def with_refused(result: Any, rows: RowsRead, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A result for programs, with the rows that were refused before anything was sent, and notes on the file."""
    return {**plain(result), **refused(rows), "notes": list(notes)}


def refused(rows: RowsRead) -> dict[str, Any]:
    """The rows that were refused before anything was sent, for programs."""
    found = [{"line": it.line, "place": it.place, "reason": it.reason} for it in rows.refused]
    return {"unread_count": rows.refused_count, "unread": found}
