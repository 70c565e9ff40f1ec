"""Workers that share nothing with the server but the store: their cache is another one, as on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from graft_server.app import Service, place_of
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import open_backbone
from graft_server.domain.adaptation import AdaptationSettings, FineTuning, StartRequest
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.method import Method
from graft_server.domain.prediction import Prediction, PredictionRequest, Selector
from graft_server.domain.report import Report
from graft_server.domain.stream import (
    CommitMessage,
    ExamplesMessage,
    Published,
    SentChange,
    StartMessage,
    WriterMessage,
)
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.settings import Settings
from graft_server.store.objects.objects import Objects

MODEL = "tests/m"


def rows() -> list[tuple[str, str]]:
    """Letters, labelled by the first of them."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(160):
        letters = generator.choice(list("abcdefghijklmnop"), generator.integers(3, 12))
        found.append((" ".join(letters), "early" if letters[0] < "h" else "late"))
    return list(dict(found).items())


@asynccontextmanager
async def running(settings: Settings, *, cache_of_workers: Path | None = None) -> AsyncIterator[Service]:
    here = place_of(settings)
    service = Service(
        settings, workers=here if cache_of_workers is None else replace(here, cache=str(cache_of_workers))
    )
    await service.start()
    try:
        yield service
    finally:
        await service.drain()
        await service.close()


async def published(service: Service) -> Report:
    """Publishes a version with a tuned layer."""
    settings = AdaptationSettings(
        "", method=Method.PARTIAL, fine_tuning=FineTuning(unfrozen_layers=1, epochs=8, learning_rate=0.01)
    )
    changes = [SentChange(Change(Example("", Input(text), label)), text.encode()) for text, label in rows()]
    messages = StartMessage(StartRequest(MODEL, "a", "", settings)), ExamplesMessage(0, changes)

    async def sent() -> AsyncIterator[WriterMessage]:
        for it in (*messages, CommitMessage("c", close=True)):
            yield it

    async with aclosing(service.adaptations.adapt(sent())) as answers:
        found = [it async for it in answers]
    (last,) = [it for it in found if isinstance(it, Published)]
    assert last.report is not None
    return last.report


async def probabilities(service: Service, texts: Sequence[str]) -> list[dict[str, float]]:
    request = PredictionRequest(MODEL, [Input(text) for text in texts], Selector())
    answers = []
    for it in (await service.predictions.predict(request)).results:
        assert isinstance(it, Prediction)
        assert isinstance(it.answer, SingleLabelAnswer)
        answers.append(dict(it.answer.scores))
    return answers


async def bundle(service: Service) -> dict[str, str]:
    """The digests of a bundle's files."""
    found: dict[str, str] = {}
    async with aclosing(service.models.export_model(MODEL, Selector())) as chunks:
        async for it in chunks:
            found[it.path] = it.sha256
    return found


def encoders(settings: Settings) -> list[str]:
    """The keys of what a store has of encoders."""
    return Objects.open(settings.store).keys("encoders/")


@pytest.mark.slow
def test_workers_with_another_cache_give_the_same_and_leave_nothing(
    tmp_path: Path, encoder_cache: Path, text_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(text_checkpoints / "bert")
    texts = ["a b c", "p o n", "h a"]
    here = Settings(
        store=str(tmp_path / "here"),
        cache=str(encoder_cache),
        backbones={"small": source},
        cores=1,
        measure_seconds=0.0,
    )
    mine, theirs, third, fourth = (tmp_path / name for name in ("mine", "theirs", "third", "fourth"))
    apart = structs.replace(here, store=str(tmp_path / "apart"), cache=str(mine))

    async def scenario() -> None:
        async with running(here) as beside:
            report, expected = await published(beside), await probabilities(beside, texts)
            files = await bundle(beside)
        async with running(apart, cache_of_workers=theirs) as service:
            found = await published(service)
            assert (found.method, found.tuning.kept) == (report.method, True)
            assert found.tuning.history == tuple(
                replace(it, seconds=other.seconds)
                for it, other in zip(report.tuning.history, found.tuning.history, strict=True)
            )
            assert await probabilities(service, texts) == expected
            assert (await bundle(service))["model.onnx"] == files["model.onnx"]
            assert encoders(apart)
        objects = Objects.open(apart.store)
        objects.delete(objects.keys("encoders/"))
        # Graphs that the server has and a worker lacks are put into the store when they are asked for.
        async with running(apart, cache_of_workers=fourth) as service:
            assert not encoders(apart)
            assert (await bundle(service))["model.onnx"] == files["model.onnx"]
        caplog.clear()
        # What went through the store once serves another server with a cache of its own.
        async with running(structs.replace(apart, cache=str(third))) as service:
            assert await probabilities(service, texts) == expected
        assert "exporting" not in caplog.text

    with caplog.at_level("INFO"):
        asyncio.run(scenario())
    objects = Objects.open(apart.store)
    encoder_id = open_backbone("small", source).encoder_id
    assert f"encoders/{encoder_id}/encoder.onnx" in encoders(apart)
    assert not encoders(here)
    for cache in (mine, theirs, third, fourth):
        assert EncoderCache(cache).has(encoder_id)
    for prefix in ("tunings/", "handed-over/"):
        assert objects.keys(prefix) == []
    for folder in (mine, theirs):
        assert [it.name for it in folder.rglob("*") if it.is_file() and "encoders" not in it.parts] == [
            "identity"
        ]
