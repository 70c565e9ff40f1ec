"""The columns that a table has, and those of them that a command asks for."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from graft._data_files.columns import Columns, DataError

_OPTIONS: Final = (
    "input",
    "second",
    "label",
    "value",
    "id",
    "weight",
    "group",
    "split",
    "subject",
    "confirmed",
)
_SHOWN: Final = 40
_ONES: Final = frozenset({"0", "1", "0.0", "1.0", "true", "false"})
_COMMA: Final = re.compile(r"[+-]?(\d{1,3}(\.\d{3})*|\d+),\d+\s*")
_POINT: Final = re.compile(r"[+-]?\d*\.\d+\s*")
_GROUPED: Final = re.compile(r"[+-]?\d{1,3}([.,]\d{3})+\s*")
_IGNORED: Final = re.compile(r"[\s_\-\u200b\u200c\u200d\ufeff\u00a0]+")


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a table."""

    names: tuple[str, ...]
    """Their names, in order; "" for a column without one."""
    sample: Sequence[Sequence[Any]] = ()
    """The cells of the first rows."""
    given: bool = False
    """Whether the names were given, since the file has no header line."""

    def values(self, cells: Sequence[Any]) -> dict[str, Any]:
        """The cells of a row by column; without those that have no name. The last of several columns of one name."""
        values = dict(zip(self.names, cells, strict=False))
        values.pop("", None)
        return values

    def column(self, name: str) -> list[Any]:
        """The cells of a column, of the first rows."""
        at = self.names.index(name)
        return [cells[at] for cells in self.sample if len(cells) > at]


def fitted(columns: Columns, header: Header, file: str) -> Columns:
    """Returns the columns by the names that a table has for them.

    Raises:
        DataError: The table has no such column, or several.
    """
    found: dict[str, Any] = {}
    for option in _OPTIONS:
        asked = getattr(columns, option)
        if not asked or (option == "label" and (columns.value or columns.labels_from)):
            continue
        shown = "path" if option == "input" and columns.path else option
        found[option] = _found(asked, shown, header, file)
    found["labels_from"] = tuple(_found(it, "labels-from", header, file) for it in columns.labels_from)
    numbers = [found[it] for it in ("value", "weight") if it in found]
    if not columns.decimal:
        found["decimal"] = _decimal([cell for name in numbers for cell in header.column(name)])
    return replace(columns, **found)


def _found(asked: str, option: str, header: Header, file: str) -> str:
    same = header.names.count(asked)
    if same > 1:
        raise DataError(
            f"{file}: {same} columns are named {asked!r}, so that --{option} {shlex.quote(asked)} can be any of them; "
            "give the one that is meant a name of its own"
        )
    name = asked if same else like(asked, header.names)
    if name is None:
        raise DataError(f"{file}: {missing(asked, option, header.names)}{_hint(option, header)}")
    return name


def like(asked: str, names: Collection[str]) -> str | None:
    """The one name that differs from `asked` only in case, spaces and the like."""
    alike = [it for it in names if _plain(it) == _plain(asked)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return _IGNORED.sub("", name).casefold()


def missing(asked: str, option: str, names: Collection[str]) -> str:
    """Says that there is no such column, which ones there are, and how to name one (by an option, if it is known)."""
    known = [it for it in names if it]
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    near = difflib.get_close_matches(asked.casefold(), known, n=1, cutoff=0.6) if known else []
    which = near[0] if near else "COLUMN"
    there = f"the columns are: {', '.join(known[:_SHOWN])}{more}" if known else "there are no named columns"
    if option:
        return f"no column {asked!r}; {there}; name the right one with --{option} {shlex.quote(which)}"
    return f"no column {asked!r}; {there}" + (f"; did you mean {near[0]}?" if near else "")


def _hint(option: str, header: Header) -> str:
    if option == "label":
        ones = [
            it for it in header.names if it and header.names.count(it) == 1 and _is_ones(header.column(it))
        ]
        if len(ones) > 1:
            named = shlex.quote(",".join(ones))
            return f"; {', '.join(ones)} hold 0 and 1 only: --labels-from {named} takes them for labels"
    if option in ("input", "label") and not header.given and len(header.names) > 1:
        return "; if the file has no header line, give the names of its columns with --columns A,B,…"
    return ""


def _is_ones(cells: Sequence[Any]) -> bool:
    texts = {str(it).strip().lower() for it in cells if it not in (None, "")}
    return bool(texts) and texts <= _ONES


def _decimal(cells: Sequence[Any]) -> str:
    """What the numbers of a table have before their decimals, as far as they tell; "" if they do not."""
    texts = [it for it in cells if isinstance(it, str)]
    commas = sum(1 for it in texts if _COMMA.fullmatch(it.strip()) and not _is_grouped(it, ","))
    points = sum(1 for it in texts if _POINT.fullmatch(it.strip()) and not _is_grouped(it, "."))
    return "," if commas > points else ""


def _is_grouped(text: str, mark: str) -> bool:
    return mark in text and _GROUPED.fullmatch(text.strip()) is not None
