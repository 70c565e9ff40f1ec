"""Links between pages lead somewhere, and every page is in the list of pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/*.md"),
        *ROOT.glob("examples/**/*.md"),
    ]
)
LINK = re.compile(r"\]\((?!https?:)([\w./-]*)(?:#([\w-]+))?\)")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", [it for it in PAGES if "node_modules" not in it.parts], ids=lambda it: it.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors_of(target), f"{page.name}: {path}#{anchor}"


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = {path for path, _ in LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))}
    here = {str(it.relative_to(ROOT / "docs")) for it in PAGES if it.is_relative_to(ROOT / "docs")} - {
        "README.md"
    }
    assert here - listed == set()
