"""What grows by what a client sends has a bound: beyond it the client is refused, or waits, and nobody else is."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft_server.adapting.intake.foreseen import EXAMPLE_BYTES
from graft_server.adapting.outbox import MOST_UNREAD
from graft_server.api import suggesting
from graft_server.api.exports import Exports
from graft_server.api.predictions import ANSWER_BYTES, MAX_TOP_K, STREAM_BYTES, STREAM_REQUESTS
from graft_server.app import Service
from graft_server.domain.adaptation import AdaptationSettings, StartRequest
from graft_server.domain.errors import InvalidError, OverloadError
from graft_server.domain.examples import Change, Example, Input, Kind
from graft_server.domain.paging import PageRequest
from graft_server.domain.prediction import PredictionRequest, Selector, StreamedRequest
from graft_server.domain.stream import (
    CommitMessage,
    Committed,
    ExamplesMessage,
    Published,
    SentChange,
    StartMessage,
)
from graft_server.domain.suggestion import SuggestionRequest
from graft_server.settings import Settings
from graft_server.sharing.room import Room
from graft_server.sharing.threads import Threads

MODEL = "tests/bounds"
FIRST = PageRequest()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


async def stream(*items: Any) -> AsyncIterator[Any]:
    for it in items:
        yield it


@pytest.fixture(scope="module")
def service(
    runner: asyncio.Runner, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory, few: Any
) -> Iterator[Service]:
    """One with a model of two labels, whose adaptation is open."""
    settings = Settings(
        store=str(tmp_path_factory.mktemp("bounds") / "store"), cache=str(encoder_cache), measure_seconds=0
    )

    async def made() -> Service:
        service = Service(settings)
        await service.start()
        changes = [SentChange(Change(Example("", Input(text), label)), text.encode()) for text, label in few]
        call = stream(start(), ExamplesMessage(0, changes), CommitMessage("first"))
        async with aclosing(service.adaptations.adapt(call)) as answers:
            assert any([isinstance(it, Published) async for it in answers])
        return service

    service = runner.run(made())
    yield service
    runner.run(service.drain())
    runner.run(service.close())


def start() -> StartMessage:
    return StartMessage(StartRequest(MODEL, "a", "", AdaptationSettings("minilm")), False)


@pytest.fixture
def run(runner: asyncio.Runner) -> Callable[[Awaitable[Any]], Any]:
    async def within(work: Awaitable[Any]) -> Any:
        async with asyncio.timeout(60):
            return await work

    return lambda work: runner.run(within(work))


# ------------------------------------------------------------------------------------------- predictions


def features(count: int) -> list[Input]:
    rows = np.random.default_rng(0).standard_normal((count, 384)).astype("<f4")
    return [Input(kind=Kind.FEATURES, data=it.tobytes()) for it in rows]


def test_an_answer_whose_size_is_known_is_refused_before_anything_is_computed(service, run):
    request = PredictionRequest(MODEL, features(10_000), top_k=MAX_TOP_K)
    with pytest.raises(InvalidError) as raised:
        run(service.predictions.predict(request, max_bytes=100_000))
    assert raised.value.reason == "RESPONSE_TOO_LARGE"
    assert "at least" in raised.value.message
    found = run(service.predictions.predict(PredictionRequest(MODEL, features(1), top_k=2**31 - 1)))
    assert len(found.results[0].answer.scores) == 2


def test_ten_thousand_rows_of_features_leave_others_their_turns(service, run):
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    async def scenario() -> None:
        counting = asyncio.create_task(count())
        request = PredictionRequest(MODEL, features(10_000), top_k=2)
        found = await service.predictions.predict(request)
        counting.cancel()
        assert len(found.results) == 10_000

    run(scenario())
    assert len(turns) > 3 * 10_000 / 256, "checked, prepared and answered in slices"


def test_a_stream_whose_answers_are_large_is_read_from_as_they_are_taken(service, run):
    taken, ahead = 0, 0

    async def requests() -> AsyncIterator[StreamedRequest]:
        nonlocal ahead
        for number in range(STREAM_REQUESTS):
            ahead = max(ahead, number - taken)
            yield StreamedRequest(str(number), PredictionRequest(MODEL, features(20), top_k=MAX_TOP_K))

    async def scenario() -> None:
        nonlocal taken
        async with aclosing(service.predictions.predict_stream(requests())) as answers:
            async for answer in answers:
                assert len(answer.answer.results) == 20
                taken += 1

    run(scenario())
    assert taken == STREAM_REQUESTS
    assert 1 < ahead <= STREAM_BYTES // ANSWER_BYTES + 1


# ------------------------------------------------------------------------------------------- evaluations


def test_an_evaluation_that_takes_more_memory_than_one_may_is_refused(service, run):
    models = dataclasses.replace(service.models, evaluations=Room(100_000, 50_000))
    batch = [Example("", Input(f"text {number}"), f"label {number}") for number in range(60)]
    with pytest.raises(InvalidError) as raised:
        run(models.evaluate_model(MODEL, Selector(), stream(batch)))
    assert (raised.value.reason, raised.value.field) == ("EVALUATION_TOO_LARGE", "examples")
    assert models.evaluations.held == 0
    assert run(models.evaluate_model(MODEL, Selector(), stream(batch[:10]))).measured.examples == 10
    assert models.evaluations.held == 0


def test_evaluations_that_together_take_more_than_all_may_are_refused_one_by_one(service, run):
    models = dataclasses.replace(service.models, evaluations=Room(80_000))
    batch = [Example("", Input(f"text {number}"), f"label {number}") for number in range(20)]
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[Any]:
        yield batch[:10]
        await go_on.wait()

    async def scenario() -> None:
        first = asyncio.create_task(models.evaluate_model(MODEL, Selector(), slow()))
        while not models.evaluations.held:  # noqa: ASYNC110 -- nothing tells it
            await asyncio.sleep(0)
        with pytest.raises(OverloadError) as raised:
            await models.evaluate_model(MODEL, Selector(), stream(batch))
        assert raised.value.reason == "TOO_MANY_EVALUATIONS"
        assert raised.value.retry_after_s > 0
        go_on.set()
        assert (await first).measured.examples == 10

    run(scenario())


# ------------------------------------------------------------------------------------------- suggestions


def candidates(count: int) -> list[Example]:
    return [Example(str(number), Input(f"a text number {number}")) for number in range(count)]


def test_candidates_that_take_more_memory_than_one_call_may_are_refused(service, run):
    models = dataclasses.replace(service.models, suggesting=Room(100_000, 50_000))
    with pytest.raises(InvalidError) as raised:
        run(models.suggest_examples(MODEL, Selector(), SuggestionRequest(1), stream(candidates(60))))
    assert (raised.value.reason, raised.value.field) == ("SUGGESTION_TOO_LARGE", "examples")
    assert models.suggesting.held == 0
    found = run(models.suggest_examples(MODEL, Selector(), SuggestionRequest(1), stream(candidates(9))))
    assert (found.candidates, len(found.suggestions)) == (9, 1)
    assert models.suggesting.held == 0


def test_calls_that_together_take_more_than_all_may_are_refused_one_by_one(service, run):
    models = dataclasses.replace(service.models, suggesting=Room(20_000))
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[Any]:
        yield candidates(10)
        await go_on.wait()

    async def scenario() -> None:
        request = SuggestionRequest(1)
        first = asyncio.create_task(models.suggest_examples(MODEL, Selector(), request, slow()))
        while not models.suggesting.held:  # noqa: ASYNC110 -- nothing tells it
            await asyncio.sleep(0)
        with pytest.raises(OverloadError) as raised:
            await models.suggest_examples(MODEL, Selector(), request, stream(candidates(15)))
        assert raised.value.reason == "TOO_MANY_SUGGESTIONS"
        assert raised.value.retry_after_s > 0
        go_on.set()
        assert (await first).candidates == 10

    run(scenario())


def test_more_candidates_than_a_call_may_have_are_refused(service, run, monkeypatch):
    monkeypatch.setattr(suggesting, "MAX_CANDIDATES", 15)
    batches = stream(candidates(10), candidates(10))
    with pytest.raises(InvalidError) as raised:
        run(service.models.suggest_examples(MODEL, Selector(), SuggestionRequest(1), batches))
    assert (raised.value.reason, raised.value.field) == ("TOO_MANY_CANDIDATES", "examples")


def test_a_caller_who_leaves_while_candidates_are_ranked_gives_back_the_room(service, run):
    threads = Threads("ranking", 1)
    models = dataclasses.replace(service.models, learning=threads)
    busy = threading.Event()

    async def sent() -> AsyncIterator[Any]:
        yield candidates(10)
        threads.executor.submit(busy.wait)  # the ranking waits behind it

    async def scenario() -> None:
        work = asyncio.create_task(models.suggest_examples(MODEL, Selector(), SuggestionRequest(1), sent()))
        while not models.suggesting.held:  # noqa: ASYNC110 -- nothing tells it
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert models.suggesting.held == 0
        busy.set()
        found = await models.suggest_examples(MODEL, Selector(), SuggestionRequest(1), stream(candidates(3)))
        assert found.candidates == 3

    run(scenario())
    threads.close()


# ------------------------------------------------------------------------------------------- checks


def test_a_check_beside_a_base_holds_no_more_examples_than_one_may(service, run, monkeypatch):
    adaptations = service.adaptations._adaptations
    monkeypatch.setattr(adaptations, "checks", Room(1_000 * EXAMPLE_BYTES, 100 * EXAMPLE_BYTES))
    settings = AdaptationSettings("", base_alias="live")
    start = StartMessage(StartRequest(MODEL, "check", "", settings), validate_only=True)

    def changes(count: int) -> ExamplesMessage:
        some = [
            SentChange(Change(Example("", Input(f"new {it}"), "lock")), b"%d" % it) for it in range(count)
        ]
        return ExamplesMessage(0, some)

    async def answers(count: int) -> list[Any]:
        async with aclosing(
            service.adaptations.adapt(stream(start, changes(count), CommitMessage()))
        ) as told:
            return [it async for it in told]

    with pytest.raises(InvalidError) as raised:
        run(answers(101))
    assert raised.value.reason == "CHECK_TOO_LARGE"
    assert adaptations.checks.held == 0
    assert run(answers(10))[-1].extension.added == 10
    assert adaptations.checks.held == 0
    adaptations.checks.held = adaptations.checks.capacity  # as other checks would
    with pytest.raises(OverloadError) as full:
        run(answers(10))
    assert full.value.reason == "TOO_MANY_CHECKS"
    assert full.value.retry_after_s > 0


# ------------------------------------------------------------------------------------------- exports


def test_no_more_exports_than_may_be_at_once(run):
    async def scenario() -> None:
        exports = Exports(most=2)
        async with exports.place(), exports.place():
            with pytest.raises(OverloadError) as raised:
                async with exports.place():
                    pass
            assert (raised.value.reason, raised.value.retry_after_s > 0) == ("TOO_MANY_EXPORTS", True)
        async with exports.place(), exports.place():
            pass

    run(scenario())


def test_an_export_that_nobody_reads_gives_way_and_one_that_is_composed_does_not(run):
    async def scenario() -> None:
        now = [0.0]
        exports = Exports(most=2, stalled_s=60, clock=lambda: now[0])
        ended: list[str] = []

        async def export(name: str, *, sends: bool) -> None:
            try:
                async with exports.place() as one:
                    if sends:
                        one.sent()
                    await asyncio.Event().wait()
            finally:
                ended.append(name)

        tasks = [asyncio.create_task(export(name, sends=name == "unread")) for name in ("composed", "unread")]
        await asyncio.sleep(0)
        now[0] = 59.0
        with pytest.raises(OverloadError):
            async with exports.place():
                pass
        now[0] = 61.0
        async with exports.place():
            await asyncio.sleep(0)
            assert ended == ["unread"]
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario())


# ------------------------------------------------------------------------------------------- adaptations


def test_a_finished_commit_repeated_hundreds_of_times_is_answered_as_it_is_read(service, run):
    repeats = 5 * MOST_UNREAD

    async def scenario() -> None:
        call = stream(start(), *[CommitMessage("first")] * repeats)
        async with aclosing(service.adaptations.adapt(call)) as answers:
            found = [it async for it in answers if isinstance(it, Committed | Published)]
        assert len(found) == 2 * repeats

    run(scenario())


def test_names_that_do_not_exist_are_not_remembered(service, run):
    async def scenario() -> None:
        beginnings = service._adaptations._beginnings
        for number in range(20):
            found = service.adaptations.list_adaptations(f"tests/unknown-{number}", FIRST)
            assert [it async for it in found] == []
        assert [
            it.value.adaptation_id async for it in service.adaptations.list_adaptations(MODEL, FIRST)
        ] == ["a"]
        assert len(beginnings) == 1

    run(scenario())
