"""`graft review`, and what it is made of: the dialogue, keys on a terminal, and the model that comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import graft
from graft import cli
from graft._records.records import version_of
from graft.cli.correcting.items import Item, conflicts_of, duplicates_of
from graft.cli.correcting.keys import CTRL_C, Keys, matching
from graft.cli.correcting.review import Ending, Review
from graft.cli.showing.terminal import Terminal
from graft.cli.verbs.review import Kept
from graft.v1 import model_pb2

CLASSES = ["bill", "card", "card lost", "lock"]


def item(n: int, target: Any = "lock", suggested: Any = "bill") -> Item:
    facts = {"adaptation_id": "a", "writer_id": "w", "sequence": n, "split": "", "group": "", "subject": ""}
    fields = {tuple: "labels", float: "value", dict: "distribution"}
    labels = {"label": None} | {fields.get(type(target), "label"): target}
    example = graft.StoredExample(
        **facts, **labels, deleted=False, text=None, id=f"i{n}", origin=f"a.csv:{n}"
    )
    return Item(example, suggested, 0.01, 0.98)


@pytest.fixture
def answered(monkeypatch) -> Callable[..., tuple[Ending, Any, str]]:
    """Runs a review with lines as answers; returns how it ended, what it found, and what was shown."""

    def run(items: Sequence[Item], lines: str) -> tuple[Ending, Any, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        terminal = Terminal()
        terminal.err = Console(file=io.StringIO(), width=200, highlight=False)
        with Keys(terminal) as keys:
            review = Review(terminal, keys, items, CLASSES, lambda it: f"text of {it.example.id}")
            ending = review.run("Adapt?")
        assert isinstance(terminal.err.file, io.StringIO)
        return ending, review.found(), terminal.err.file.getvalue()

    return run


def changed(found: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(it.id, dict(it.fields)) for it in found.edits]


def test_each_answer_does_what_it_says(answered):
    lines = "k\nc\nl\ncard lost\nl CARD\nd\ns\ny\n"
    ending, found, shown = answered([item(n) for n in range(6)], lines)
    assert ending is Ending.SEND
    assert changed(found) == [
        ("i0", {"confirmed": True}),
        ("i1", {"confirmed": True, "label": "bill"}),
        ("i2", {"confirmed": True, "label": "card lost"}),
        ("i3", {"confirmed": True, "label": "card"}),
    ]
    assert found.deleted == [(5, "i4")]
    assert found.said() == "3 corrected, 1 confirmed, 1 deleted"
    for said in ("text of i0", "1 of 6 · a.csv:0", "lock  1.0%", "bill  98.0%", "a.csv:1: lock → bill"):
        assert said in shown


def test_back_goes_to_the_example_before_and_at_the_end_to_the_last_one(answered):
    ending, found, shown = answered([item(0), item(1)], "k\nb\nc\nd\nb\nk\ny\n")
    assert ending is Ending.SEND
    assert changed(found) == [("i0", {"confirmed": True, "label": "bill"}), ("i1", {"confirmed": True})]
    assert "decided    lock is confirmed" in shown
    assert "decided    lock is deleted" in shown


def test_quitting_sends_what_was_decided_so_far_if_that_is_wanted(answered):
    assert answered([item(0), item(1)], "c\nq\ny\n")[0] is Ending.SEND
    assert answered([item(0), item(1)], "s\nq\n")[0] is Ending.DROP
    assert answered([item(0)], "q\n")[0] is Ending.DROP
    assert answered([item(0)], "c\nn\nn\n")[0] is Ending.DROP
    assert answered([item(0)], "c\nn\ny\n")[0] is Ending.SAVE


@pytest.mark.parametrize("lines", ["c\n", "c\nq\n", "c\nl\n", "c\nn\n", "c\nperhaps\n"])
def test_where_the_input_ends_before_a_yes_decisions_are_saved_and_not_sent(answered, lines):
    assert answered([item(0), item(1)], lines)[0] is Ending.SAVE


def test_where_the_input_ends_before_a_decision_nothing_is_left(answered):
    assert answered([item(0)], "")[0] is Ending.DROP


def test_what_means_nothing_is_asked_again_and_a_label_alone_is_one(answered):
    _, found, shown = answered([item(0), item(1)], "what\n\nl car\nl\n\ncard\nc\ny\n")
    assert changed(found)[0] == ("i0", {"confirmed": True, "label": "card"})
    assert "several labels are like 'car': card, card lost" in shown


def test_a_new_label_is_asked_about(answered):
    _, found, _ = answered([item(0), item(1)], "l parcel\nn\nl parcel\ny\nparcel\ny\n")
    assert [fields["label"] for _, fields in changed(found)] == ["parcel", "parcel"]


def test_the_label_that_is_there_is_a_confirmation(answered):
    _, found, _ = answered([item(0)], "l lock\ny\n")
    assert changed(found) == [("i0", {"confirmed": True})]


def test_without_a_suggestion_there_is_nothing_to_correct_to(answered):
    _, found, shown = answered([item(0, suggested=None)], "c\nk\ny\n")
    assert changed(found) == [("i0", {"confirmed": True})]
    assert "[c]orrect" not in shown


def test_several_labels_are_written_with_commas_or_as_a_list(answered):
    items = [item(n, target=("lock",), suggested=("bill", "lock")) for n in range(4)]
    _, found, shown = answered(items, 'c\nl bill, card lost\nl ["card"]\nl lock\ny\n')
    assert [fields.get("labels") for _, fields in changed(found)] == [
        ("bill", "lock"),
        ("bill", "card lost"),
        ("card",),
        None,
    ]
    assert "bill,lock" in shown


@pytest.mark.parametrize("sent", [False, True])
def test_what_was_decided_is_kept_where_an_error_ends_the_command_before_it_was_sent(
    monkeypatch, tmp_path, sent
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c\nd\n")))
    terminal, items = Terminal(), [item(0), item(1), item(2)]
    with Keys(terminal) as keys:
        review = Review(terminal, keys, items, CLASSES, lambda _: "")
        review.run("Adapt?")
    response = model_pb2.ModelVersion(model="team/m", version=3)

    def interrupted() -> None:
        with Kept(terminal, version_of(response), items, review) as kept:
            if sent:
                kept.sent()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    files = list(tmp_path.glob("*.csv"))
    assert [it.name for it in files] == ([] if sent else ["team-m-review.csv"])
    for path in files:
        rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        assert [(it["id"], it["label"], it["delete"]) for it in rows] == [
            ("i0", "bill", ""),
            ("i1", "lock", "yes"),
        ]


def test_a_text_does_nothing_to_the_terminal(monkeypatch):
    terminal = Terminal()
    terminal.err = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with Keys(terminal) as keys:
        Review(terminal, keys, [item(0)], CLASSES, lambda _: "[bold]\x1b[2J\x9b1mtext\ttab").run("Adapt?")
    assert "[bold]\ufffd[2J\ufffd1mtext" in terminal.err.file.getvalue()


def test_a_number_is_corrected_to_a_number(answered):
    _, found, shown = answered([item(0, 2.5, None), item(1, 2.5, None)], "l many\nl 3\nl\n1e400\nl\n2.5\ny\n")
    assert changed(found) == [("i0", {"confirmed": True, "value": 3.0}), ("i1", {"confirmed": True})]
    assert "'many' is not a number" in shown


def test_words_that_begin_as_typed_come_before_those_that_have_it_within():
    assert matching("LO", ["lock", "card lost", "bill"]) == ["lock", "card lost"]
    assert matching("", CLASSES) == CLASSES


# -------------------------------------------------------------------------------------------- on a terminal


@pytest.fixture
def typed(monkeypatch) -> Iterator[Callable[[bytes], tuple[Terminal, Keys]]]:
    """A terminal on which keys were pressed."""
    person, program = pty.openpty()
    opened = os.fdopen(program, "r")
    monkeypatch.setattr(sys, "stdin", opened)
    terminal = Terminal()
    terminal.err = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Keys(terminal) as keys:

        def press(data: bytes) -> tuple[Terminal, Keys]:
            os.write(person, data)
            return terminal, keys

        yield press
    opened.close()
    os.close(person)


def test_a_key_answers_without_a_line_end_and_those_of_a_line_are_passed_over(typed):
    _, keys = typed(b"k\nc\x03")
    assert keys.single
    assert [keys.command("?") for _ in range(3)] == ["k", "c", CTRL_C]


def test_tab_completes_what_is_typed_and_lists_what_fits(typed):
    terminal, keys = typed(b"ca\t\t l\t\r")
    assert keys.text("label", CLASSES) == "card lost"
    assert "card  card lost" in terminal.err.file.getvalue()
    typed(b"xy\x7f\x7fb\t\r")
    assert keys.text("label", CLASSES) == "bill"
    typed(b"\x1b")
    assert keys.text("label", CLASSES) is None


def test_keys_without_a_character_are_no_answer(typed):
    _, keys = typed(b"\x1b[A\x1b[1;5C\x1b[15~\x1bOP\x1b[[A\x1bxk")
    assert keys.command("?") == "k"
    typed(b"\x1b[Db\x1b[Cill\x1bOH\r")
    assert keys.text("label", CLASSES) == "bill"


def test_what_is_taken_back_is_taken_off_the_screen(typed):
    terminal, keys = typed("bi🙂\x7fx\x7f\t\r".encode())
    assert keys.text("label", CLASSES) == "bill"
    assert terminal.err.file.getvalue().endswith("bi🙂\b \b\b \bx\b \b\b \b\b \bbill\n")


def test_ctrl_c_asks_what_becomes_of_the_decisions(typed):
    for answers, ending in (
        (b"k\x03gk\x03a", Ending.SEND),
        (b"k\x03s", Ending.SAVE),
        (b"k\x03t", Ending.DROP),
    ):
        terminal, keys = typed(answers)
        review = Review(terminal, keys, [item(n) for n in range(3)], CLASSES, lambda _: "")
        assert review.run("Adapt?") is ending
    _, keys = typed(b"\x03")
    assert Review(terminal, keys, [item(0)], CLASSES, lambda _: "").run("Adapt?") is Ending.DROP
    assert "1 decision so far" in terminal.err.file.getvalue()


# ----------------------------------------------------------------------------------------- against a server

KINDS = (("the lock is stuck", "lock"), ("my bill is wrong", "bill"))


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as opened:
        yield opened


@pytest.fixture
def planted(client: graft.Client, model: str, tmp_path: Path) -> str:
    """A model of which two examples have the other one's label."""
    rows = [(f"{text} {n}", label) for n in range(15) for text, label in KINDS]
    rows[6], rows[9] = (rows[6][0], "bill"), (rows[9][0], "lock")
    data = tmp_path / "train.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    client.adapt(model, graft.read_examples(data))
    return model


@pytest.fixture
def reviewed(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Runs commands with lines on standard input; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as opened:

        def run(*words: str, lines: str = "") -> int:
            (tmp_path / "lines").write_text(lines)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(Path("lines").open()))
            return cli.main([*words, "--server", server.target])

        yield run


def test_planted_errors_are_reviewed_corrected_and_not_asked_about_again(
    reviewed, client, planted, tmp_path, capsys
):
    errors = client.probable_errors(planted)
    assert {(it.example.text, it.suggested) for it in errors} == {
        ("the lock is stuck 3", "lock"),
        ("my bill is wrong 4", "bill"),
    }
    assert {it.example.origin for it in errors} == {"train.csv:8", "train.csv:11"}
    report = client.report(planted)
    assert {report.quotes.of(it.example.id).text for it in errors} == {it.example.text for it in errors}
    # The input ends before a yes: decisions are kept in a file, which says the same.
    assert reviewed("review", planted, lines="c\nk\n") == 1
    saved = next(tmp_path.glob("*-review.csv"))
    assert saved.name in capsys.readouterr().err
    assert client.version(planted).version == 1
    assert reviewed("adapt", planted, saved.name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["changes"] == {
        "corrected": 1,
        "confirmed": 1,
        "deleted": 0,
        "added": 0,
        "changed otherwise": 0,
    }
    # The first is corrected and the second kept: neither is doubtful any more.
    assert reviewed("review", planted) == 0
    assert "no label worth a second look" in capsys.readouterr().out
    report = client.version(planted, 2).report
    assert (report.examples, report.data.confirmed_examples) == (30, 2)
    done = client.examples(planted, version=2, ids=[it.example.id for it in errors])
    assert {(it.confirmed, it.origin) for it in done} == {(True, "train.csv:8"), (True, "train.csv:11")}
    assert {it.label for it in done} in ({"lock"}, {"bill"})


def test_a_review_on_a_terminal_adapts_at_a_yes_and_says_both_figures(server, client, planted):
    person, program = pty.openpty()
    line = [sys.executable, "-m", "graft.cli", "review", planted, "--server", server.target]
    process = subprocess.Popen(line, stdin=program, stdout=subprocess.PIPE, stderr=program)
    os.close(program)
    os.write(person, b"ccy")  # keys that are pressed before they are asked for count, too
    shown: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(person, shown))
    reader.start()
    out = process.communicate(timeout=120)[0].decode()
    reader.join()
    os.close(person)
    assert process.returncode == 0, b"".join(shown)
    assert b"changes: 2 corrected" in b"".join(shown)
    assert "of version 1, " in out
    assert "each was measured on its own examples" in out
    assert client.probable_errors(planted) == []


def read_all(fd: int, into: list[bytes]) -> None:
    try:
        while data := os.read(fd, 4096):
            into.append(data)
    except OSError:
        pass  # the program's end is closed


def test_conflicts_and_duplicates_are_gone_through_without_what_was_confirmed(client, model, few):
    text, label = few[0]
    rows = [
        *(graft.Example(*row, id=f"r{n}", origin=f"few.csv:{n + 2}") for n, row in enumerate(few)),
        *(graft.Example(few[1][0], few[1][1], id="again"), graft.Example(text, label, id="twice")),
        *(
            graft.Example(text, "bill", id="other"),
            graft.Example(text, "bill", id="looked at", confirmed=True),
        ),
    ]
    client.adapt(model, rows)
    version = client.version(model)
    found = {it.example.id: it for it in conflicts_of(client, version)}
    assert found.keys() == {"r0", "twice", "other"}
    # A confirmed label is what the others are corrected to.
    assert {id_: it.suggested for id_, it in found.items()} == {"r0": "bill", "twice": "bill", "other": None}
    assert found["r0"].note == "the same input has lock × 2, bill × 2"
    copies = duplicates_of(client, version)
    assert {it.example.id for it in copies} == {"twice", "other", "again"}
    assert {it.note for it in copies} == {"the same input as few.csv:2", "the same input as few.csv:3"}


def test_reports_quote_what_is_there_in_both_clients_and_in_the_terminal(server, client, planted, capsys):
    async def asked() -> tuple[graft.Report, list[graft.ProbableError], graft.Version]:
        async with graft.AsyncClient(server.target) as opened:
            version = await opened.version(planted, quotes=True)
            return await opened.report(planted), await opened.probable_errors(planted), version

    report, errors, version = asyncio.run(asked())
    assert report.quotes == version.report.quotes == client.report(planted).quotes
    assert errors == client.probable_errors(planted)
    with pytest.raises(graft.NotFoundError):
        client.report(planted, 9)
    # What is erased goes from the report, too.
    client.delete_examples(planted, ids=[errors[0].example.id])
    assert [it.example.id for it in client.probable_errors(planted)] == [errors[1].example.id]
    assert cli.main(["report", planted, "--server", server.target]) == 0
    shown = capsys.readouterr().out
    assert errors[1].example.text in shown
    assert errors[1].example.origin in shown


def test_a_list_is_written_edited_and_sent_back_in_two_commands(server, client, planted, tmp_path, capsys):
    path = tmp_path / "fixes.csv"
    flags = ["--server", server.target]
    assert cli.main(["examples", planted, "--probable-errors", "--output", str(path), *flags]) == 0
    assert f"graft adapt {planted} {path}" in " ".join(capsys.readouterr().err.split())
    for label, suggested in (("lock", "bill"), ("bill", "lock")):
        path.write_text(path.read_text().replace(f",{label},{suggested},", f",{suggested},{suggested},", 1))
        break
    assert cli.main(["adapt", planted, str(path), "--check", *flags]) == 0
    assert "1 corrected would be changed; nothing was stored" in capsys.readouterr().out
    assert cli.main(["adapt", planted, str(path), "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["changes"]["corrected"] == 1
    assert cli.main(["adapt", planted, str(path), *flags]) == 0
    assert "nothing is changed" in capsys.readouterr().out
    assert client.version(planted).version == 2
    assert len(client.examples(planted, version=2)) == 30
