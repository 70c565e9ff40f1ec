"""How a list of stored examples is known again: by the columns that `graft examples --output` writes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from graft._data_files.formats.encodings import encoding_of
from graft._data_files.options import Reading

_MARKS: Final = frozenset({"suggested", "suggested_probability", "confirmed", "delete", "version"})
_LEAST_MARKS: Final = 3
"""A person may have removed a column, or added one."""


def reading_of_list(head: bytes, reading: Reading) -> Reading | None:
    """How a file that begins so is read, if it is a list of stored examples; None if it is none.

    It is known how these are written, and texts in them may look like rows or like other delimiters.
    """
    columns, delimiter = _columns_ahead(head)
    if not are_of_list(columns):
        return None
    return replace(reading, quote=reading.quote or '"', delimiter=reading.delimiter or delimiter)


def are_of_list(columns: Collection[str]) -> bool:
    """Whether these are the columns of a list of stored examples."""
    names = {it.strip().casefold() for it in columns}
    return "id" in names and bool(names & {"label", "value"}) and len(names & _MARKS) >= _LEAST_MARKS


def _columns_ahead(head: bytes) -> tuple[tuple[str, ...], str]:
    """The columns of a table's first line with what separates them, or the keys of JSON's first object."""
    text = head.decode(encoding_of(head), "replace").lstrip("\ufeff \t\r\n")
    line = re.split(r"[\r\n]", text, maxsplit=1)[0].strip()
    if line.startswith("{"):
        try:
            return tuple(json.loads(line)), ""
        except ValueError:
            return (), ""
    found = re.search(r"[,;\t|]", line)
    try:
        return (tuple(next(csv.reader([line], delimiter=found[0]), ())), found[0]) if found else ((), "")
    except csv.Error:
        return (), ""
