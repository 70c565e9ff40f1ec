"""Every use case of the API, asked without a server: no port, no gRPC, one service for all tests."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from graft_server.api.adaptations import AdaptationApi
from graft_server.api.models import ModelApi
from graft_server.api.predictions import PredictionApi
from graft_server.app import STORE_THREADS, Service
from graft_server.domain.adaptation import (
    AdaptationSettings,
    AdaptationState,
    AdaptationView,
    PublicationState,
    StartRequest,
)
from graft_server.domain.backbone import BackboneState
from graft_server.domain.errors import (
    ConflictError,
    DeadlineError,
    DomainError,
    InvalidError,
    MissingError,
    StateError,
)
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.paging import Listed, PageRequest
from graft_server.domain.prediction import Prediction, PredictionRequest, Selector, StreamedRequest
from graft_server.domain.stream import (
    Accepted,
    Activity,
    CommitMessage,
    Committed,
    EmptyMessage,
    ExamplesMessage,
    Happening,
    Message,
    Progress,
    Published,
    Rejections,
    SentChange,
    Started,
    StartMessage,
    WriterMessage,
)
from graft_server.domain.suggestion import SuggestionRequest
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.settings import Settings
from graft_server.store.objects import objects as objects_module

Rows = Sequence[tuple[str, str]]
FIRST = PageRequest()


@dataclass
class Caller:
    """A service in this process, and short ways to what most tests need."""

    service: Service
    rows: Rows
    _names: Iterator[int]

    def name(self) -> str:
        """The name of a model that no other test has."""
        return f"tests/m{next(self._names)}"

    async def adapt(
        self, model: str, *messages: WriterMessage, validate_only: bool = False, **start: Any
    ) -> list[Message]:
        """A whole call of Adapt: what it answers until it ends."""
        settings = AdaptationSettings(start.pop("backbone", ""), **start.pop("settings", {}))
        request = StartRequest(model, start.pop("adaptation_id", "a"), start.pop("writer_id", ""), settings)
        return await self.call(StartMessage(request, validate_only), *messages)

    async def call(self, *messages: WriterMessage) -> list[Message]:
        async with aclosing(self.service.adaptations.adapt(stream(*messages))) as answers:
            return [it async for it in answers]

    async def publish(self, model: str, adaptation_id: str = "a", rows: Rows = ()) -> int:
        """Publishes a version, and gives its number."""
        answers = await self.adapt(
            model, examples(rows or self.rows), CommitMessage(close=True), adaptation_id=adaptation_id
        )
        (published,) = [it for it in answers if isinstance(it, Published)]
        return published.version

    async def label(self, model: str, text: str, **selector: Any) -> tuple[int, str]:
        """Which version answers, and with which label."""
        found = await self.service.predictions.predict(
            PredictionRequest(model, [Input(text)], Selector(**selector))
        )
        return found.version, best(found.results[0])


async def stream(*items: Any) -> AsyncIterator[Any]:
    for it in items:
        yield it


def examples(rows: Rows, first: int = 0) -> ExamplesMessage:
    changes = [
        SentChange(Change(Example("", Input(text), label)), f"{text}\0{label}".encode())
        for text, label in rows
    ]
    return ExamplesMessage(first, changes)


def best(prediction: Prediction | DomainError) -> str:
    assert isinstance(prediction, Prediction)
    assert isinstance(prediction.answer, SingleLabelAnswer)
    return prediction.answer.scores[0][0]


async def values(entries: AsyncIterator[Listed[Any]]) -> list[Any]:
    return [it.value async for it in entries]


async def one_page(entries: AsyncIterator[Listed[Any]]) -> tuple[list[Any], str]:
    """A page's entries, and the token of the next one."""
    listed = [it async for it in entries]
    return [it.value for it in listed], listed[-1].next_token if listed else ""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


@pytest.fixture(scope="module")
def caller(
    runner: asyncio.Runner, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory, few: Rows
) -> Iterator[Caller]:
    settings = Settings(
        store=str(tmp_path_factory.mktemp("api") / "store"),
        cache=str(encoder_cache),
        erasure_grace_seconds=0.0,
        measure_seconds=0,
    )

    async def made() -> Service:
        service = Service(settings)
        await service.start()
        return service

    service = runner.run(made())
    yield Caller(service, few, count())
    runner.run(service.drain())
    runner.run(service.close())


Test = Callable[[Caller], Awaitable[None]]
USE_CASES: dict[Callable[..., Any], Test] = {}


def asks(*use_cases: Callable[..., Any]) -> Callable[[Test], Test]:
    """Marks what asks a use case for something and looks at the answer."""

    def add(test: Test) -> Test:
        USE_CASES.update(dict.fromkeys(use_cases, test))
        return test

    return add


def test_every_use_case_is_asked_here():
    found = {
        function
        for api in (AdaptationApi, PredictionApi, ModelApi)
        for name, function in inspect.getmembers(api, inspect.isfunction)
        if not name.startswith("_")
    }
    assert found == USE_CASES.keys()


# ------------------------------------------------------------------------------------------- adaptations


@asks(AdaptationApi.adapt)
async def _adapting_answers_message_by_message(caller: Caller) -> None:
    model = caller.name()
    bad = SentChange(Change(Example("", Input(" "), "lock")), b"bad")
    unread = SentChange(InvalidError("No input.", reason="INPUT_MISSING", field="upsert.input"), b"unread")
    more = ExamplesMessage(len(caller.rows), [bad, unread])
    started, *others = await caller.adapt(model, examples(caller.rows), more, CommitMessage("c", close=True))
    assert started == Started("a", "default", "minilm", 0)
    acknowledged = [it for it in others if isinstance(it, Accepted)]
    assert acknowledged[-1].next_sequence == len(caller.rows) + 2
    rejected = [it for message in acknowledged for it in message.rejected]
    assert [(it.sequence, it.reason, it.field) for it in rejected] == [
        (len(caller.rows), "INPUT_EMPTY", "upsert.input.text"),
        (len(caller.rows) + 1, "INPUT_MISSING", "upsert.input"),
    ]
    assert Committed("c", len(caller.rows) + 2) in others
    published = others[-1]
    assert isinstance(published, Published)
    assert (published.model, published.version, published.commit_id) == (model, 1, "c")
    assert published.report
    assert published.report.examples == len(caller.rows)


@asks(AdaptationApi.get_adaptation)
async def _an_adaptation_says_how_it_stands(caller: Caller) -> None:
    model = caller.name()
    await caller.publish(model)
    found = await caller.service.adaptations.get_adaptation(model, "a")
    assert (found.state, found.backbone) == (AdaptationState.CLOSED, "minilm")
    assert found.writers == {"default": len(caller.rows)}
    (publication,) = found.publications
    assert (publication.state, publication.version) == (PublicationState.PUBLISHED, 1)
    with pytest.raises(MissingError) as raised:
        await caller.service.adaptations.get_adaptation(model, "b")
    assert raised.value.reason == "ADAPTATION_NOT_FOUND"


@asks(AdaptationApi.list_adaptations)
async def _an_adaptation_that_begins_between_two_pages_does_not_shift_them(caller: Caller) -> None:
    api, model = caller.service.adaptations, caller.name()
    for adaptation_id in ("first", "second", "third"):
        await caller.adapt(model, adaptation_id=adaptation_id)
    newest, token = await one_page(api.list_adaptations(model, PageRequest(2)))
    await caller.adapt(model, adaptation_id="late")
    rest, end = await one_page(api.list_adaptations(model, PageRequest(2, token)))
    assert [it.adaptation_id for it in (*newest, *rest)] == ["third", "second", "first"]
    assert end == ""
    assert all(isinstance(it, AdaptationView) for it in (*newest, *rest))


@asks(AdaptationApi.watch_adaptation)
async def _a_watcher_sees_the_past_and_then_the_end(caller: Caller) -> None:
    model = caller.name()
    bad = SentChange(Change(Example("", Input(""), "lock")), b"bad")
    await caller.adapt(
        model, ExamplesMessage(0, [bad]), examples(caller.rows, 1), CommitMessage("c", close=True)
    )
    async with aclosing(caller.service.adaptations.watch_adaptation(model, "a")) as watched:
        seen = [it async for it in watched]
    happenings = [it for it in seen if isinstance(it, Happening)]
    assert [it.number for it in happenings] == [1, 2, 3, 4]
    by_kind = {type(it.what): it.what for it in happenings}
    assert by_kind[AdaptationState] is AdaptationState.CLOSED
    assert by_kind[Committed] == Committed("c", len(caller.rows) + 1)
    rejections, published = by_kind[Rejections], by_kind[Published]
    assert isinstance(rejections, Rejections)
    assert [it.sequence for it in rejections.rejected] == [0]
    assert isinstance(published, Published)
    assert published.version == 1
    async with aclosing(caller.service.adaptations.watch_adaptation(model, "a", from_event=4)) as watched:
        assert [it.number async for it in watched if isinstance(it, Happening)] == [4]

    # Of one that is open nothing may happen for long.
    await caller.adapt(model, examples(caller.rows), adaptation_id="open")
    watch = caller.service.adaptations.watch_adaptation(model, "open", keep_alive_s=0.001)
    async with aclosing(watch) as watched:
        assert await anext(watched) == Progress()


@asks(AdaptationApi.cancel_adaptation)
async def _a_cancelled_adaptation_takes_no_more(caller: Caller) -> None:
    model = caller.name()
    await caller.adapt(model, examples(caller.rows))
    cancelled = await caller.service.adaptations.cancel_adaptation(model, "a")
    assert cancelled.changed
    assert cancelled.adaptation.state is AdaptationState.CANCELLED
    again = await caller.service.adaptations.cancel_adaptation(model, "a")
    assert not again.changed
    with pytest.raises(StateError) as raised:
        await caller.adapt(model, examples(caller.rows))
    assert raised.value.reason == "ADAPTATION_CANCELLED"


# ------------------------------------------------------------------------------------------- predictions


@asks(PredictionApi.predict)
async def _versions_and_interim_heads_answer(caller: Caller) -> None:
    api, model = caller.service.predictions, caller.name()
    await caller.publish(model)
    texts = [Input("the lock is stuck"), Input(" "), Input("my bill is wrong")]
    found = await api.predict(PredictionRequest(model, texts, include_features=True))
    lock, blank, bill = found.results
    assert (found.model, found.version, found.adaptation_id) == (model, 1, "")
    assert (best(lock), best(bill)) == ("lock", "bill")
    assert isinstance(blank, InvalidError)
    assert blank.field == "inputs[1].text"
    assert isinstance(lock, Prediction)
    assert lock.features is not None
    assert lock.features.shape == (384,)

    # An open adaptation answers with what it has learned, a while after it was told.
    await caller.adapt(model, examples(caller.rows), adaptation_id="open")
    request = PredictionRequest(model, texts[:1], Selector(adaptation_id="open"))
    learned = -1
    while learned < len(caller.rows):
        with suppress(StateError):  # it has nothing to answer with yet
            interim = await api.predict(request)
            learned = interim.next_sequence
    assert (interim.version, interim.adaptation_id, best(interim.results[0])) == (0, "open", "lock")


@asks(PredictionApi.predict_stream)
async def _each_request_of_a_stream_gets_its_own_answer(caller: Caller) -> None:
    model = caller.name()
    await caller.publish(model)
    request = PredictionRequest(model, [Input("the lock is stuck")])
    unread = InvalidError("It cannot be parsed.", reason="REQUEST_MALFORMED")
    requests = stream(
        StreamedRequest("good", request),
        StreamedRequest("none", PredictionRequest(model, [])),
        StreamedRequest("absent", PredictionRequest(f"{model}/x", [Input("x")])),
        StreamedRequest("unread", unread),
    )
    async with aclosing(caller.service.predictions.predict_stream(requests)) as answers:
        found = {it.request_id: it.answer async for it in answers}
    good = found.pop("good")
    assert not isinstance(good, DomainError)
    assert best(good.results[0]) == "lock"
    reasons = {name: it.reason for name, it in found.items() if isinstance(it, DomainError)}
    assert reasons == {"none": "INPUTS_EMPTY", "absent": "MODEL_NOT_FOUND", "unread": "REQUEST_MALFORMED"}

    # Who asks for it is told that the server is at work.
    long = PredictionRequest(model, [Input(f"the lock of door {number} is stuck") for number in range(300)])
    requests = stream(StreamedRequest("long", long, keep_alive_s=0.0001))
    async with aclosing(caller.service.predictions.predict_stream(requests)) as answers:
        assert await anext(answers) == Activity()
        assert [it.request_id async for it in answers if not isinstance(it, Activity)] == ["long"]


# ------------------------------------------------------------------------------------------------ models


@asks(ModelApi.list_models, ModelApi.delete_model)
async def _a_model_that_is_deleted_between_two_pages_hides_no_other(caller: Caller) -> None:
    api, prefix = caller.service.models, caller.name()
    for letter in "abc":
        await caller.publish(f"{prefix}/{letter}")
    first, token = await one_page(api.list_models(prefix, PageRequest(1)))
    await api.delete_model(f"{prefix}/a")
    rest, end = await one_page(api.list_models(prefix, PageRequest(2, token)))
    assert [it.name for it in (*first, *rest)] == [f"{prefix}/{letter}" for letter in "abc"]
    assert end == ""
    assert [it.name for it in await values(api.list_models(prefix, FIRST))] == [f"{prefix}/b", f"{prefix}/c"]


@asks(ModelApi.list_versions)
async def _a_version_that_is_published_between_two_pages_has_no_other_listed_twice(caller: Caller) -> None:
    api, model = caller.service.models, caller.name()
    for adaptation_id in "ab":
        await caller.publish(model, adaptation_id)
    newest, token = await one_page(api.list_versions(model, PageRequest(1)))
    await caller.publish(model, "c")
    rest, end = await one_page(api.list_versions(model, PageRequest(1, token)))
    assert [it.version.number for it in (*newest, *rest)] == [2, 1]
    assert end == ""
    assert newest[0].aliases == ("live",)
    assert newest[0].version.summary["examples"] == len(caller.rows)


@asks(ModelApi.get_model, ModelApi.get_version, ModelApi.set_alias, ModelApi.delete_version)
async def _versions_are_described_promoted_and_deleted(caller: Caller) -> None:
    api, model = caller.service.models, caller.name()
    for adaptation_id in "ab":
        await caller.publish(model, adaptation_id)
    known = await api.get_model(model)
    assert (known.name, known.latest_version, known.aliases) == (model, 2, {"live": 2})
    found = await api.get_version(model, Selector())
    assert (found.version.number, found.aliases) == (2, ("live",))
    assert [it.name for it in found.labels] == ["bill", "lock"]
    assert found.report
    assert found.report.per_class

    with pytest.raises(ConflictError) as moved:
        await api.set_alias(model, "live", 1, expected=1)
    assert moved.value.reason == "ALIAS_MOVED"
    with pytest.raises(StateError) as used:
        await api.delete_version(model, 2)
    assert used.value.reason == "VERSION_IN_USE"
    assert (await api.set_alias(model, "live", 1, expected=2)).aliases == {"live": 1}
    assert (await caller.label(model, "the lock is stuck"))[0] == 1
    await api.delete_version(model, 2)
    assert list((await api.get_model(model)).versions) == [1]


@asks(ModelApi.update_model)
async def _a_model_keeps_metadata(caller: Caller) -> None:
    api, model = caller.service.models, caller.name()
    await caller.publish(model)
    assert (await api.update_model(model, {"owner": "ann"}, ["none"])).metadata == {"owner": "ann"}
    assert (await api.get_model(model)).metadata == {"owner": "ann"}
    with pytest.raises(InvalidError) as raised:
        await api.update_model(model, {}, [])
    assert raised.value.reason == "METADATA_UNNAMED"


@asks(ModelApi.list_examples, ModelApi.delete_examples)
async def _examples_are_listed_in_pages_and_erased(caller: Caller) -> None:
    api, model = caller.service.models, caller.name()
    await caller.publish(model)
    everything: list[Any] = []
    token = ""
    while True:
        some, token = await one_page(api.list_examples(model, PageRequest(5, token)))
        everything += some
        if not token:
            break
    assert [it.sequence for it in everything] == list(range(len(caller.rows)))
    assert [(it.example.input.text, it.example.label) for it in everything] == list(caller.rows)
    erasure = await api.delete_examples(model, [everything[0].example.id])
    assert (erasure.examples, erasure.affected, erasure.deleted) == (1, (1,), ())
    left = await values(api.list_examples(model, FIRST))
    assert [it.sequence for it in left] == list(range(1, len(caller.rows)))
    with pytest.raises(InvalidError) as unnamed:
        await api.delete_examples(model, [])
    assert unnamed.value.reason == "EXAMPLES_UNNAMED"


@asks(ModelApi.export_model)
async def _a_bundle_comes_file_by_file(caller: Caller) -> None:
    model = caller.name()
    await caller.publish(model)
    files: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    export = caller.service.models.export_model(model, Selector(version=1), keep_alive_s=0.1)
    async with aclosing(export) as chunks:
        assert await anext(chunks) == Activity("composing the bundle")  # which takes longer
        async for it in chunks:
            if isinstance(it, Activity):
                continue
            assert (it.version, it.offset) == (1, len(files.get(it.path, b"")))
            files[it.path] = files.get(it.path, b"") + it.chunk
            digests[it.path] = it.sha256
    assert {"model.onnx", "labels.json"} <= files.keys()
    assert {path: hashlib.sha256(data).hexdigest() for path, data in files.items()} == digests


@asks(ModelApi.evaluate_model)
async def _an_evaluation_names_bad_examples_by_their_place_and_their_field(caller: Caller) -> None:
    model = caller.name()
    await caller.publish(model)
    good = [Example("", Input(f"{text}0"), label) for text, label in caller.rows]
    unread = InvalidError("No input.", reason="INPUT_MISSING", field="examples[2].input")
    bad = [Example("", Input(""), "lock"), Example("", Input("no label")), unread]
    found = await caller.service.models.evaluate_model(model, Selector(), stream(good, bad))
    assert (found.model, found.version, found.measured.examples) == (model, 1, len(good))
    assert found.measured.figures.accuracy == 1
    assert found.total_rejected == 3
    assert [(it.index, it.reason) for it in found.rejected] == [
        (len(good), "INPUT_EMPTY"),
        (len(good) + 1, "LABEL_EMPTY"),
        (len(good) + 2, "INPUT_MISSING"),
    ]
    assert "examples[0].input.text is empty" in found.rejected[0].detail
    assert "examples[1].target is not set" in found.rejected[1].detail
    assert (found.total_trained_on, found.total_with_unknown_label, found.training_examples_missing) == (
        0,
        0,
        False,
    )


@asks(ModelApi.suggest_examples)
async def _suggestions_name_candidates_by_their_place(caller: Caller) -> None:
    model = caller.name()
    await caller.publish(model)
    known = caller.rows[0][0]
    unread = InvalidError("No input.", reason="INPUT_MISSING", field="examples[3].input")
    candidates = [Example("", Input(it)) for it in (known, "Where is my parcel?", "How do I lock it?")]
    batches = stream([*candidates, unread])
    found = await caller.service.models.suggest_examples(model, Selector(), SuggestionRequest(2), batches)
    assert (found.model, found.version, found.candidates, found.labelled) == (model, 1, 2, 1)
    assert sorted(it.index for it in found.suggestions) == [1, 2]
    assert found.suggestions[0].score == 1
    assert [(it.index, it.reason) for it in found.rejected] == [(3, "INPUT_MISSING")]


@asks(ModelApi.list_backbones)
async def _backbones_are_described(caller: Caller) -> None:
    (backbone,) = await caller.service.models.list_backbones()
    assert (backbone.name, backbone.state, backbone.is_default) == ("minilm", BackboneState.READY, True)
    assert backbone.description
    assert (backbone.description.dimension, backbone.description.architecture) == (384, "bert")


@pytest.mark.parametrize("test", dict.fromkeys(USE_CASES.values()), ids=lambda it: it.__name__.strip("_"))
def test_the_api_answers(runner, caller, test):
    runner.run(test(caller))


# ------------------------------------------------------------------------------- what it refuses, and when


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "START_MISSING"),
        ([examples([("a", "b")])], "START_MISSING"),
        ([EmptyMessage()], "START_MISSING"),
    ],
)
def test_a_call_begins_with_a_start(runner, caller, messages, reason):
    with pytest.raises(InvalidError) as raised:
        runner.run(caller.call(*messages))
    assert raised.value.reason == reason


@pytest.mark.parametrize("validate_only", [False, True])
def test_a_call_has_one_start_and_no_empty_message(runner, caller, validate_only):
    start = StartMessage(StartRequest(caller.name(), "a", "", AdaptationSettings("")), validate_only)
    for message, reason in [(start, "START_REPEATED"), (EmptyMessage(), "MESSAGE_EMPTY")]:
        with pytest.raises(InvalidError) as raised:
            runner.run(caller.call(start, message))
        assert raised.value.reason == reason


def test_validating_stores_nothing(runner, caller):
    model = caller.name()
    answers = runner.run(caller.adapt(model, examples(caller.rows), CommitMessage("c"), validate_only=True))
    assert [type(it) for it in answers] == [Started, Accepted, Committed]
    assert runner.run(values(caller.service.adaptations.list_adaptations(model, FIRST))) == []


@pytest.fixture(scope="module")
def long_labels(runner: asyncio.Runner, caller: Caller) -> str:
    """A model of two labels of 200 bytes each."""
    model = caller.name()
    runner.run(caller.publish(model, rows=[(text, label * 50) for text, label in caller.rows]))
    return model


@pytest.mark.parametrize(
    ("inputs", "options"),
    [(3_000, {"include_features": True}), (10_000, {"top_k": 9}), (10_000, {})],
    ids=["features", "labels", "labels by default"],
)
def test_an_answer_that_is_known_to_be_too_large_is_refused_before_it_is_computed(
    runner, caller, long_labels, inputs, options
):
    # What the encoder is asked for after its deadline ends with the deadline's error.
    late = time.monotonic() - 1
    request = PredictionRequest(long_labels, [Input("the lock")] * inputs, **options)
    with pytest.raises(InvalidError) as refused:
        runner.run(caller.service.predictions.predict(request, deadline=late, max_bytes=3_900_000))
    assert (refused.value.reason, refused.value.field) == ("RESPONSE_TOO_LARGE", "inputs")
    assert "at least" in refused.value.message
    with pytest.raises(DeadlineError):
        runner.run(caller.service.predictions.predict(request, deadline=late, max_bytes=math.inf))


def test_what_may_be_small_enough_is_computed(runner, caller, long_labels):
    request = PredictionRequest(
        long_labels, [Input("the lock")] * 10 + [Input("")] * 9_990, include_features=True
    )
    found = runner.run(caller.service.predictions.predict(request, max_bytes=3_900_000))
    assert sum(isinstance(it, Prediction) for it in found.results) == 10


def test_a_store_that_hangs_keeps_no_long_text_waiting(runner, caller):
    model = caller.name()
    runner.run(caller.publish(model))

    async def asked_while_the_store_hangs() -> tuple[int, str]:
        answers = threading.Event()
        hanging = [asyncio.create_task(asyncio.to_thread(answers.wait)) for _ in range(4 * STORE_THREADS)]
        try:
            async with asyncio.timeout(30):
                return await caller.label(model, "the lock is stuck " * 500)
        finally:
            answers.set()
            await asyncio.gather(*hanging)

    assert runner.run(asked_while_the_store_hangs()) == (1, "lock")


def test_who_starts_while_the_store_hangs_hears_that_the_server_is_there(runner, caller, monkeypatch):
    answers = threading.Event()
    faults = objects_module._faults

    @contextmanager
    def hanging(key: str) -> Iterator[None]:
        answers.wait()
        with faults(key):
            yield

    async def asked() -> list[type]:
        settings = AdaptationSettings("minilm")
        start = StartMessage(StartRequest(caller.name(), "a", "", settings), keep_alive_s=0.001)
        monkeypatch.setattr(objects_module, "_faults", hanging)
        async with aclosing(caller.service.adaptations.adapt(stream(start))) as call:
            heard = [type(await anext(call))]
            answers.set()
            heard += [type(it) async for it in call if not isinstance(it, Progress)]
        return heard

    assert runner.run(asked()) == [Progress, Started]


def test_a_store_that_hangs_stops_nothing_that_is_in_memory(runner, caller, monkeypatch):
    model, answers = caller.name(), threading.Event()
    faults = objects_module._faults

    @contextmanager
    def hanging(key: str) -> Iterator[None]:
        answers.wait()
        with faults(key):
            yield

    async def writer(over: asyncio.Event) -> AsyncIterator[WriterMessage]:
        yield StartMessage(StartRequest(model, "open", "", AdaptationSettings("")))
        yield examples(caller.rows)
        await over.wait()

    async def asked() -> None:
        service, over = caller.service, asyncio.Event()
        await caller.publish(model)
        call = aiter(service.adaptations.adapt(writer(over)))
        while not isinstance(await anext(call), Accepted):
            pass
        monkeypatch.setattr(objects_module, "_faults", hanging)
        waiting = [
            asyncio.create_task(it)
            for _ in range(2 * STORE_THREADS)
            for it in (
                service.models.set_alias(model, "another", 1),
                service.adaptations.get_adaptation(model, "unknown"),
            )
        ]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(60):
                assert await caller.label(model, "the lock is stuck " * 150) == (1, "lock")
                many = PredictionRequest(model, [Input(f"the lock {n}") for n in range(100)], Selector())
                assert len((await service.predictions.predict(many)).results) == 100
                version = await service.models.get_version(model, Selector())
                assert version.report.examples == len(caller.rows)
                view = await service.adaptations.get_adaptation(model, "open")
                assert (view.state, view.writers) == (AdaptationState.OPEN, {"default": len(caller.rows)})
                assert (await service.models.get_model(model)).latest_version == 1
        finally:
            answers.set()
            await asyncio.gather(*waiting, return_exceptions=True)
            over.set()
            await call.aclose()

    runner.run(asked())
