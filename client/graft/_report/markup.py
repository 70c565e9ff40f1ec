"""Pieces of the report page's markup: sections, tables, and names that come from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from graft._records.evaluation.reports import Report
from graft._report import charts

_ROOM: Final = 44
"""Characters of a label in a list beside a chart."""
_SHOWN_ROWS: Final = 10
"""Of a list of findings; the rest is folded away."""


def section(title: str, content: str, *, kind: str = "") -> str:
    """A section with its heading; `kind` is its class in the style sheet."""
    return f'<section class="{kind}"><h2>{title}</h2>{content}</section>\n'


def resource(name: str) -> str:
    """The text of a file beside this one."""
    return files("graft._report").joinpath(name).read_text(encoding="utf-8")


def warnings(warnings: Sequence[str], title: str = "Before you rely on it") -> str:
    """What is to be known, in sentences; empty if there is nothing."""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return section(title, f"<ul>{items}</ul>", kind="notes") if items else ""


def pair(*sections: str) -> str:
    """Sections side by side; empty if all are."""
    kept = "".join(sections)
    return f'<div class="pair">{kept}</div>\n' if kept else ""


def folded_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int], extra: Sequence[int] = ()
) -> str:
    """A table of the first rows, and one of the rest that opens on demand."""
    if not rows:
        return ""
    kinds = [
        ("n" if column in numbers else "") + (" extra" if column in extra else "")
        for column in range(len(heads))
    ]
    shown = table(heads, rows[:_SHOWN_ROWS], kinds)
    if len(rows) > _SHOWN_ROWS:
        rest = table(heads, rows[_SHOWN_ROWS:], kinds)
        shown += f"<details><summary>{len(rows) - _SHOWN_ROWS:,} more</summary>{rest}</details>"
    return shown


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], chosen: int | None = None
) -> str:
    """A table of cells that are markup already; `kinds` are the columns' classes."""
    top = "".join(f'<th class="{kind}">{head}</th>' for head, kind in zip(heads, kinds, strict=True))
    body = "".join(
        f"<tr{' class=chosen' if index == chosen else ''}>"
        + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def shortened(report: Report) -> Callable[[str], str]:
    """Labels as markup where there is little room: the whole of each is in the table of all."""
    labels = [entry.label for entry in report.per_class]
    short = dict(zip(labels, charts.without_common_start(labels), strict=True))
    return lambda of: label(charts.cut(short.get(of, of), _ROOM))


def label(text: str) -> str:
    """A label, or several; of none at all that there is none."""
    return name(text) if text else f'<span class="soft">{charts.NO_LABEL}</span>'


def joined_names(text: str) -> str:
    """Names joined by "+", broken after it at best."""
    return escape(text).replace("+", "+<wbr>")


def name(text: str) -> str:
    """A name from outside: escaped, broken at _ and / at best, and kept from turning its surroundings around."""
    breakable = escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>")
    return f"<bdi>{breakable}</bdi>"


def text(value: str) -> str:
    """A text from outside: escaped, and kept from turning its surroundings around."""
    return f"<bdi>{escape(value)}</bdi>"
