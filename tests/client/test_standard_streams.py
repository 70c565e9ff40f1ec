"""The command `graft` where standard streams are closed, or nobody reads what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GRAFT = (sys.executable, "-m", "graft.cli")


def ended(server: Any, shell: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell that says where its streams lead, as "$@"."""
    return subprocess.run(
        ["sh", "-c", shell, "sh", *GRAFT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "GRAFT_SERVER": server.target},
    )


@pytest.mark.parametrize("closed", [">&-", "2>&- <&-", ">&- 2>&- <&-"])
def test_the_exit_code_is_that_of_the_work_where_streams_are_closed(
    server: Any, few_model: str, closed: str
) -> None:
    done = ended(server, f'"$@" {closed}', "predict", few_model, "the lock is stuck")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("" if ">&-" in closed.split() else "lock\t")


def test_what_fails_fails_where_all_streams_are_closed(server: Any) -> None:
    done = ended(server, '"$@" >&- 2>&- <&-', "predict", "un/heard-of", "text")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_reader_who_leaves_ends_the_command_without_a_word(
    server: Any, few_model: str, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.write_text("the lock is stuck\n" * 20_000)
    with texts.open() as file:
        command = subprocess.Popen(
            [*GRAFT, "predict", few_model, "-", "--server", server.target],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    assert command.stdout
    assert command.stderr
    assert command.stdout.readline().startswith(b"lock\t")
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 1
    command.stderr.close()


def test_a_full_disk_is_told_by_the_exit_code(server: Any, few_model: str) -> None:
    done = ended(server, '"$@" >/dev/full', "predict", few_model, "the lock is stuck")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_characters_that_the_encoding_lacks_are_spelled(server: Any, few_model: str) -> None:
    done = ended(server, 'PYTHONIOENCODING=ascii "$@"', "predict", few_model, "the lôck is stuck 🙂")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"the l\xf4ck is stuck \U0001f642" in done.stdout
    done = ended(server, 'PYTHONIOENCODING=ascii "$@"', "predict", few_model, "the lôck is stuck", "--json")
    assert json.loads(done.stdout)["input"] == "the lôck is stuck"
