"""More examples for a model that exists: in Python and on the command line, against a real server."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client import scripted

import graft
from graft._streams.extending import FEWER
from graft.cli import main
from graft.cli.adapting.extending import Ground

LOCK, BILL = "the lock is stuck", "my bill is wrong"


@pytest.fixture(scope="module")
def target(server: Any) -> str:
    return str(server.target)


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[graft.Client]:
    with graft.Client(target) as client:
        yield client


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line turns this warning off for good."""
    monkeypatch.setattr(FEWER, "disabled", False)


@pytest.fixture
def name() -> str:
    return f"more/{uuid.uuid4().hex}"


def few(count: int = 12) -> list[tuple[str, str]]:
    return [(f"{(LOCK, BILL)[n % 2]} {n}", ("lock", "bill")[n % 2]) for n in range(count)]


def intents(file: str) -> list[tuple[str, str]]:
    path = Path(__file__).resolve().parents[2] / "examples" / "intents" / file
    with path.open(newline="") as rows:
        return [(row["text"], row["intent"]) for row in csv.DictReader(rows)]


def corrected(rows: list[tuple[str, str]], *places: int) -> list[tuple[str, str]]:
    return [(text, "key" if place in places else label) for place, (text, label) in enumerate(rows)]


# ------------------------------------------------------------------------------------------------------- Python


def test_extend_starts_a_model_extends_it_and_knows_when_nothing_is_new(
    client: graft.Client, name: str
) -> None:
    rows = few()
    first = client.adapt(name, rows, extend=True)
    assert (first.version, first.extension, first.nothing_new) == (1, None, False)
    grown = [*corrected(rows, 0, 2), ("the key is lost", "key")]
    checked = client.check(name, grown, extend=True)
    second = client.adapt(name, grown, extend=True, adaptation_id="second")
    assert second.extension == checked.extension
    assert second.extension == graft.Extension(
        base_version=1,
        base_examples=12,
        added=1,
        replaced_by_content=2,
        unchanged=10,
        match_content=True,
    )
    assert str(second.extension) == (
        "version 1: 12 examples + 1 new, 2 corrected by content, 10 that were there already"
    )
    assert second.extension.examples == second.report.examples == 13
    assert client.version(name).extension == second.extension
    assert client.adaptation(name, "second").extension == second.extension
    third = client.adapt(name, grown, extend=True)
    assert (third.version, third.nothing_new) == (2, True)
    # Resumed, an adaptation goes on from what it began with, whatever is live.
    again = client.adapt(name, grown, extend=True, adaptation_id="second")
    assert (again.version, again.extension) == (2, second.extension)


def test_the_asyncio_client_extends_too(target: str, name: str) -> None:
    async def scenario() -> graft.AdaptResult:
        async with graft.AsyncClient(target) as client:
            await client.adapt(name, few(), extend=True)
            assert (await client.check(name, few(), extend=True)).extension is not None
            return await client.adapt(name, [("the key is lost", "key")] * 2, extend=True)

    result = asyncio.run(scenario())
    assert str(result.extension) == "version 1: 12 examples + 2 new"


@pytest.mark.slow
def test_another_version_may_be_extended_by_number_or_alias(client: graft.Client, name: str) -> None:
    client.adapt(name, few())
    client.adapt(name, few(20))
    client.set_alias(name, "small", 1)
    for base in ({"base_version": 1}, {"base_alias": "small"}):
        checked = client.check(name, [*few(), ("new", "lock")], extend=True, **base)
        assert str(checked.extension) == "version 1: 12 examples + 1 new, 12 that were there already"
    plain = client.check(name, few(), base_version=1)
    assert str(plain.extension) == "version 1: 12 examples + 12 new"  # without ids, they are others
    with pytest.raises(ValueError, match="give one of them"):
        client.check(name, few(), base_version=1, base_alias="small")
    with pytest.raises(graft.NotFoundError, match="champion"):
        client.check(name, few(), base_alias="champion")


@pytest.mark.slow
def test_what_others_published_meanwhile_is_told(client: graft.Client, name: str) -> None:
    client.adapt(name, few())
    client.adapt(name, few(14), extend=True)
    client.set_alias(name, "live", 1)  # what was published before is nothing that came meanwhile

    began = client.adapt(name, [("mine", "bill")], base_alias="live", adaptation_id="mine", close=False)
    assert (began.version, began.meanwhile) == (3, ())
    others = client.adapt(name, [("of somebody else", "lock")], base_version=1)
    result = client.adapt(
        name,
        [("mine", "bill"), ("mine too", "bill")],
        base_alias="live",
        adaptation_id="mine",
        commit_id="last",
    )
    assert (result.version, result.meanwhile) == (5, (others.version,))
    told = (
        "version 5 extends version 1, and others published 4 meanwhile: it does not have the examples that they added. "
        "With base_version=4 the same examples make a version of both"
    )
    assert told in result.notices


@pytest.mark.slow
def test_far_fewer_examples_than_the_live_version_has_are_warned_of(
    client: graft.Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.adapt(name, few(20)).notices == ()
    assert client.adapt(name, few(10)).notices == ()  # half of them are not far fewer
    client.adapt(name, few(20))
    caplog.clear()
    (notice,) = client.adapt(name, few(8)).notices
    assert notice == (
        "version 4 was trained on 8 examples, and version 3, which was live before it, on 20, which it does not go on "
        "from: extend=True takes those, too"
    )
    assert notice in caplog.text
    assert client.adapt(name, [("the key is lost", "key")], extend=True).notices == ()


# --------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def command(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `graft adapt` on rows, and returns its exit code, its output, and what it said."""

    def run(
        model: str, rows: Iterable[tuple[str, ...]], *flags: str, header: str = "text,label"
    ) -> tuple[int, str, str]:
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header.split(","), *rows])
        capsys.readouterr()
        code = main(["adapt", model, str(path), "--server", target, *flags])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run


def test_the_obvious_command_extends_the_live_version(
    command: Callable[..., Any],
    client: graft.Client,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = few()
    code, out, said = command(name, rows)
    assert code == 0
    assert "extends" not in out + said
    fixes = [*corrected(rows, 0, 2)[:4], ("the key is lost", "key")]
    code, out, _ = command(name, fixes, "--check")
    assert code == 0
    assert out.splitlines()[1] == (
        "would extend version 1: 12 examples + 1 new, 2 corrected by content, 2 that were there already"
    )
    code, out, said = command(name, fixes)
    assert code == 0
    assert f"extends version 1 of {name}: 12 examples" in said
    assert out.splitlines()[0] == (
        "extends version 1: 12 examples + 1 new, 2 corrected by content, 2 that were there already"
    )
    assert client.version(name).report.examples == 13
    code, out, _ = command(name, fixes)
    assert (code, out.splitlines()[0]) == (
        0,
        "nothing new: version 2 stays: 13 examples, 5 that were there already",
    )
    assert "accuracy" not in out
    assert main(["report", name, "--server", client.target]) == 0
    assert main(["watch", name, client.version(name).adaptation_id, "--server", client.target]) == 0
    out, _ = capsys.readouterr()
    shown = " ".join(out.partition("trained on")[0].split())
    assert "extends version 1: 12 examples + 1 new, 2 corrected by content" in shown
    assert ", extends version 1: 12 examples + 1 new" in out.rpartition("published version 2")[2]
    slips = [("the bolt is stuck", "lock "), ("the bolt is gone", "Lock"), ("where is the key", "keys")]
    _, _, said = command(name, slips, "--check")
    assert (
        "'lock ' (1) beside 'lock', 'Lock' (1) beside 'lock': these differ from labels of the model only by"
        in said
    )
    assert "the model does not have this label yet: 'keys' (1)" in said
    _, _, said = command(name, slips, "--check", "--merge-labels")
    assert "beside" not in said
    assert "does not have this label yet: 'keys' (1)" in said
    code, out, said = command(name, fixes, "--check", "--base-version", "live")
    assert "label of the model" not in said
    assert "does not have" not in said
    assert "nothing would be new: version 2 would stay" in out
    code, out, _ = command(name, fixes, "--check", "--base-version", "1", "--json")
    assert json.loads(out)["extension"]["base_version"] == 1
    assert client.model(name).latest_version == 2


@pytest.mark.slow
def test_a_dozen_corrections_do_not_take_the_place_of_a_model(
    command: Callable[..., Any], client: graft.Client, name: str
) -> None:
    rows = intents("train.csv")
    labels = sorted({label for _, label in rows})
    wrong = [(text, labels[labels.index(label) - 1]) for text, label in rows[:12]]
    command(name, [*wrong, *rows[12:]])
    before = client.evaluate(name, intents("test.csv")).accuracy
    _, out, _ = command(name, rows[:12])
    assert out.startswith(f"extends version 1: {len(rows)} examples + 0 new, 12 corrected by content")
    after = client.evaluate(name, intents("test.csv"))
    assert before is not None
    assert after.accuracy is not None
    assert (after.version, after.accuracy >= before) == (2, True)
    assert client.version(name).report.examples == len(rows)


@pytest.mark.slow
def test_replace_starts_anew(command: Callable[..., Any], client: graft.Client, name: str) -> None:
    command(name, few(20))
    code, out, said = command(name, few(6), "--replace")
    assert code == 0
    assert "extend" not in out + said
    assert client.version(name).report.examples == 6
    for base in ("none", "0"):
        _, out, _ = command(name, few(6), "--check", "--base-version", base)
        assert "extend" not in out


def test_rows_of_another_kind_name_the_way_out(command: Callable[..., Any], name: str) -> None:
    command(name, few())
    code, _, said = command(name, [("one", "1.5"), ("two", "2.5")], "--value", "hours", header="text,hours")
    assert code == 1
    assert "answers with one label an input (version 1)" in said
    assert "--replace" in said
    code, _, said = command(name, few(), "--task", "multi-label")
    assert (code, "--replace" in said) == (1, True)
    code, _, said = command(name, few(), "--backbone", "other")
    assert code == 1
    assert "is on the backbone" in said
    assert "--replace" in said
    code, _, said = command(name, few(), "--base-version", "7")
    assert (code, "VERSION_NOT_FOUND" in said) == (1, True)
    with pytest.raises(SystemExit):
        command(name, few(), "--base-version", "newest")


@pytest.mark.slow
def test_an_adaptation_that_is_resumed_goes_on_from_what_it_began_with(
    command: Callable[..., Any], client: graft.Client, name: str
) -> None:
    command(name, few(), "--adaptation-id", "a")
    code, out, said = command(name, few(), "--adaptation-id", "a")
    assert code == 0
    assert "extend" not in out + said  # it began when there was nothing to extend
    command(name, [("the key is lost", "key")] * 2, "--adaptation-id", "b")
    command(name, few(), "--replace")
    code, out, _ = command(name, [("the key is lost", "key")] * 2, "--adaptation-id", "b")
    assert code == 0
    assert out.startswith("extends version 1: 12 examples + 2 new")
    assert client.model(name).latest_version == 3


@pytest.mark.slow
def test_followed_lines_extend_too(
    client: graft.Client,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    client.adapt(name, few())
    rows = [{"text": few()[0][0], "label": "key"}, {"text": "the key is lost", "label": "key"}]
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with lines.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["adapt", name, "-", "--follow", "--server", client.target]) == 0
    out, said = capsys.readouterr()
    assert out.startswith("extends version 1: 12 examples + 1 new, 1 corrected by content")
    assert f"extends version 1 of {name}: 12 examples" in " ".join(said.split())


class Asked:
    """Answers a question as a person at a terminal does."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer
        self.question = ""

    def ask(self, question: str) -> str | None:
        self.question = question
        return self.answer


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y", True), ("yes", True), (None, True), ("", False), ("n", False)]
)
def test_a_person_is_asked_before_examples_are_left_out(
    client: graft.Client, answered: graft.Version, answer: str | None, goes_on: bool
) -> None:
    from graft.cli.adapting.extending import _ask  # noqa: PLC0415

    terminal = Asked(answer)
    if goes_on:
        _ask(answered, terminal)  # type: ignore[arg-type]
    else:
        with pytest.raises(graft.DataError, match="nothing was sent"):
            _ask(answered, terminal)  # type: ignore[arg-type]
    assert terminal.question.startswith("12 examples of version 1 will not be in the new version.")


@pytest.fixture(scope="module")
def answered(client: graft.Client) -> graft.Version:
    model = f"more/{uuid.uuid4().hex}"
    client.adapt(model, few())
    return client.version(model)


def test_the_task_of_what_is_extended_is_that_of_rows_that_do_not_tell(answered: graft.Version) -> None:
    ground = Ground(answered)
    assert ground.task == "single-label"
    ground.require_task("", "rows.csv")
    ground.require_task("single-label", "rows.csv")
    with pytest.raises(graft.DataError, match="--replace"):
        ground.require_task("regression", "rows.csv")


@pytest.mark.parametrize(
    "base",
    [
        {"base_alias": "live"},
        {"base_alias": "live", "match_content": True},
        {"base_version": 2, "match_content": True},
    ],
)
def test_a_server_that_does_not_know_how_to_extend_is_sent_no_example(base: dict[str, Any]) -> None:
    script = scripted.Scripted()
    with scripted.Server(script) as old, graft.Client(old.target) as client:
        with pytest.raises(graft.errors.UnimplementedError, match="older than this client") as caught:
            client.adapt("m", [(LOCK, "lock"), (BILL, "bill")], **base)
        assert caught.value.reason == "SERVER_TOO_OLD"
        assert script.stored == 0
        client.adapt("m", [(LOCK, "lock"), (BILL, "bill")], base_version=2)
        assert script.stored == 2
