"""The client against a real server: every method, both clients, the command line, and a bad network."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.client.cutting_proxy import Cut, cutting_proxy

import graft

INTENTS = Path(__file__).resolve().parents[2] / "examples" / "intents"
TRAIN, TEST = INTENTS / "train.csv", INTENTS / "test.csv"
SENTENCES = ["the lock does not open", "you charged me twice", "I forgot my password"]


def examples(path: Path = TRAIN) -> Iterator[graft.Example]:
    return graft.read_examples(path, input="text", label="intent")


def new_name() -> str:
    return f"client-tests/{uuid.uuid4().hex}"


def few(count: int = 24) -> list[tuple[str, str]]:
    return [
        (f"{'the lock is stuck' if n % 2 else 'my bill is wrong'} {n}", "lock" if n % 2 else "bill")
        for n in range(count)
    ]


def random_cuts(seed: int) -> list[Any]:
    """Six cuts while examples go up (30 kB for what `few(800)` gives), two while answers come down."""
    generator = random.Random(seed)  # noqa: S311
    up = [Cut(generator.randint(200, 12_000), True) for _ in range(6)]
    down = [Cut(generator.randint(200, 800), False) for _ in range(2)]
    return [*up, *down]


@pytest.fixture(scope="module")
def target(server: Any) -> str:
    return str(server.target)


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[graft.Client]:
    with graft.Client(target) as client:
        yield client


@pytest.fixture(scope="module")
def trained(client: graft.Client) -> graft.AdaptResult:
    return client.adapt(new_name(), examples(), seed=1)


# The blocking client.


def test_adapt_gives_a_version_with_its_report(trained: graft.AdaptResult) -> None:
    assert trained.version == 1
    assert (trained.report.examples, trained.report.classes) == (288, 12)
    assert 0.5 < trained.report.accuracy <= 1.0
    assert {entry.label for entry in trained.report.per_class} == {example.label for example in examples()}
    assert trained.rejected == ()


def test_adapt_tells_its_progress(client: graft.Client) -> None:
    seen: list[graft.AdaptProgress] = []
    client.adapt(new_name(), few(), on_progress=seen.append)
    assert seen[-1].stage == "published"
    assert seen[-1].acknowledged == 24
    assert [progress.acknowledged for progress in seen] == sorted(progress.acknowledged for progress in seen)
    assert [progress.elapsed_s for progress in seen] == sorted(progress.elapsed_s for progress in seen)
    training = [progress for progress in seen if progress.commit_id]
    fractions = [progress.fraction for progress in training]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    # What is not read in time coalesces to the newest.
    encoding = [progress for progress in training if progress.stage == "encoding"]
    assert {(it.total, it.unit) for it in encoding} <= {(24, "examples")}
    assert all(it.done <= it.total for it in training if it.total)


def test_an_error_of_the_progress_callback_reaches_the_caller(client: graft.Client) -> None:
    def broken(progress: graft.AdaptProgress) -> None:
        raise KeyError(progress.adaptation_id)

    with pytest.raises(KeyError):
        client.adapt(new_name(), few(), on_progress=broken)


def test_an_error_of_the_examples_reaches_the_caller_and_the_adaptation_goes_on_later(
    client: graft.Client,
) -> None:
    model, rows = new_name(), few()

    def interrupted() -> Iterator[tuple[str, str]]:
        yield from rows[:10]
        raise LookupError("the data base went away")

    with pytest.raises(LookupError, match="went away"):
        client.adapt(model, interrupted(), adaptation_id="a")
    result = client.adapt(model, rows, adaptation_id="a")
    assert (result.version, result.report.examples) == (1, len(rows))


def test_the_same_adaptation_again_gives_the_same_version(client: graft.Client) -> None:
    model = new_name()
    first = client.adapt(model, few(), adaptation_id="once")
    again = client.adapt(model, few(), adaptation_id="once")
    assert (first.version, again.version) == (1, 1)
    assert len(client.versions(model)) == 1


def test_bad_examples_are_refused_alone_and_known_by_their_sequence(client: graft.Client) -> None:
    rows = few()
    rows[5] = ("   ", "lock")
    rows[9] = ("fine", "x" * 10_000)
    result = client.adapt(new_name(), rows)
    assert [rejection.sequence for rejection in result.rejected] == [5, 9]
    assert result.rejected_count == 2
    assert result.report.examples == len(rows) - 2


def test_a_single_class_is_a_failed_precondition(client: graft.Client) -> None:
    with pytest.raises(graft.FailedPreconditionError) as raised:
        client.adapt(new_name(), [("a", "x"), ("b", "x")])
    assert raised.value.reason
    assert raised.value.domain == "graft"


def test_a_bad_model_name_is_an_invalid_argument_with_its_field(client: graft.Client) -> None:
    with pytest.raises(graft.InvalidArgumentError) as raised:
        client.adapt("a/../b", few())
    assert any("model" in violation.field for violation in raised.value.field_violations)


def test_predictions_come_in_order_with_calibrated_scores(
    client: graft.Client, trained: graft.AdaptResult
) -> None:
    predictions = client.predict(trained.model, SENTENCES, top_k=12)
    assert [prediction.label for prediction in predictions] == [
        "unlock_problem",
        "billing_dispute",
        "account_access",
    ]
    assert (predictions.model, predictions.version) == (trained.model, 1)
    for prediction in predictions:
        assert prediction.probability == max(score.probability for score in prediction.scores)
        assert math.fsum(score.probability for score in prediction.scores) == pytest.approx(1.0, abs=1e-4)
        assert prediction.error is None


def test_a_bad_input_fails_alone(client: graft.Client, trained: graft.AdaptResult) -> None:
    good, bad = client.predict(trained.model, ["the lock is stuck", "  "])
    assert good.label is not None
    assert isinstance(bad.error, graft.InvalidArgumentError)
    assert (bad.label, bad.probability, bad.scores) == (None, None, ())


def test_features_are_unit_norm(client: graft.Client, trained: graft.AdaptResult) -> None:
    (prediction,) = client.predict(trained.model, "where is my refund", include_features=True)
    assert math.hypot(*prediction.features) == pytest.approx(1.0, abs=1e-2)


def test_bulk_predictions_are_those_of_predict_in_order(
    client: graft.Client, trained: graft.AdaptResult
) -> None:
    texts = [f"{example.input} {number}" for number in range(4) for example in examples(TEST)]
    streamed = [
        prediction.label for prediction in client.predict_stream(trained.model, iter(texts), chunk_size=50)
    ]
    assert streamed == [prediction.label for prediction in client.predict(trained.model, texts)]


def test_bulk_prediction_reads_no_further_ahead_than_it_must(
    client: graft.Client, trained: graft.AdaptResult
) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(len(taken))
            yield "is this still going on"

    predictions = client.predict_stream(trained.model, endless(), chunk_size=2)
    assert next(predictions).label is not None
    assert len(taken) <= 2 * 10


def test_many_threads_share_one_client(client: graft.Client, trained: graft.AdaptResult) -> None:
    with ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda _: client.predict(trained.model, SENTENCES[0])[0].label, range(64)))
    assert set(labels) == {"unlock_problem"}


def test_evaluation_measures_the_held_out_file(client: graft.Client, trained: graft.AdaptResult) -> None:
    sent: list[int] = []
    result = client.evaluate(trained.model, examples(TEST), on_progress=sent.append)
    assert (result.version, result.examples, result.rejected_count) == (1, 96, 0)
    assert result.accuracy > 0.5
    assert sent[-1] == 96


def test_versions_are_promoted_rolled_back_and_deleted(client: graft.Client) -> None:
    model = new_name()
    client.adapt(model, few())
    second = client.adapt(model, few(30))
    assert second.version == 2
    assert [version.version for version in client.versions(model)] == [2, 1]
    assert client.predict(model, "x").version == 2
    assert client.promote(model, 1, expected_version=2).aliases["live"] == 1
    assert client.predict(model, "x").version == 1
    assert client.predict(model, "x", version=2).version == 2
    with pytest.raises(graft.AbortedError) as moved:
        client.promote(model, 2, expected_version=2)
    assert moved.value.reason == "ALIAS_MOVED"
    client.set_alias(model, "canary", 2)
    assert client.predict(model, "x", alias="canary").version == 2
    assert client.version(model, alias="canary").aliases == ("canary",)
    client.set_alias(model, "canary", 0)
    client.delete_version(model, 2)
    assert [version.version for version in client.versions(model)] == [1]
    client.delete_model(model)
    with pytest.raises(graft.NotFoundError):
        client.model(model)


def test_a_version_names_its_labels_and_report(client: graft.Client, trained: graft.AdaptResult) -> None:
    version = client.version(trained.model)
    assert (version.version, version.adaptation_id, version.aliases) == (1, trained.adaptation_id, ("live",))
    assert [label.name for label in version.labels] == [entry.label for entry in version.report.per_class]
    assert version.report == trained.report


def test_models_are_listed_by_prefix(client: graft.Client, trained: graft.AdaptResult) -> None:
    (model,) = client.models(trained.model)
    assert model == client.model(trained.model)
    assert (model.latest_version, model.aliases) == (1, {"live": 1})
    assert client.models("no-such-prefix") == []


def test_what_does_not_exist_is_not_found(client: graft.Client) -> None:
    for call in (
        lambda: client.predict("no-such-model", "x"),
        lambda: client.version("no-such-model"),
        lambda: client.evaluate("no-such-model", few(5000)),
        lambda: client.export("no-such-model", "build/none"),
        lambda: list(client.watch("no-such-model", "none")),
        lambda: client.adaptation("no-such-model", "none"),
    ):
        with pytest.raises(graft.NotFoundError) as raised:
            call()
        assert raised.value.domain == "graft"
    assert not Path("build/none").exists()


def test_an_export_is_checked_and_whole(
    client: graft.Client, trained: graft.AdaptResult, tmp_path: Path
) -> None:
    received: list[int] = []
    bundle = client.export(
        trained.model, tmp_path / "bundle", on_progress=lambda _, count: received.append(count)
    )
    assert bundle.onnx.stat().st_size > 1_000_000
    assert {"model.onnx", "labels.json", "tokenizer.json"} <= {path.name for path in bundle.files}
    labels = json.loads((bundle.directory / "labels.json").read_text())
    assert labels == [label.name for label in client.version(trained.model).labels]
    assert received[-1] == bundle.size == sum(path.stat().st_size for path in bundle.files)


def test_events_are_numbered_without_gaps_and_can_be_taken_up_again(
    client: graft.Client, trained: graft.AdaptResult
) -> None:
    events = [event for event in client.watch(trained.model, trained.adaptation_id) if event.number]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind for event in events]
    assert kinds.index("committed") < kinds.index("published")
    published = events[kinds.index("published")]
    assert (published.version, published.commit_id) == (1, trained.commit_id)
    later = [
        event.number
        for event in client.watch(trained.model, trained.adaptation_id, from_event=2)
        if event.number
    ]
    assert later == list(range(2, len(events) + 1))


def test_an_adaptation_knows_its_writers_and_publications(
    client: graft.Client, trained: graft.AdaptResult
) -> None:
    adaptation = client.adaptation(trained.model, trained.adaptation_id)
    assert (adaptation.state, adaptation.writers) == ("closed", {"default": 288})
    (publication,) = adaptation.publications
    assert (publication.state, publication.version, publication.error) == ("published", 1, None)
    assert client.adaptations(trained.model) == [adaptation]


def test_a_cancelled_adaptation_ends_its_call(client: graft.Client) -> None:
    model, started = new_name(), threading.Event()

    def held_back() -> Iterator[tuple[str, str]]:
        yield from few()
        assert started.wait(60)
        assert client.cancel(model, "stop").state == "cancelled"

    def watch_start(progress: graft.AdaptProgress) -> None:
        if progress.acknowledged:
            started.set()

    with pytest.raises(graft.GraftError) as raised:
        client.adapt(model, held_back(), adaptation_id="stop", on_progress=watch_start)
    assert not isinstance(raised.value, graft.UnavailableError)


def test_the_server_is_healthy_and_has_a_default_backbone(client: graft.Client) -> None:
    assert client.health() == "serving"
    assert client.health("graft.v1.PredictionService") == "serving"
    with pytest.raises(graft.NotFoundError):
        client.health("no.such.Service")
    (default,) = [backbone for backbone in client.backbones() if backbone.is_default]
    assert (default.modality, default.state, default.error) == ("text", "ready", "")
    assert default.memory_bytes > 0
    assert 0 < default.export_parity < 1e-4
    assert default.input_kinds == ("features", "text", "text_pair")


# The asyncio client.


def test_the_async_client_does_the_same(target: str, tmp_path: Path) -> None:
    async def rows() -> AsyncIterator[tuple[str, str]]:
        for row in few():
            yield row

    async def everything() -> None:
        async with graft.AsyncClient(target) as client:
            model = new_name()
            seen: list[str] = []
            result = await client.adapt(
                model, rows(), on_progress=lambda progress: seen.append(progress.stage)
            )
            assert (result.version, result.report.examples, seen[-1]) == (1, 24, "published")
            texts = [text for text, _ in few(300)]
            predictions = await client.predict(model, texts)
            streamed = [
                prediction.label async for prediction in client.predict_stream(model, texts, chunk_size=32)
            ]
            assert streamed == [prediction.label for prediction in predictions]
            measured = await client.evaluate(model, rows())
            assert (measured.examples, measured.trained_on_count) == (0, 24)
            await client.adapt(model, few(30))
            assert (await client.promote(model, 1)).aliases["live"] == 1
            assert [version.version for version in await client.versions(model)] == [2, 1]
            assert (await client.version(model)).version == 1
            assert [found.name for found in await client.models(model)] == [model]
            bundle = await client.export(model, tmp_path / "bundle")
            assert bundle.onnx.exists()
            events = [event async for event in client.watch(model, result.adaptation_id)]
            assert "published" in {event.kind for event in events}
            assert (await client.adaptation(model, result.adaptation_id)).state == "closed"
            assert len(await client.adaptations(model)) == 2
            assert await client.health() == "serving"
            await client.delete_version(model, 2)
            await client.delete_model(model)

    asyncio.run(everything())


def test_the_async_client_raises_the_same_errors(target: str) -> None:
    async def rows() -> AsyncIterator[tuple[str, str]]:
        yield ("a", "x")
        raise LookupError("the data base went away")

    async def everything() -> None:
        async with graft.AsyncClient(target) as client:
            with pytest.raises(graft.FailedPreconditionError):
                await client.adapt(new_name(), [("a", "x"), ("b", "x")])
            with pytest.raises(graft.InvalidArgumentError):
                await client.adapt("a/../b", few(5000))
            with pytest.raises(LookupError):
                await client.adapt(new_name(), rows())
            with pytest.raises(graft.NotFoundError):
                await client.evaluate("no-such-model", few(5000))
            with pytest.raises(ValueError, match="example 0"):
                await client.adapt(new_name(), [(b"bytes", "x")])

    asyncio.run(everything())


def test_cancelling_an_async_adaptation_leaves_it_to_be_resumed(target: str) -> None:
    async def everything() -> None:
        async with graft.AsyncClient(target) as client:
            model, stored, never = new_name(), asyncio.Event(), asyncio.Event()

            async def rows() -> AsyncIterator[tuple[str, str]]:
                for row in few(10):
                    yield row
                await never.wait()

            def watch(progress: graft.AdaptProgress) -> None:
                if progress.acknowledged == 10:
                    stored.set()

            task = asyncio.create_task(client.adapt(model, rows(), adaptation_id="a", on_progress=watch))
            await stored.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.adapt(model, few(), adaptation_id="a")).report.examples == 24

    asyncio.run(everything())


# A bad network.


@pytest.mark.parametrize("seed", range(2))
def test_a_connection_that_breaks_at_random_costs_no_example_and_doubles_none(
    client: graft.Client, target: str, seed: int
) -> None:
    rows = few(800)
    rows[100] = ("", "refused")
    with cutting_proxy(target, random_cuts(seed)) as proxy, graft.Client(proxy.target) as shaky:
        result = shaky.adapt(new_name(), rows)
        assert proxy.broken > 2
    assert result.report.examples == len(rows) - 1
    assert [rejection.sequence for rejection in result.rejected] == [100]
    assert client.adaptation(result.model, result.adaptation_id).writers == {"default": len(rows)}
    assert [version.version for version in client.versions(result.model)] == [1]


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_same_for_the_async_client(target: str, seed: int) -> None:
    rows = few(800)

    async def shaky_adapt(proxy_target: str) -> graft.AdaptResult:
        async with graft.AsyncClient(proxy_target) as shaky:
            return await shaky.adapt(new_name(), rows)

    with cutting_proxy(target, random_cuts(seed)) as proxy:
        result = asyncio.run(shaky_adapt(proxy.target))
        assert proxy.broken > 2
    assert (result.version, result.report.examples) == (1, len(rows))
    assert result.rejected == ()


@pytest.mark.parametrize("end", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_server_that_ends_in_the_middle_and_comes_back_costs_no_example(
    serve: Callable[..., Any], end: str
) -> None:
    server, rows = serve(), few(800)
    some_are_stored = threading.Event()

    def with_an_end_in_the_middle() -> Iterator[tuple[str, str]]:
        yield from rows[:500]
        some_are_stored.wait()
        getattr(server, end)()
        serve("--listen", server.target)
        yield from rows[500:]

    def note(progress: graft.AdaptProgress) -> None:
        if progress.acknowledged:
            some_are_stored.set()

    with graft.Client(server.target) as client:
        result = client.adapt(new_name(), with_an_end_in_the_middle(), on_progress=note)
        assert (result.version, result.report.examples, result.rejected_count) == (1, len(rows), 0)
        assert client.adaptation(result.model, result.adaptation_id).writers == {"default": len(rows)}


@pytest.mark.slow
def test_the_async_client_outlives_such_a_server_too(serve: Callable[..., Any]) -> None:
    server, rows = serve(), few(800)

    async def adapt() -> graft.AdaptResult:
        some_are_stored = asyncio.Event()

        async def with_an_end_in_the_middle() -> AsyncIterator[tuple[str, str]]:
            for row in rows[:500]:
                yield row
            await some_are_stored.wait()
            server.kill()
            await asyncio.to_thread(serve, "--listen", server.target)
            for row in rows[500:]:
                yield row

        def note(progress: graft.AdaptProgress) -> None:
            if progress.acknowledged:
                some_are_stored.set()

        async with graft.AsyncClient(server.target) as client:
            return await client.adapt(new_name(), with_an_end_in_the_middle(), on_progress=note)

    result = asyncio.run(adapt())
    assert (result.version, result.report.examples, result.rejected_count) == (1, len(rows), 0)


# The command line.


def graft_command(target: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "GRAFT_SERVER": target},
        check=False,
    )


def test_the_commands_do_the_whole_job(target: str, tmp_path: Path) -> None:
    model = new_name()

    def run(*arguments: str, stdin: str = "") -> str:
        ended = graft_command(target, *arguments, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    adapted = run("adapt", model, str(TRAIN), "--input", "text", "--label", "intent")
    assert "288 examples of 12 classes" in adapted
    assert "accuracy" in adapted
    label, probability, text = run("predict", model, "the lock does not open").rstrip("\n").split("\t")
    assert (label, text) == ("unlock_problem", "the lock does not open")
    assert 0.0 < float(probability) <= 1.0
    lines = run(
        "predict", model, "-", "--json", stdin="you charged me twice\nI forgot my password\n"
    ).splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["billing_dispute", "account_access"]
    assert "evaluated" in run("evaluate", model, str(TEST), "--label", "intent")
    assert model in run("models", "client-tests/")
    assert json.loads(run("versions", model, "--json"))["version"] == 1
    assert "macro-F1" in run("report", model, "--full")
    assert run("promote", model, "1") == f"{model}: live is version 1\n"
    exported = run("export", model, str(tmp_path / "bundle")).splitlines()
    assert str(tmp_path / "bundle" / "model.onnx") in exported
    adaptation = json.loads(run("report", model, "--json"))["adaptation_id"]
    assert "published version 1" in run("watch", model, adaptation)
    assert "(default)" in run("backbones")


def test_every_line_of_standard_input_has_a_line_of_its_own(target: str, trained: graft.AdaptResult) -> None:
    ended = graft_command(
        target, "predict", trained.model, "-", stdin="the lock is stuck\n\n我的卡在哪里\n   \nmy bill\n"
    )
    assert ended.returncode == 1
    cells = [line.split("\t") for line in ended.stdout.split("\n")[:-1]]
    assert [it[2] for it in cells] == ["the lock is stuck", "", "我的卡在哪里", "", "my bill"]
    assert {it[3] for it in (cells[1], cells[3])} == {
        "error: the text is empty: give a text with something in it."
    }
    assert cells[2][3].startswith("abstained: unlike the training data (novelty ")
    assert ended.stderr.startswith("error: 2 of 5 inputs could not be answered: the first because ")
    ended = graft_command(target, "predict", trained.model, "-", stdin="\n\n")
    assert (ended.returncode, len(ended.stdout.splitlines())) == (1, 2)
    assert ended.stderr.startswith("error: 2 of 2 inputs could not be answered: ")


def test_the_command_leaves_out_training_rows_and_names_lines_and_labels(
    target: str, trained: graft.AdaptResult, tmp_path: Path
) -> None:
    with TEST.open(encoding="utf-8", newline="") as file:
        unseen = list(csv.reader(file))[1:4]
    with TRAIN.open(encoding="utf-8", newline="") as file:
        seen = list(csv.reader(file))[1:3]
    rows = [
        unseen[0],
        seen[0],
        [unseen[1][0], unseen[1][1].upper()],
        seen[1],
        [unseen[2][0], "no such label"],
    ]

    def evaluate(rows: list[list[str]], *options: str) -> subprocess.CompletedProcess[str]:
        with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
        return graft_command(target, "evaluate", trained.model, str(tmp_path / "rows.csv"), *options)

    ended = evaluate(rows)
    assert ended.returncode == 0, ended.stderr
    said = " ".join(ended.stdout.split())
    assert "evaluated 3 examples" in said
    assert "left out 2 examples that the version was trained on, or copies of them: lines 3, 5" in said
    assert f"{unseen[1][1].upper()} 1 line 4 {unseen[1][1]} no such label 1 line 6" in said
    assert "2 examples with such labels count as wrong" in said
    found = json.loads(evaluate(rows, "--json").stdout)
    assert (found["trained_on_lines"], [it["lines"] for it in found["unknown_labels"]]) == (
        [3, 5],
        [[4], [6]],
    )
    ended = evaluate(seen)
    assert ended.returncode == 1
    assert "accuracy" not in ended.stdout
    assert "evaluated no example" in " ".join(ended.stdout.split())
    assert "no figure can be stated: the version was trained on all 2 examples" in ended.stderr
    found = json.loads(evaluate(seen, "--json").stdout)
    assert (found["examples"], found["accuracy"], found["log_loss"]) == (0, None, None)


def test_the_report_becomes_a_page(target: str, trained: graft.AdaptResult, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    ended = graft_command(target, "report", trained.model, "--html", str(path))
    assert (ended.returncode, ended.stdout) == (0, f"{path}\n"), ended.stderr
    text = path.read_text(encoding="utf-8")
    assert f"<dd>{trained.report.accuracy:.1%}</dd>" in text
    assert text.count("<svg viewBox") >= 4
    assert trained.report.feature_map
    assert trained.report.learning_curve is not None
    shown = graft_command(target, "report", trained.model).stdout
    assert "abstains" in shown
    assert f"with {2 * trained.report.examples:,} examples" in shown


def test_the_command_names_the_lines_of_refused_rows(target: str, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    rows = [f'"{text}",{label}' for text, label in few()]
    data.write_text("\n".join(["text,label", *rows[:3], '" \n ",lock', *rows[3:]]) + "\n")
    ended = graft_command(target, "adapt", new_name(), str(data))
    assert ended.returncode == 0, ended.stderr
    assert "1 example was refused" in ended.stderr
    assert "line 5: " in ended.stderr


def test_every_command_refuses_a_bad_row_alone_and_names_its_line(target: str, tmp_path: Path) -> None:
    model = new_name()
    rows = [f'"{text}",{label}' for text, label in few()]
    content = (
        "\n".join(["text,label", *rows[:3], "only a text", "caf\xe9,x", *rows[3:], '"never closed,x']) + "\n"
    )
    data = tmp_path / "data.csv"
    data.write_bytes(content.encode("latin-1"))
    refused = [
        "3 examples were refused",
        "line 5: 1 cells",
        "line 6: byte 0xe9",
        f"line {len(rows) + 4}: its quotes",
    ]
    checked = graft_command(target, "adapt", model, str(data), "--check")
    assert f"{len(rows)} of {len(rows) + 3} examples would be taken" in checked.stdout
    adapted = graft_command(target, "adapt", model, str(data), "--json")
    assert json.loads(adapted.stdout)["unread_count"] == 3
    evaluated = graft_command(target, "evaluate", model, str(data))
    for ended in (checked, adapted, evaluated):
        assert [it for it in refused if it not in ended.stderr] == [], ended.stderr


def test_errors_of_the_server_are_one_line_with_a_remedy(target: str) -> None:
    ended = graft_command(target, "predict", "no-such-model", "hello")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "'graft models' lists what there is" in ended.stderr


def test_an_interrupted_command_says_how_to_go_on_and_does(target: str) -> None:
    model = new_name()
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in few()]
    # Where tests run in the background of a shell, SIGINT is ignored, and the command would inherit that.
    heeding = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [
        *(sys.executable, "-c", f"{heeding}; from graft.cli import main; sys.exit(main())"),
        *("adapt", model, "-", "--adaptation-id", "mine", "--server", target),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.writelines(lines[:10])
        process.stdin.flush()
        assert process.stderr.readline().startswith(f"adaptation mine of {model}")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130
    assert "--adaptation-id mine" in said
    assert "Traceback" not in said
    ended = graft_command(
        target, "adapt", model, "-", "--adaptation-id", "mine", "--json", stdin="".join(lines)
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["report"]["examples"] == len(lines)
