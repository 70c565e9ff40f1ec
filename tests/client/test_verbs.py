"""The verbs of the command line that look after models: what they show, what they change, and how they refuse."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conftest import upsert

import graft
from graft._records.report_messages import report_of
from graft.cli import main
from graft.cli.verbs.versions import comparable
from graft.v1 import adaptation_pb2, report_pb2, types_pb2


class Shell:
    """Runs commands in this process, on the shared server."""

    def __init__(self, target: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._target = target
        self._capsys = capsys
        self.said = ""
        """What the last command wrote to standard error."""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Returns what a command writes to standard output; it ends with `code`."""
        ended = main(["--server", self._target, *arguments])
        out, self.said = self._capsys.readouterr()
        assert ended == code, self.said
        assert "Traceback" not in self.said
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def shell(server: Any, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(server.target, capsys)


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture
def two(wire: Any, model: str, few: Any) -> str:
    """A model with versions 1 and 2 of adaptations "first" and "second"; 2 is live."""
    wire.publish(model, few, adaptation_id="first", metadata={"source": "few.csv"})
    wire.publish(model, few[:10], adaptation_id="second")
    return model


@pytest.fixture
def at_a_terminal(server: Any) -> Callable[..., tuple[int, str]]:
    """Runs a command at a terminal of 80 columns, types an answer, and returns its exit code and what it showed."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "GRAFT_SERVER": server.target, "COLUMNS": "80", "TERM": "dumb"}
        command = [sys.executable, "-m", "graft.cli", *arguments]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            os.write(ours, typed.encode())
            shown = b""
            while part := _read(ours):
                shown += part
        os.close(ours)
        return process.returncode, shown.decode().replace("\r\n", "\n")

    return run


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


# ------------------------------------------------------------------------------------------ models and versions


def test_models_show_what_is_live_how_good_it_is_and_that_it_is_pinned(shell, two, client):
    (row,) = shell("models", two).splitlines()[1:]
    report = client.version(two).report
    score = "not measured" if report.accuracy is None else f"{report.accuracy:.1%}"
    cells = row.split()
    assert (cells[0], cells[1:3], cells[-3]) == (two, ["2", "2"], "minilm")
    assert score in row
    assert cells[-4] == "10"
    shell("promote", two, "1")
    assert " 1 (pinned)  " in shell("models", two)
    found = shell.json("models", two)
    assert (found["live"]["version"], found["latest_version"]) == (1, 2)
    assert found["live_pinned_time"]


def test_a_model_that_is_live_nowhere_is_shown_too(shell, wire, model, few):
    wire.publish(model, few, publish=adaptation_pb2.PublishPolicy(promote=False))
    assert shell("models", model).splitlines()[1].split()[:3] == [model, "none", "1"]
    assert shell("models", f"{model}/none") == ""
    assert f"there is no model whose name starts with {model}/none" in shell.said


def test_tables_fit_80_columns_with_ids_as_they_are_chosen_by_default(at_a_terminal, wire, model, few):
    wire.publish(model, few, adaptation_id="a" * 32)
    for verb in (("adaptations", model), ("models", model), ("versions", model)):
        code, shown = at_a_terminal(*verb)
        assert code == 0
        assert max(map(len, shown.splitlines())) <= 80
        assert verb[0] != "adaptations" or "a" * 32 in shown


def version(number: int, digest: str, **report: Any) -> graft.Version:
    """A version as lists show it, of which an accuracy was measured unless `report` says otherwise."""
    figures = {"examples": 9, "evaluated_examples": 9, "evaluation": "held_out", "accuracy": 0.5, **report}
    known = dataclasses.replace(report_of(report_pb2.Report()), evaluation_digest=digest, **figures)
    return graft.Version("m", number, "a", "c", None, known, (), ())


def test_versions_measured_on_the_same_examples_have_the_same_letter_and_none_where_all_are():
    assert comparable([version(3, "x"), version(2, "x"), version(1, "", accuracy=None)]) == {}
    assert comparable([version(4, "x"), version(3, "y"), version(2, "x"), version(1, "", accuracy=None)]) == {
        4: "A",
        3: "B",
        2: "A",
    }
    assert comparable([version(2, ""), version(1, "")]) == {2: "A", 1: "B"}, (
        "of older releases it is not known"
    )
    many = comparable([version(number, f"{number}") for number in range(60, 0, -1)])
    assert [many[number] for number in (60, 35, 34, 9, 8, 1)] == ["A", "Z", "AA", "AZ", "BA", "BH"]


def test_versions_measured_on_different_examples_are_not_set_side_by_side(shell, wire, model):
    rows = [(f"the lock is stuck {n}", "lock") for n in range(12)] + [
        (f"my bill {n}", "bill") for n in range(12)
    ]
    for used in (rows, rows[:-2], rows):
        wire.publish(model, used)
    shown = shell("versions", model).splitlines()[1:]
    assert [it.split(": ")[0][-1] for it in shown] == ["A", "B", "A"]
    assert ["24 cross-validated" in it for it in shown] == [True, False, True]
    assert f"'graft compare {model} 2 3 test.csv' measures both on the same rows" in shell.said
    assert "only those with the same letter compare" in shell.said
    held_out = [upsert(text, label, split=types_pb2.SPLIT_VALIDATION) for text, label in rows[::2]]
    for used in (rows[1::2], rows[1::4]):
        wire.publish(f"{model}/held-out", [*held_out, *used])
    shown = shell("versions", f"{model}/held-out").splitlines()[1:]
    assert all("  12 held out  " in it for it in shown)
    assert shell.said == ""


# --------------------------------------------------------------------------------------------- promote and alias


def test_promoting_an_older_version_says_that_it_is_pinned_and_the_newest_that_it_is_not(shell, two):
    assert shell("promote", two, "1") == f"{two}: live is version 1\n"
    assert f"until 'graft promote {two} latest'" in shell.said
    assert shell("promote", two, "latest") == f"{two}: live is version 2\n"
    assert shell.said == ""
    shell("promote", two, "1", "--expected-version", "1", code=1)
    assert "points at version 2, not at version 1" in shell.said


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "m", "newest"],
        ["promote", "m", "0"],
        ["alias", "m", "canary", "first"],
        ["metadata", "m", "owner"],
        ["adapt", "m", "a.csv", "--metadata", "=x"],
        ["cancel", "m"],
        ["delete"],
    ],
)
def test_wrong_usage_of_a_verb_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: graft" in capsys.readouterr().err


def test_aliases_are_listed_set_and_removed(shell, two):
    assert shell("alias", two, "canary", "1") == f"{two}: canary is version 1\n"
    assert shell("alias", two, "canary") == f"{two}: canary is version 1\n"
    assert shell("alias", two, "canary", "latest") == f"{two}: canary is version 2\n"
    assert shell.json("alias", two) == {"canary": 2, "live": 2}
    assert [it.split() for it in shell("alias", two).splitlines()[1:]] == [["canary", "2"], ["live", "2"]]
    assert shell("alias", two, "canary", "--remove") == f"{two}: canary is removed\n"
    shell("alias", two, "canary", code=1)
    assert "has no alias 'canary'" in shell.said
    assert "'graft alias MODEL' lists the aliases" in shell.said
    shell("alias", two, "live", "--remove", code=1)
    assert "ALIAS_REQUIRED" in shell.said
    shell("alias", two, "--remove", code=1)
    assert "--remove takes the name of an alias" in shell.said
    shell("alias", two, "live", "1")
    assert "live is pinned at version 1" in shell.said
    assert "live is pinned at version 1" in shell("alias", two)


# ----------------------------------------------------------------------------------------------------- metadata


def test_metadata_of_a_model_is_set_shown_and_removed(shell, two):
    assert shell("metadata", two) == f"{two}: no metadata\n"
    assert shell("metadata", two, "owner=ann", "note=a=b c") == "note=a=b c\nowner=ann\n"
    assert shell.json("metadata", two, "--remove", "note") == {"owner": "ann"}
    assert shell.json("models", two)["metadata"] == {"owner": "ann"}
    shell("metadata", two, "no key=x", code=1)
    assert "has the key 'no key'" in shell.said


def test_metadata_of_versions_and_adaptations_is_in_json(shell, two):
    _, first = (json.loads(it) for it in shell("versions", two, "--json").splitlines())
    assert (first["version"], first["metadata"]) == (1, {"source": "few.csv"})
    assert shell.json("adaptations", two, "first")["metadata"] == {"source": "few.csv"}
    assert "few.csv" in shell("adaptations", two, "first")


def test_adapt_keeps_metadata_and_does_not_promote_where_it_is_told_so(shell, two, tmp_path, few):
    data = tmp_path / "few.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in few))
    start = ["adapt", two, str(data), "--replace"]
    shell(*start, "--no-promote", "--metadata", "source=few.csv", "--metadata", "by=ann")
    assert (
        f"published version 3; live stays at version 2, as asked: 'graft promote {two} 3' moves it"
        in shell.said
    )
    newest = json.loads(shell("versions", two, "--json").splitlines()[0])
    assert newest["metadata"] == {"by": "ann", "source": "few.csv"}
    shell("promote", two, "1")
    told = shell.json(*start)
    assert "published version 4; live stays at version 1, which was pinned on " in shell.said
    assert f"'graft promote {two} latest' moves it and releases the pin" in shell.said
    assert (told["version"], told["live_version"]) == (4, 1)
    assert any("live stays at version 1" in it for it in told["notices"])


# ------------------------------------------------------------------------------------------ adaptations and cancel


def test_adaptations_say_what_came_of_them(shell, two, wire, few):
    call = wire.adapt(model=two, adaptation_id="third")
    call.examples(0, few[:2:2])
    call.commit("early")
    call.next("publication_failed")
    rows = {it.split()[0]: it.split()[1:] for it in shell("adaptations", two).splitlines()[1:]}
    assert list(rows) == ["third", "second", "first"]
    assert rows["third"][:4] == ["open", "1", "1", "failed"]
    assert rows["first"][:4] == ["closed", str(len(few)), "version", "1"]
    listed = [json.loads(it) for it in shell("adaptations", two, "--json").splitlines()]
    assert [it["adaptation_id"] for it in listed] == ["third", "second", "first"]
    described = shell("adaptations", two, "third")
    assert "early" in described
    assert "failed" in described
    shell("adaptations", two, "fourth", code=1)
    assert "'graft adaptations MODEL' lists them" in shell.said
    shell("adaptations", f"{two}/none", code=1)
    assert "MODEL_NOT_FOUND" in shell.said


def test_a_publication_that_did_not_go_live_is_shown_as_that(shell, two, wire, few):
    shell("promote", two, "1")
    wire.publish(two, few, adaptation_id="third")
    assert "live was pinned, and stayed at version 1" in shell("adaptations", two, "third")


def test_cancelling_what_is_published_says_that_nothing_changed(shell, two):
    said = shell("cancel", two, "first", code=1)
    assert (
        said == f"{two}: adaptation first was closed already, and had published version 1: nothing changed\n"
    )
    assert shell.json("adaptations", two, "first")["state"] == "closed"


def test_cancelling_stops_an_open_adaptation_once(shell, two, wire, few):
    call = wire.adapt(model=two, adaptation_id="third")
    call.examples(0, few)
    call.commit("c")
    call.next("published")
    said = shell("cancel", two, "third")
    assert said == f"{two}: adaptation third is cancelled; version 3, which it published, stays\n"
    assert "was cancelled already" in shell("cancel", two, "third", code=1)
    shell("cancel", two, "fourth", code=1)
    assert "has no adaptation 'fourth'" in shell.said


def test_what_a_cancellation_did_is_in_its_json(shell, two, client):
    client.adapt(two, [("one more bill", "bill"), ("a lock", "lock")], adaptation_id="open", close=False)
    found = shell.json("cancel", two, "open")
    assert (found["state"], found["changed"], found["given_up"]) == ("cancelled", True, 0)
    again = client.cancel(two, "open")
    assert (again.state, again.changed) == ("cancelled", False)


# ------------------------------------------------------------------------------------------------------- delete


def test_deleting_needs_yes_where_nobody_can_be_asked(shell, two):
    shell("delete", two, code=1)
    assert "goes with 2 versions, of which version 2 is live, and 22 examples in 2 adaptations" in shell.said
    assert "give --yes" in shell.said
    shell("delete", two, "--version", "1", code=1)
    assert "its examples stay stored" in shell.said
    assert len(shell("versions", two, "--json").splitlines()) == 2


def test_a_version_is_deleted_but_not_the_one_that_is_live(shell, two):
    shell("delete", two, "--version", "2", "--yes", code=1)
    assert "version 2" in shell.said
    assert f"'graft promote {two} VERSION' points live at another one" in shell.said
    shell("alias", two, "canary", "1")
    shell("delete", two, "--version", "1", "--yes", code=1)
    assert f"'graft alias {two} canary --remove' removes canary" in shell.said
    shell("alias", two, "canary", "--remove")
    assert shell("delete", two, "--version", "1", "--yes") == f"{two}: version 1 is deleted\n"
    shell("delete", two, "--version", "1", "--yes", code=1)
    assert "has no version 1" in shell.said
    assert shell.json("versions", two)["version"] == 2


def test_a_model_is_deleted_also_where_it_has_no_version(shell, two, wire, model):
    assert shell.json("delete", two, "--yes") == {"model": two, "version": None, "deleted": True}
    shell("models", two)
    assert "there is no model" in shell.said
    bare = f"{model}/bare"
    call = wire.adapt(model=bare, adaptation_id="a")
    call.next("started")
    call.half_close()
    assert shell("delete", bare, "--yes") == f"{bare}: deleted\n"
    shell("delete", bare, "--yes", code=1)
    assert "MODEL_NOT_FOUND" in shell.said


def test_a_person_is_told_what_goes_and_asked(at_a_terminal, shell, two):
    code, shown = at_a_terminal("delete", two, typed="n\n")
    assert code == 1
    assert "22 examples in 2 adaptations. This cannot be undone. Delete? [y/N]" in " ".join(shown.split())
    assert "nothing was deleted" in shown
    code, shown = at_a_terminal("delete", two, "--version", "1", typed="y\n")
    assert code == 0
    assert "version 1 is deleted" in shown
    assert shell.json("versions", two)["version"] == 2
