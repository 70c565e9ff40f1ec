"""Cells that hold a list: as JSON, Python, NumPy, pandas and PostgreSQL write one."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

_WRAPPED: Final = re.compile(
    r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*\(\s*(.*?)\s*(?:,\s*dtype=[^()]*)?\)", re.DOTALL
)
"""A constructor around a list: set([…]), frozenset({…}), array([…], dtype=object)."""
_QUOTED: Final = r"""[urbURB]?'(?:[^'\\]|\\.)*'|[urbURB]?"(?:[^"\\]|\\.)*\""""
_ITEM: Final = rf"(?:np\.str_\()?(?:{_QUOTED})\)?|-?\d+(?:\.\d*)?|None|nan|NaN|<NA>|True|False"
_ITEMS: Final = re.compile(rf"\s*(?:{_ITEM})(?:(?:\s*,\s*|\s+)(?:{_ITEM}))*\s*,?\s*", re.DOTALL)
_ONE_ITEM: Final = re.compile(_ITEM, re.DOTALL)
_BARE_SET: Final = re.compile(r"\{[^{}:'\"]+\}")
"""An array of PostgreSQL: {a,b}."""
_PAIRS: Final = {"[": "]", "(": ")", "{": "}"}
_EMPTY: Final = frozenset({"[]", "()", "{}", "set()", "frozenset()", "[ ]"})
_LONGEST: Final = 100_000
"""Longer cells are no lists of labels."""


def list_of(cell: str) -> list[Any] | dict[str, Any] | None:
    """Returns what a cell holds that looks like a list of labels, or like a mapping to probabilities; None for others.

    Missing members are None. A bracket around bare words is none: labels may look so, such as "(other)".
    """
    text = cell.strip()
    if len(text) > _LONGEST:
        return None
    if text in _EMPTY:
        return []
    if wrapped := _WRAPPED.fullmatch(text):
        return list_of(wrapped[1]) if wrapped[1][:1] in _PAIRS else None
    if len(text) < 3 or _PAIRS.get(text[0]) != text[-1]:
        return None
    found = _as_json(text)
    return _as_python(text) if found is None else found


def _as_json(text: str) -> list[Any] | dict[str, Any] | None:
    if text[0] == "(":
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list):
        return found
    return found if isinstance(found, dict) and _are_numbers(found.values()) else None


def _as_python(text: str) -> list[Any] | dict[str, Any] | None:
    inside = text[1:-1]
    if _ITEMS.fullmatch(inside):
        items = [_item(found) for found in _ONE_ITEM.findall(inside)]
        # (1) is a number in brackets, and (other) a word.
        return items if text[0] != "(" or any(isinstance(it, str) for it in items) else None
    if text[0] != "{":
        return None
    if _BARE_SET.fullmatch(text):
        return [None if it.strip() == "NULL" else it.strip() for it in inside.split(",")]
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, dict) and _are_numbers(found.values()) else None


def _item(text: str) -> Any:
    text = text.removeprefix("np.str_(")
    if text[:1] in "'\"" or text[1:2] in ("'", '"'):
        found = ast.literal_eval(text.rstrip(")") if text.endswith(")") else text)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else found
    if text in ("None", "nan", "NaN", "<NA>"):
        return None
    return text == "True" if text in ("True", "False") else float(text) if "." in text else int(text)


def _are_numbers(values: Any) -> bool:
    return all(it is None or (isinstance(it, int | float) and not isinstance(it, bool)) for it in values)
