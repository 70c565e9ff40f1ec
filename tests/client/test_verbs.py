"""The verbs of the command line that look after models: what they show, what they change, and how they refuse."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

import graft
from graft._records.evaluation.report_messages import report_of
from graft.cli import main
from graft.cli.showing.live import live_then, not_live
from graft.cli.showing.tables import drawn, rows_of
from graft.cli.showing.terminal import Terminal
from graft.cli.verbs import adaptations, cancel, models, versions
from graft.v1 import adaptation_pb2, report_pb2

NOW = dt.datetime.now(tz=dt.UTC)


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

    def lines(self, *arguments: str) -> list[Any]:
        return [json.loads(it) for it in self(*arguments, "--json").splitlines()]


@pytest.fixture
def shell(server: Any, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(server.target, capsys)


@pytest.fixture(scope="module")
def published(shared_wire: Any, few: Any) -> str:
    """A model with versions 1, 2 and 3 of adaptations "first", "second" and "third"; 1 and 3 have the same examples."""
    model = f"tests/{uuid.uuid4().hex}"
    shared_wire.publish(model, few, adaptation_id="first", metadata={"source": "few.csv"})
    shared_wire.publish(model, few[:10], adaptation_id="second")
    shared_wire.publish(model, few, adaptation_id="third")
    return model


@pytest.fixture
def known(published: str, server: Any) -> Iterator[str]:
    """The same model, whose aliases and metadata a test may change."""
    yield published
    with graft.Client(server.target) as client:
        model = client.promote(published, "latest")
        client.set_metadata(published, dict.fromkeys([*model.metadata, "none"]))
        for alias in model.aliases.keys() - {"live"}:
            client.set_alias(published, alias, 0)


def at_a_terminal(target: str, *arguments: str, typed: str) -> tuple[int, str]:
    """Runs a command at a terminal, types an answer, and returns its exit code and what it showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "GRAFT_SERVER": target, "TERM": "dumb"}
    command = [sys.executable, "-m", "graft.cli", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    return process.returncode, " ".join(shown.decode().split())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


# ------------------------------------------------------------------------------------------ models and versions


def version(number: int, digest: str, **report: Any) -> graft.Version:
    """A version as lists show it, of which an accuracy was measured unless `report` says otherwise."""
    figures = {"examples": 9_999, "evaluated_examples": 999, "evaluation": "cross_validation", **report}
    known = {"accuracy": 0.5, "accuracy_low": 0.45, "accuracy_high": 0.55, "backbone": "minilm", **figures}
    empty = report_of(report_pb2.Report())
    measured = dataclasses.replace(empty, evaluation_digest=digest, **known)
    return graft.Version("m", number, "a", "c", NOW, measured, ("live",), ())


def test_models_show_what_is_live_how_good_it_is_and_that_it_is_pinned(shell, known):
    (line,) = shell("models", known).splitlines()[1:]
    cells = line.split()
    assert (cells[0], cells[1:3], cells[-3], cells[-4]) == (known, ["3", "3"], "minilm", "12")
    assert "100.0%" in line
    shell("promote", known, "1")
    assert " 1 (pinned)  " in shell("models", known)
    assert "live is pinned at version 1 since" in (shell("versions", known), shell.said)[1]
    found = shell.json("models", known)
    assert (found["live"]["version"], found["latest_version"]) == (1, 3)
    assert found["live_pinned_time"]


def test_a_model_that_is_live_nowhere_is_shown_too(shell, wire, model, few):
    wire.publish(model, few, publish=adaptation_pb2.PublishPolicy(promote=False))
    assert shell("models", model).splitlines()[1].split()[:3] == [model, "none", "1"]
    assert shell("models", f"{model}/none") == ""
    assert f"there is no model whose name starts with {model}/none" in shell.said


def test_versions_measured_on_different_examples_are_not_set_side_by_side(shell, known):
    shown = shell("versions", known).splitlines()[1:]
    assert [it.split(": ")[0][-1] for it in shown] == ["A", "B", "A"]
    assert ["12 cross-validated" in it for it in shown] == [True, False, True]
    assert f"'graft compare {known} 2 3 test.csv' measures both on the same rows" in shell.said
    assert "only those with the same letter compare" in shell.said


def test_versions_measured_on_the_same_examples_have_the_same_letter_and_none_where_all_are():
    few = version(1, "", accuracy=None)
    assert versions.comparable([version(3, "x"), version(2, "x"), few]) == {}
    measured = [version(4, "x"), version(3, "y"), version(2, "x"), few]
    assert versions.comparable(measured) == {4: "A", 3: "B", 2: "A"}
    older = [version(2, ""), version(1, "")]
    assert versions.comparable(older) == {2: "A", 1: "B"}, "of older releases it is not known"
    many = versions.comparable([version(number, f"{number}") for number in range(60, 0, -1)])
    assert [many[number] for number in (60, 35, 34, 9, 8, 1)] == ["A", "Z", "AA", "AZ", "BA", "BH"]


def shown(columns: Any, *rows: Any, **how: Any) -> list[str]:
    page = io.StringIO()
    Console(width=80, file=page).print(drawn(columns, rows_of(rows), 80, **how))
    return [it.rstrip() for it in page.getvalue().splitlines()]


def test_tables_keep_a_row_in_one_line_of_80_columns():
    one = version(99, "x")
    assert len(shown(versions.COLUMNS, versions.cells(one, "A"))) == 2
    model = graft.Model("support/intents", 99, {"live": 99}, 9, NOW, live=one, live_pinned_time=NOW)
    assert len(shown(models.COLUMNS, models.cells(model))) == 2
    publication = graft.Publication("c", "published", 99, None, NOW)
    found = graft.Adaptation("m", "a" * 32, "closed", "minilm", NOW, {"w": 99_999}, (publication,), {})
    lines = shown(adaptations.COLUMNS, adaptations.cells(found), whole=["adaptation"])
    assert [len(lines), lines[1].split()[0]] == [2, "a" * 32]


# --------------------------------------------------------------------------------------------- promote and alias


def test_promoting_an_older_version_says_that_it_is_pinned_and_the_newest_that_it_is_not(shell, known):
    assert shell("promote", known, "1") == f"{known}: live is version 1\n"
    assert f"until 'graft promote {known} latest'" in shell.said
    assert shell("promote", known, "latest") == f"{known}: live is version 3\n"
    assert shell.said == ""
    shell("promote", known, "1", "--expected-version", "1", code=1)
    assert "points at version 3, not at version 1" in shell.said


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


def test_aliases_are_listed_set_and_removed(shell, known):
    assert shell("alias", known, "canary", "1") == f"{known}: canary is version 1\n"
    assert shell("alias", known, "canary") == f"{known}: canary is version 1\n"
    assert shell("alias", known, "canary", "latest") == f"{known}: canary is version 3\n"
    assert shell.json("alias", known) == {"canary": 3, "live": 3}
    assert [it.split() for it in shell("alias", known).splitlines()[1:]] == [["canary", "3"], ["live", "3"]]
    assert shell("alias", known, "canary", "--remove") == f"{known}: canary is removed\n"
    shell("alias", known, "canary", code=1)
    assert "has no alias 'canary'" in shell.said
    assert "'graft alias MODEL' lists the aliases" in shell.said
    shell("alias", known, "live", "--remove", code=1)
    assert "ALIAS_REQUIRED" in shell.said
    shell("alias", known, "--remove", code=1)
    assert "--remove takes the name of an alias" in shell.said
    shell("alias", known, "live", "1")
    assert "live is pinned at version 1" in shell.said
    assert "live is pinned at version 1" in shell("alias", known)


# ----------------------------------------------------------------------------------------------------- metadata


def test_metadata_of_a_model_is_set_shown_and_removed(shell, known):
    assert shell("metadata", known) == f"{known}: no metadata\n"
    assert shell("metadata", known, "owner=ann", "note=a=b c") == "note=a=b c\nowner=ann\n"
    assert shell.json("metadata", known, "--remove", "note") == {"owner": "ann"}
    assert shell.json("models", known)["metadata"] == {"owner": "ann"}
    shell("metadata", known, "no key=x", code=1)
    assert "has the key 'no key'" in shell.said


def test_metadata_of_versions_and_adaptations_is_in_json(shell, known):
    assert [it["metadata"] for it in shell.lines("versions", known)] == [{}, {}, {"source": "few.csv"}]
    assert shell.json("adaptations", known, "first")["metadata"] == {"source": "few.csv"}
    assert "few.csv" in shell("adaptations", known, "first")


def test_adapt_keeps_metadata_and_does_not_promote_where_it_is_told_so(shell, wire, model, tmp_path, few):
    wire.publish(model, few)
    data = tmp_path / "few.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in few))
    start = ["adapt", model, str(data), "--replace"]
    shell(*start, "--no-promote", "--metadata", "source=few.csv", "--metadata", "by=ann")
    assert (
        f"published version 2; live stays at version 1, as asked: 'graft promote {model} 2' moves it"
        in shell.said
    )
    assert shell.lines("versions", model)[0]["metadata"] == {"by": "ann", "source": "few.csv"}
    shell("promote", model, "1")
    told = shell.json(*start)
    assert "published version 3; live stays at version 1, which was pinned on " in shell.said
    assert f"'graft promote {model} latest' moves it and releases the pin" in shell.said
    assert (told["version"], told["live_version"]) == (3, 1)
    assert any("live stays at version 1" in it for it in told["notices"])


def test_what_does_not_go_live_is_said_of_results_publications_and_events():
    pinned = graft.Outcome("c", 7, None, None, live_version=5, live_pinned_time=NOW)
    assert not_live("m", pinned).startswith(
        "published version 7; live stays at version 5, which was pinned on "
    )
    assert not_live("m", pinned).endswith(": 'graft promote m latest' moves it and releases the pin")
    first = dataclasses.replace(pinned, version=1, live_version=0, live_pinned_time=None)
    assert "asked for by its number (--version 1) until 'graft promote m 1'" in not_live("m", first)
    for live, of in ((7, pinned), (None, pinned)):  # None: of a server of an older release
        assert not_live("m", dataclasses.replace(of, live_version=live)) == ""
    event = graft.Event(1, NOW, "published", version=7, live_version=5, live_pinned_time=NOW)
    assert live_then(event) == "live was pinned, and stayed at version 5"
    assert (
        live_then(graft.Publication("c", "published", 7, None, NOW, 5))
        == "not promoted, and stayed at version 5"
    )
    assert live_then(graft.Publication("c", "published", 7, None, NOW, 0)) == "not promoted"
    assert live_then(graft.Publication("c", "published", 7, None, NOW, 7)) == ""
    assert live_then(graft.Publication("c", "failed", 0, None, NOW)) == ""


def test_each_version_that_the_server_makes_by_itself_says_where_live_stays(capsys):
    made = graft.Outcome("auto:1", 7, version(7, "x").report, None, live_version=5)
    Terminal().outcome("m", made)
    Terminal().outcome("m", dataclasses.replace(made, live_version=7))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("published version 7: ") == 2
    assert said.count("live stays at version 5, as asked: 'graft promote m 7' moves it") == 1


# ------------------------------------------------------------------------------------------ adaptations and cancel


def test_adaptations_say_what_came_of_them(shell, known, wire, model, few):
    rows = [it.split() for it in shell("adaptations", known).splitlines()[1:]]
    assert [it[:5] for it in rows] == [
        ["third", "closed", "12", "version", "3"],
        ["second", "closed", "10", "version", "2"],
        ["first", "closed", "12", "version", "1"],
    ]
    assert [it["adaptation_id"] for it in shell.lines("adaptations", known)] == ["third", "second", "first"]
    shell("adaptations", known, "fourth", code=1)
    assert "'graft adaptations MODEL' lists those it has" in shell.said
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few[:1])
    call.commit("early")
    call.next("publication_failed")
    (only,) = shell("adaptations", model).splitlines()[1:]
    assert only.split()[:5] == ["a", "open", "1", "1", "failed"]
    described = shell("adaptations", model, "a")
    assert "early" in described
    assert "failed" in described
    shell("adaptations", f"{model}/none", code=1)
    assert "MODEL_NOT_FOUND" in shell.said


def test_cancelling_what_is_published_says_that_nothing_changed(shell, known):
    said = shell("cancel", known, "first", code=1)
    assert (
        said
        == f"{known}: adaptation first was closed already, and had published version 1: nothing changed\n"
    )
    assert shell.json("adaptations", known, "first")["state"] == "closed"
    shell("cancel", known, "fourth", code=1)
    assert "has no adaptation 'fourth'" in shell.said


def test_cancelling_stops_an_open_adaptation_once(shell, wire, model, few, server):
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(0, few)
    call.commit("c")
    call.next("published")
    said = shell("cancel", model, "a")
    assert said == f"{model}: adaptation a is cancelled; version 1, which it published, stays\n"
    assert "was cancelled already" in shell("cancel", model, "a", code=1)
    wire.adapt(model=model, adaptation_id="b").next("started")
    found = shell.json("cancel", model, "b")
    assert (found["state"], found["changed"], found["given_up"]) == ("cancelled", True, 0)
    with graft.Client(server.target) as client:
        again = client.cancel(model, "b")
    assert (again.state, again.changed) == ("cancelled", False)
    assert "and had published nothing: nothing changed" in shell("cancel", model, "b", code=1)
    wire.adapt(model=model, adaptation_id="c").next("started")
    assert shell("cancel", model, "c") == f"{model}: adaptation c is cancelled\n"


def test_what_was_given_up_is_said_in_words():
    published = [graft.Publication("c", "published", it, None, NOW) for it in (3, 4)]
    given_up = graft.Publication("d", "cancelled", 0, graft.FailedPreconditionError("it is cancelled"), NOW)
    known = ("m", "a", "cancelled", "minilm", NOW, {"w": 9})
    found = graft.CancelledAdaptation(*known, (*published, given_up), {}, changed=True, given_up=1)
    words = "is cancelled; 1 publication given up; versions 3 and 4, which it published, stay"
    assert cancel.became(found) == words
    waiting = dataclasses.replace(found, publications=(given_up,), given_up=2)
    assert cancel.became(waiting) == "is cancelled; 2 publications given up"


# ------------------------------------------------------------------------------------------------------- delete


def test_deleting_needs_yes_where_nobody_can_be_asked(shell, known):
    shell("delete", known, code=1)
    assert "goes with 3 versions, of which version 3 is live, and 34 examples in 3 adaptations" in shell.said
    assert "give --yes" in shell.said
    shell("delete", known, "--version", "1", code=1)
    assert "its examples stay stored" in shell.said
    assert len(shell.lines("versions", known)) == 3


def test_a_version_that_an_alias_points_at_is_not_deleted_and_it_is_said_what_to_do(shell, known):
    shell("delete", known, "--version", "3", "--yes", code=1)
    assert f"'graft promote {known} VERSION' points live at another one" in shell.said
    shell("alias", known, "canary", "1")
    shell("delete", known, "--version", "1", "--yes", code=1)
    assert f"'graft alias {known} canary --remove' removes canary" in shell.said
    shell("delete", known, "--version", "9", "--yes", code=1)
    assert "has no version 9" in shell.said
    assert len(shell.lines("versions", known)) == 3


def test_what_goes_is_said_and_a_person_is_asked(shell, server, wire, model, few):
    wire.publish(model, few)
    wire.publish(model, few[:10])
    code, said = at_a_terminal(server.target, "delete", model, typed="n\n")
    assert code == 1
    assert "22 examples in 2 adaptations. This cannot be undone. Delete? [y/N]" in said
    assert "nothing was deleted" in said
    assert shell("delete", model, "--version", "1", "--yes") == f"{model}: version 1 is deleted\n"
    assert shell.json("versions", model)["version"] == 2
    assert shell.json("delete", model, "--yes") == {"model": model, "version": None, "deleted": True}
    shell("delete", model, "--yes", code=1)
    assert "MODEL_NOT_FOUND" in shell.said


def test_a_model_without_a_version_is_deleted_too(shell, wire, model):
    wire.adapt(model=model, adaptation_id="a").next("started")
    assert shell("delete", model, "--yes") == f"{model}: deleted\n"
