"""Tables and lists of facts, as rich draws them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

from rich.markup import escape
from rich.table import Table

_NUMBERS: Final = frozenset(
    {"accuracy", "classes", "evaluated", "examples", "F1", "features", "latest", "layers", "live", "log-loss"}
    | {"macro-F1", "newest", "precision", "probability", "recall", "times", "tokens", "version", "versions"}
)
"""Columns that hold numbers, and are aligned as such."""


def facts(named: Mapping[str, str]) -> Table:
    """Names with their values."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, value in named.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    return table


def table_of(*columns: str, whole: Collection[str] = ()) -> Table:
    """An empty table of these columns, of which some are not broken into lines where another one can be."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in _NUMBERS else "left"
        table.add_column(column, overflow="fold", justify=justify, no_wrap=column in whole)
    return table


def row(table: Table, *cells: object) -> None:
    """Adds a row."""
    table.add_row(*(escape(str(cell)) for cell in cells))
