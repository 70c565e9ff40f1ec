"""The command line, as far as it goes without a server."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import graft
from graft.cli import build_parser, main
from graft.cli.showing.phrases import describe
from graft.cli.showing.terminal import plain

NOBODY = "127.0.0.1:1"


def graft_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "adapt",
        "predict",
        "evaluate",
        "compare",
        "models",
        "versions",
        "report",
        "promote",
        "export",
        "watch",
        "backbones",
        "examples",
        "forget",
        "adaptations",
        "alias",
        "cancel",
        "delete",
        "metadata",
    ],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "--server HOST:PORT" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["adapt", "m"],
        ["promote", "m", "newest"],
        ["predict", "m"],
        ["report", "m", "--version", "1", "--alias", "live"],
        ["evaluate", "m", "a.csv", "--delimiter", "ab"],
        ["models", "--timeout", "0"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: graft" in capsys.readouterr().err


def test_the_server_comes_from_the_option_the_environment_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GRAFT_SERVER", raising=False)
    assert build_parser().parse_args(["models"]).server == "127.0.0.1:50051"
    monkeypatch.setenv("GRAFT_SERVER", "there:7")
    assert build_parser().parse_args(["models"]).server == "there:7"
    assert build_parser().parse_args(["models", "--server", "here:8"]).server == "here:8"


def test_an_unreachable_server_is_one_line_with_a_remedy() -> None:
    ended = graft_command("models", GRAFT_SERVER=NOBODY)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    start = f"graft-server serve --store ./store --listen {NOBODY}"
    says = f"error: no Graft server answers at {NOBODY}: start one with '{start}', "
    assert ended.stderr.startswith(says)
    assert ended.stderr.index("or name another with --server") < ended.stderr.index("Connection refused")


def test_a_bad_data_file_is_one_line_and_not_about_the_server(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,intent\na,x\n")
    ended = graft_command("adapt", "m", str(path), "--server", NOBODY)
    assert ended.returncode == 1
    assert (
        f"error: {path}: no column 'label'; the columns are: text, intent; name the right one" in ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_a_missing_file_is_one_line() -> None:
    ended = graft_command("evaluate", "m", "none.csv", "--server", NOBODY)
    assert (ended.returncode, ended.stderr) == (1, "error: none.csv: No such file or directory\n")


@pytest.mark.parametrize(
    "options", [("--merge-labels",), ("--label-cells", "read"), ("--id-repeats", "keep")]
)
def test_options_that_a_followed_stream_would_ignore_are_refused(options: tuple[str, ...]) -> None:
    ended = graft_command("adapt", "m", "-", "--follow", *options, "--server", NOBODY)
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        f"error: {' '.join(options[: 2 if 'keep' in options else 1])} cannot be given"
    )


def test_without_rich_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ModuleNotFoundError(name='rich')")
    ended = graft_command("models", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert "pip install 'graft-serve[cli]'" in ended.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"graft {graft.__version__}\n"


def test_results_become_json() -> None:
    model = graft.Model("m", 2, {"live": 2}, 2, dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    assert json.loads(json.dumps(plain([model]))) == [
        {
            "name": "m",
            "latest_version": 2,
            "aliases": {"live": 2},
            "versions": 2,
            "create_time": "2026-01-02T00:00:00+00:00",
            "renewal": None,
            "live_pinned_time": None,
            "metadata": {},
            "live": None,
        }
    ]
    error = graft.NotFoundError("no such model", reason="MODEL_NOT_FOUND")
    assert plain(error) == {"code": "NOT_FOUND", "reason": "MODEL_NOT_FOUND", "message": "no such model"}


def test_how_a_stream_is_learned_is_said_in_words() -> None:
    metrics = {"examples": 1200.0, "prequential_accuracy": 0.8567}
    progress = graft.Progress("", "streaming", 0.0, metrics, None)
    assert describe(graft.Event(0, None, "progress", progress=progress)) == (
        "streaming: 1,200 examples learned, 85.7% predicted right before they were learned"
    )


def test_a_server_that_says_nothing_is_told_from_one_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["models", "--server", target, "--timeout", "0.3"]) == 1
    assert "wait longer with --timeout" in capsys.readouterr().err
