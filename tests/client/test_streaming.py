"""A client whose stream goes on: versions by a policy, the interim head, lines that are followed, silent networks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.client.cutting_proxy import Cut, cutting_proxy

import graft


def new_name() -> str:
    return f"tests/{uuid.uuid4().hex}"


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.mark.parametrize("upstream", [True, False])
def test_a_connection_that_falls_silent_is_noticed_and_costs_no_example(
    server: Any, few: list[tuple[str, str]], upstream: bool
) -> None:
    cuts = [Cut(700, upstream, silent=True)]
    with (
        cutting_proxy(server.target, cuts) as proxy,
        graft.Client(proxy.target, keep_alive=1.0) as shaky,
    ):
        result = shaky.adapt(new_name(), few * 20)
        assert proxy.broken == 1
        assert result.report.examples == 20 * len(few)


def test_the_async_client_notices_it_too(server: Any, few: list[tuple[str, str]]) -> None:
    async def adapt(target: str) -> graft.AdaptResult:
        async with graft.AsyncClient(target, keep_alive=1.0) as shaky:
            return await shaky.adapt(new_name(), few * 20)

    with cutting_proxy(server.target, [Cut(700, upstream=True, silent=True)]) as proxy:
        assert asyncio.run(adapt(proxy.target)).report.examples == 20 * len(few)
        assert proxy.broken == 1


TEXTS = [f"{text} {n}" for n in range(100) for text in ("the lock is stuck", "my bill is wrong")]


def expected() -> list[str]:
    return ["lock", "bill"] * 100


@pytest.mark.parametrize("upstream", [True, False])
def test_bulk_predictions_go_on_where_connections_broke(server: Any, few_model: str, upstream: bool) -> None:
    cuts = [Cut(after, upstream) for after in (900, 1_500, 2_100)]
    with cutting_proxy(server.target, cuts) as proxy, graft.Client(proxy.target) as shaky:
        labels = [it.label for it in shaky.predict_stream(few_model, TEXTS, chunk_size=4)]
        assert proxy.broken == len(cuts)
    assert labels == expected()


def test_bulk_predictions_of_the_async_client_go_on_too(server: Any, few_model: str) -> None:
    async def ask(target: str) -> list[str | None]:
        async with graft.AsyncClient(target) as shaky:
            return [it.label async for it in shaky.predict_stream(few_model, TEXTS, chunk_size=4)]

    cuts = [Cut(900, True), Cut(1_500, False)]
    with cutting_proxy(server.target, cuts) as proxy:
        labels = asyncio.run(ask(proxy.target))
        assert proxy.broken == len(cuts)
    assert labels == expected()


def test_bulk_predictions_go_on_where_a_connection_fell_silent(server: Any, few_model: str) -> None:
    cuts = [Cut(1_500, False, silent=True)]
    with (
        cutting_proxy(server.target, cuts) as proxy,
        graft.Client(proxy.target, keep_alive=1.0) as shaky,
    ):
        labels = [it.label for it in shaky.predict_stream(few_model, TEXTS, chunk_size=4)]
        assert proxy.broken == 1
    assert labels == expected()


def test_a_bulk_prediction_that_is_refused_says_why(
    client: graft.Client, server: Any, few_model: str
) -> None:
    with pytest.raises(graft.NotFoundError) as refused:
        list(client.predict_stream("un/heard-of", TEXTS))
    assert refused.value.reason == "MODEL_NOT_FOUND"

    async def ask() -> None:
        async with graft.AsyncClient(server.target) as asking:
            async for _ in asking.predict_stream(few_model, TEXTS, version=99):
                pass

    with pytest.raises(graft.NotFoundError) as refused:
        asyncio.run(ask())
    assert refused.value.reason == "VERSION_NOT_FOUND"


def test_a_bulk_prediction_that_reaches_nobody_gives_up() -> None:
    with graft.Client("127.0.0.1:1", connect_timeout=0.5) as client, pytest.raises(graft.UnavailableError):
        list(client.predict_stream("m", TEXTS))


def test_each_version_of_a_policy_is_told(client: graft.Client, few: list[tuple[str, str]]) -> None:
    outcomes: list[graft.Outcome] = []
    published = threading.Event()

    def told(outcome: graft.Outcome) -> None:
        outcomes.append(outcome)
        published.set()

    def slowly() -> Iterator[tuple[str, str]]:
        yield from few[:6]
        assert published.wait(60)
        yield from few[6:9]

    result = client.adapt(new_name(), slowly(), publish_every=6, on_published=told)
    assert [(it.commit_id, it.version) for it in outcomes] == [("auto:1", 1), (result.commit_id, 2)]
    assert outcomes[0].report is not None
    assert outcomes[0].report.examples == 6
    assert result.report.examples == 9


def test_the_interim_head_answers_while_the_stream_is_open(server: Any, few: list[tuple[str, str]]) -> None:
    async def run() -> graft.Predictions:
        model, stored, over = new_name(), asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncIterator[tuple[str, str]]:
            for row in few:
                yield row
            await over.wait()

        def told(progress: graft.AdaptProgress) -> None:
            if progress.acknowledged == len(few):
                stored.set()

        async with graft.AsyncClient(server.target) as client:
            streaming = asyncio.create_task(
                client.adapt(model, endless(), adaptation_id="a", on_progress=told)
            )
            await stored.wait()
            predictions = await client.predict(model, ["the lock is broken"], adaptation_id="a")
            over.set()
            await streaming
            return predictions

    predictions = asyncio.run(run())
    assert (predictions.version, predictions.next_sequence) == (0, len(few))
    assert predictions[0].label == "lock"


def test_what_is_appended_follows_on_and_deletions_take_back(
    client: graft.Client, few: list[tuple[str, str]]
) -> None:
    model = new_name()
    rows = [graft.Example(text, label, id=str(n)) for n, (text, label) in enumerate(few)]
    first = client.adapt(model, rows, adaptation_id="a", close=False, append=True)
    second = client.adapt(
        model, [graft.Delete("0"), ("a new lock", "lock")], adaptation_id="a", close=False, append=True
    )
    assert (first.version, second.version) == (1, 2)
    assert second.report.examples == len(few)
    adaptation = client.adaptation(model, "a")
    assert adaptation.state == "open"
    assert adaptation.writers == {"default": len(few) + 2}


def test_a_check_stores_nothing_and_says_what_would_be_refused(
    client: graft.Client, few: list[tuple[str, str]]
) -> None:
    model = new_name()
    result = client.check(
        model, [*few, ("", "lock"), ("hello", "other")], labels=["lock", "bill"], closed_labels=True
    )
    assert result.examples == len(few) + 2
    assert [it.reason for it in result.rejected] == ["INPUT_EMPTY", "LABEL_UNKNOWN"]
    assert client.adaptations(model) == []


def command(server: Any, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "graft.cli", "adapt", *arguments, "--server", server.target, "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env=dict(os.environ),
    )


def lines(rows: list[tuple[str, str]], first: int = 0) -> str:
    return "".join(
        json.dumps({"id": str(n), "text": text, "label": label}) + "\n"
        for n, (text, label) in enumerate(rows, first)
    )


def test_followed_lines_are_committed_at_their_end_and_gone_on_with_later(
    server: Any, client: graft.Client, few: list[tuple[str, str]]
) -> None:
    model = new_name()
    follow = (model, "-", "--follow", "--adaptation-id", "a")
    out, err = command(server, *follow).communicate(lines(few) + "no json\n\udce9\n", timeout=60)
    found = json.loads(out)
    assert (found["version"], found["unread_count"]) == (1, 2)
    assert f"line {len(few) + 1}: not JSON" in err
    assert f"line {len(few) + 2}: byte 0xe9 is not UTF-8" in err
    out, _ = command(server, *follow).communicate('{"delete": 0}\n' + lines(few[:1], 50), timeout=60)
    result = json.loads(out)
    assert (result["version"], result["report"]["examples"]) == (2, len(few))
    assert client.adaptation(model, "a").state == "open"


def test_followed_lines_outlive_a_server_that_ends_and_comes_back(
    serve: Any, few: list[tuple[str, str]]
) -> None:
    server = serve()
    follow = command(server, new_name(), "-", "--follow", "--publish-every", str(len(few)))
    assert follow.stdin is not None
    assert follow.stderr is not None
    follow.stdin.write(lines(few))
    follow.stdin.flush()
    while "published version 1" not in follow.stderr.readline():
        pass
    server.kill()
    serve("--listen", server.target)
    out, err = follow.communicate(lines(few[:4], 50), timeout=60)
    assert follow.returncode == 0
    assert json.loads(out)["report"]["examples"] == len(few) + 4
    assert "may be missing" not in err  # the events of an adaptation that stays open have no end to wait for


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_followed_lines_with_a_commit(
    server: Any, client: graft.Client, few: list[tuple[str, str]], end: signal.Signals
) -> None:
    model = new_name()
    process = command(
        server, model, "-", "--follow", "--adaptation-id", "a", "--publish-every", str(len(few))
    )
    assert process.stdin is not None
    process.stdin.write(lines(few))
    process.stdin.flush()
    assert process.stderr is not None
    while "published version 1" not in process.stderr.readline():
        pass
    process.send_signal(end)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["version"] == 1  # there was nothing new to publish
    assert [it.version for it in client.adaptation(model, "a").publications] == [1, 1]


def test_the_command_check_names_the_lines(server: Any, tmp_path: Any) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\nhello,greeting\n ,greeting\n")
    out, err = command(server, new_name(), str(path), "--check").communicate(timeout=60)
    assert json.loads(out)["rejected_count"] == 1
    assert "line 3" in err
