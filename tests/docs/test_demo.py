"""The demo ends with commands that work as they stand."""

from __future__ import annotations

import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from graft.cli import build_parser

ROOT = Path(__file__).parents[2]


def test_the_next_steps_name_programs_files_and_commands_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    next_steps: Callable[[], list[tuple[str, str]]] = runpy.run_path("examples/demo.py")["next_steps"]
    lines = [line for _, line in next_steps()]
    for line in lines:
        program, *arguments = shlex.split(line.removesuffix(" &"))
        assert Path(program).exists(), line
        if Path(program).name == "graft" and arguments != ["--help"]:
            args = build_parser().parse_args(arguments)
            assert args.model == "bikes"
        assert [it for it in arguments if it.endswith(".csv") and "/" in it and not Path(it).exists()] == []
    assert any("graft-server serve --store" in line for line in lines)
    assert any(line.endswith("docs/tutorial.md") for line in lines)
