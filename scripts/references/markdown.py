"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GENERATED = "<!-- Written by 'make docs'; changes are lost. -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing where there are no rows."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    if not lines:
        return ""
    return "\n".join((f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines))


def cell(text: str) -> str:
    """A text that breaks neither row nor column."""
    return " ".join(text.split()).replace("|", "\\|")


def joined(parts: Iterable[str]) -> str:
    """Parts of a page, those that say something, with blank lines between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def prose(docstring: str) -> str:
    """A docstring in Google's style as Markdown: `Args:` and its kin become lists."""
    lines, items = [], False
    for line in docstring.splitlines():
        heading = re.fullmatch(r"(Args|Returns|Yields|Raises|Warns|Attributes|Note|Example):", line)
        if heading:
            lines += ["", f"*{heading[1]}*", ""]
            items = heading[1] in {"Args", "Raises", "Warns", "Attributes"}
        elif items and (named := re.fullmatch(r"    (\*{0,2}[\w.]+)(?: \([^)]*\))?: (.*)", line)):
            lines.append(f"- `{named[1]}`: {named[2]}")
        elif items and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            items = items and not line.strip()
            # A paragraph after a list of arguments belongs to the whole.
            lines.append(line)
    return "\n".join(lines)
