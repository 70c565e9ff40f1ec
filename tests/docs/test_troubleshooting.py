"""Troubleshooting quotes what the programs say: the fixed words of each message occur in the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts.references import reasons

pytestmark = pytest.mark.slow  # it parses every module
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SPAN = re.compile(r"`([^`]+)`")
REASON = re.compile(r"\[([A-Z_]+)\]")


def rows() -> list[str]:
    """The first cells of the tables: messages and reasons."""
    cells = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [it for it in cells if it != "message"]


def said() -> Iterator[str]:
    """Yields every text that the programs have in them, with … for values."""
    for node in (it for modules in reasons.parsed().values() for tree in modules for it in ast.walk(tree)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(it.value) if isinstance(it, ast.Constant) else "…" for it in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def known() -> set[str]:
    return {it.reason for it in reasons.all_made()}


def test_messages_are_what_the_programs_say(known: set[str]) -> None:
    texts = "\n".join(said())
    assert len(rows()) > 50
    for row in rows():
        spans = SPAN.findall(row)
        assert spans, row
        for span in spans:
            if found := REASON.fullmatch(span):
                assert found[1] in known, row
            else:
                parts = [it.strip() for it in span.split("…") if re.search(r"\w", it)]
                assert [it for it in parts if it not in texts] == [], row


def test_every_reason_is_in_the_reference(known: set[str]) -> None:
    page = (ROOT / "docs" / "reference" / "reasons.md").read_text(encoding="utf-8")
    assert len(known) > 150
    assert [it for it in sorted(known) if f"| `{it}` |" not in page] == []


def test_a_reason_that_a_program_branches_on_is_made_somewhere(known: set[str]) -> None:
    """The scan of the sources misses no way of making an error: each literal reason=… is found by it."""
    literal = set()
    for path in (ROOT / "server" / "graft_server").rglob("*.py"):
        literal |= set(re.findall(r'reason="([A-Z_]+)"', path.read_text(encoding="utf-8")))
    assert len(literal) > 120
    assert literal - known <= {"OBJECT_EXISTS"}
