"""Every block of the README and of the tutorial is run as it stands, and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import socket
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import DATA
from tests.docs import pages

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[pages.Reader]:
    """Somebody in a checkout of the project, with its commands, and with a free port where 50051 is the usual one."""
    folder = tmp_path / "graft"
    folder.mkdir()
    for part in ("examples", "client", "server", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        (folder / part).symlink_to(ROOT / part)
    (folder / ".venv").symlink_to(sys.prefix)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")},
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "GRAFT_LISTEN": target,
        "GRAFT_MEASURE_SECONDS": "0",
        "COLUMNS": "100",
    }
    reader = pages.Reader(folder, environment)
    try:
        yield reader
    finally:
        reader.close()


def read(page: Path, reader: pages.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what a page says."""
    monkeypatch.chdir(reader.folder)
    monkeypatch.setenv("GRAFT_LISTEN", reader.environment["GRAFT_LISTEN"])
    differ = []
    for block in pages.blocks_of(page.read_text(encoding="utf-8")):
        if block.language not in pages.RUN or block.left_out or block.said("fresh") is not None:
            continue
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.code, f"{page.name}:{block.line}", "exec"), reader.names)  # noqa: S102
            shown = printed.getvalue()
        else:
            shown = reader.run(block)
        if block.output is not None:
            absent = next(pages.missing(block.output, shown), None)
            if absent is not None:
                differ.append(f"{page.name}:{block.line} does not print {absent!r}, but\n{shown}")
    assert not differ, "\n\n".join(differ)


def test_the_readme_does_what_it_says(reader: pages.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    read(ROOT / "README.md", reader, monkeypatch)
    assert (reader.folder / "bundle" / "model.onnx").exists()
    monkeypatch.setattr(sys, "argv", ["quickstart.py"])
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")


def test_the_page_on_python_does_what_it_says(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pages.Reader(tmp_path, {"GRAFT_LISTEN": server.target})
    read(ROOT / "docs" / "python.md", reader, monkeypatch)
    assert (tmp_path / "report.html").exists()
    assert reader.names["frame"]["answer"].tolist() == reader.names["frame"]["intent"].tolist()
    assert len(reader.names["scores"]) == 2
    reader.names["classifier"].close()


CURL = """#!/bin/sh
# The tutorial's download, from a copy of the data: the last argument is an address.
for address; do :; done
cp "$BANKING77/${address##*/}" .
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_does_what_it_says(reader: pages.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    banking = DATA / "banking77"
    if not banking.is_dir():
        pytest.skip(f"the tutorial's data, Banking77, are not in {banking}; set GRAFT_DATA")
    programs = reader.folder.parent / "programs"
    programs.mkdir()
    curl = programs / "curl"
    curl.write_text(CURL)
    curl.chmod(0o755)
    path = f"{programs}:{reader.environment['PATH']}"
    reader.environment = {**reader.environment, "PATH": path, "BANKING77": str(banking.resolve())}
    read(ROOT / "docs" / "tutorial.md", reader, monkeypatch)
    assert "week1.csv:" in (reader.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_readme_installs_into_a_fresh_environment(reader: pages.Reader) -> None:
    (block,) = (
        it for it in pages.blocks_of((ROOT / "README.md").read_text()) if it.said("fresh") is not None
    )
    venv.create(reader.folder / "fresh", with_pip=True)
    path = f"{reader.folder / 'fresh' / 'bin'}:{os.environ['PATH']}"
    installing = pages.Reader(reader.folder, {**reader.environment, "PATH": path}, longest_s=900)
    installing.run(block)
    asked = pages.Block("bash", "graft --version && graft-server --help", block.line)
    assert "prepare" in installing.run(asked)
