"""Every command and option of `graft` and `graft-server` is documented, and used by a test or a page that is run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs import pages

from graft.cli import build_parser
from graft_server.cli import build_parser as build_server_parser

ROOT = Path(__file__).parents[2]
RUN = ("README.md", "docs/tutorial.md", "docs/python.md")
"""The pages that tests/docs/test_pages.py runs."""


def used() -> str:
    """What tests, and the blocks of pages that are run, have in them."""
    tests = [it.read_text(encoding="utf-8") for it in (ROOT / "tests").rglob("*.py") if it != Path(__file__)]
    blocks = [
        it.code for page in RUN for it in pages.blocks_of((ROOT / page).read_text("utf-8")) if not it.left_out
    ]
    return "\n".join([*tests, *blocks, (ROOT / "examples" / "demo.py").read_text("utf-8")])


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    return dict(found.choices)


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the long names of the options of all commands."""
    for verb in verbs_of(parser).values():
        for action in verb._actions:
            yield from (it for it in action.option_strings if it.startswith("--"))


@pytest.mark.parametrize("parser", [build_parser(), build_server_parser()], ids=["graft", "graft-server"])
def test_every_command_and_option_is_used(parser: argparse.ArgumentParser) -> None:
    text = used()
    options = sorted(set(options_of(parser)))
    assert len(options) > 20
    # Tests of settings name them without dashes: {"tuning-workers": "2"}.
    given = {
        *re.findall(r"--[a-z][\w-]*", text),
        *(f"--{it}" for it in re.findall(r'"([a-z][a-z-]*)": "', text)),
    }
    unused = [it for it in options if it not in given]
    idle = [it for it in verbs_of(parser) if not re.search(rf"[\"' ]{it}[\"' \n]", text)]
    assert (unused, idle) == ([], [])


def test_every_command_option_and_setting_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert [it for it in verbs_of(build_parser()) if f"## graft {it}\n" not in page] == []
    assert [it for it in options_of(build_parser()) if f"{it}" not in page] == []
    served = {it for it in options_of(build_server_parser()) if it not in {"--help", "--target"}}
    assert [it for it in sorted(served) if it not in settings] == []
