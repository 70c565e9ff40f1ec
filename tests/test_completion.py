"""Shells complete both commands: verbs, options, choices, names of files, and names of models by the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graft.cli import program
from graft_server import cli

BIN = Path(sys.executable).parent
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(command: str, shell: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    capfd.readouterr()
    assert (program if command == "graft" else cli).main(["completion", shell]) == 0
    path = folder / f"{command}.{shell}"
    path.write_text(capfd.readouterr().out)
    return path


@pytest.fixture
def completed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """What bash offers for the last of some words, where these files lie."""
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).touch()

    def run(*words: str, **environment: str) -> set[str]:
        path = script(words[0], "bash", tmp_path, capfd)
        known = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "GRAFT_SERVER": "127.0.0.1:1"}
        ended = subprocess.run(
            ["bash", "-c", COMPLETE, "bash", str(path), *words],
            env=known | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr == ""
        return set(ended.stdout.split())

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("graft", "adapt"), ["adapt", "adaptations"]),
        (("graft", "--server", "a:1", "vers"), ["versions"]),
        (("graft", "adapt", "--publish-e"), ["--publish-every"]),
        (("graft", "adapt", "m", "train.csv", "--task", ""), ["single-label", "multi-label", "regression"]),
        (("graft", "adapt", "m", "tr"), ["train.csv"]),
        (("graft", "report", "--html", "te"), ["test.csv"]),
        (("graft", "completion", ""), ["bash", "zsh", "fish"]),
        (("graft-server", "se"), ["serve"]),
        (("graft-server", "serve", "--log-l"), ["--log-level"]),
        (("graft-server", "serve", "--device", ""), ["auto", "cpu", "cuda"]),
        (("graft-server", "health", "--config", "tr"), ["train.csv"]),
    ],
    ids=" ".join,
)
def test_bash_offers_what_the_grammar_knows(
    completed: Any, words: tuple[str, ...], offered: list[str]
) -> None:
    assert completed(*words) == set(offered)


def test_models_are_completed_by_the_server(completed: Any, server: Any, published: Any) -> None:
    assert published in completed("graft", "report", published[:5], GRAFT_SERVER=server.target)
    assert completed("graft", "report", "") == set()  # no server answers


@pytest.fixture(scope="module")
def published(shared_wire: Any, few: Any) -> str:
    """A model's name."""
    name = "tests/completed-by-name"
    shared_wire.publish(name, few)
    return name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", ["graft", "graft-server"])
def test_a_script_names_every_verb_and_its_shell_can_read_it(
    command: str, shell: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = script(command, shell, tmp_path, capfd)
    parser = (program if command == "graft" else cli).build_parser()
    (verbs,) = [it for it in parser._actions if it.dest == "command"]
    assert verbs.choices
    assert [it for it in verbs.choices if it not in path.read_text()] == []
    if shutil.which(shell):  # CI has bash alone
        subprocess.run([shell, "-n", str(path)], check=True)


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert program.main(["completion", "bash"]) == 1
    assert cli.main(["completion", "bash"]) == 1
    assert capfd.readouterr().err.count("pip install 'graft-serve[") == 2
