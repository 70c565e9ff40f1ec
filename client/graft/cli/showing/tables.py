"""Tables and lists of facts: for people, fitted to the width of their terminal; elsewhere whole, one line a row.

On a terminal, cells are folded within their columns, and very long ones are cut. Where the columns have no room
beside each other, each row is a list of names and values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from graft._report.words import printable

_NUMBERS: Final = frozenset(
    {"accuracy", "classes", "evaluated", "examples", "F1", "features", "latest", "layers", "live", "log-loss"}
    | {"macro-F1", "newest", "precision", "probability", "recall", "times", "tokens", "version", "versions"}
)
"""Columns that hold numbers, and are aligned as such."""
_GAP: Final = 2
"""Spaces between columns."""
_LEAST: Final = 10
"""A column of words that is folded has at least so many characters, if it needs them."""
_LONGEST: Final = 240
"""A cell of more characters is cut on a terminal."""
_SHORT: Final = 8
"""A column of words of so many characters at most is not folded."""
_NUMBER: Final = 13
"""The same of a column of numbers, which may be "not measured"."""

_BREAKS: Final = {ord(it): repr(it)[1:-1] for it in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}
"""What ends a line, or a cell, as Python's literals have it."""

Rows = Sequence[Sequence[str]]


def rows_of(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    """The cells of rows as texts."""
    return [[str(cell) for cell in cells] for cells in rows]


def drawn(columns: Sequence[str], rows: Rows, width: int, *, whole: Collection[str] = ()) -> RenderableType:
    """A table for a terminal.

    Args:
        columns: The names of the columns.
        rows: The cells.
        width: How many characters a line has.
        whole: Columns that are not folded.
    """
    columns, rows = _filled(columns, [[_shown(cell) for cell in cells] for cells in rows])
    natural = _widths(columns, rows)
    fixed = [
        name in whole or most <= (_SHORT if name not in _NUMBERS else _NUMBER)
        for name, most in zip(columns, natural, strict=True)
    ]
    least = [most if it else min(most, _LEAST) for most, it in zip(natural, fixed, strict=True)]
    left = width - sum(least)
    gap = min(_GAP, left // max(1, len(columns) - 1))
    if gap < 1 and len(columns) > 1:
        return Group(*_blocks(columns, rows))
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for name, it in zip(columns, fixed, strict=True):
        table.add_column(
            escape(name), overflow="fold", justify="right" if name in _NUMBERS else "left", no_wrap=it
        )
    for cells in rows:
        table.add_row(*map(escape, cells))
    return table


def _filled(columns: Sequence[str], rows: Rows) -> tuple[list[str], Rows]:
    """The columns in which some row has something: empty ones take the room of others."""
    kept = [at for at in range(len(columns)) if not rows or any(cells[at] for cells in rows)]
    return [columns[at] for at in kept], [[cells[at] for at in kept] for cells in rows]


def _blocks(columns: Sequence[str], rows: Rows) -> Iterator[RenderableType]:
    """Each row as a list of names and values."""
    for number, cells in enumerate(rows):
        if number:
            yield ""
        yield drawn_facts({name: cell for name, cell in zip(columns, cells, strict=True) if cell})


def drawn_facts(named: Mapping[str, str]) -> RenderableType:
    """Names with their values, for a terminal."""
    table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in named.items():
        table.add_row(escape(name), escape(_shown(value)))
    return table


def lines(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """A table for a file or a pipe: nothing is cut or folded, and line ends within cells are escaped."""
    rows = [[cell.translate(_BREAKS) for cell in cells] for cells in rows]
    widths = _widths(columns, rows)
    for cells in (columns, *rows):
        padded = (
            _padded(cell, width, right=name in _NUMBERS)
            for name, cell, width in zip(columns, cells, widths, strict=True)
        )
        yield (" " * _GAP).join(padded).rstrip()


def fact_lines(named: Mapping[str, str]) -> Iterator[str]:
    """Names with their values, for a file or a pipe."""
    width = max(map(cell_len, named), default=0)
    for name, value in named.items():
        yield f"{_padded(name, width)}{' ' * _GAP}{value.translate(_BREAKS)}".rstrip()


def _widths(columns: Sequence[str], rows: Rows) -> list[int]:
    return [
        max(cell_len(name), max((cell_len(cells[at]) for cells in rows), default=0))
        for at, name in enumerate(columns)
    ]


def _padded(cell: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def _shown(cell: str) -> str:
    """A cell on a terminal: on one line, and not longer than can be read."""
    text = printable(" ".join(cell.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
