"""What callers are told when what they look at goes away: a model, a version, the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from graft_server.app import Service
from graft_server.domain.adaptation import AdaptationSettings, StartRequest
from graft_server.domain.errors import DrainingError, MissingError, StoreError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.prediction import PredictionRequest, Selector, StreamedRequest
from graft_server.domain.stream import CommitMessage, ExamplesMessage, Published, SentChange, StartMessage
from graft_server.settings import Settings

Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


@pytest.fixture(scope="module")
def service(
    runner: asyncio.Runner, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    store = tmp_path_factory.mktemp("going") / "store"

    async def made() -> Service:
        service = Service(Settings(store=str(store), cache=str(encoder_cache), measure_seconds=0))
        await service.start()
        return service

    service = runner.run(made())
    yield service
    runner.run(service.close())


async def publish(service: Service, model: str, rows: Rows) -> None:
    """Publishes a version, and leaves the adaptation "a" open."""
    changes = [SentChange(Change(Example("", Input(text), label)), text.encode()) for text, label in rows]

    async def messages() -> AsyncIterator[Any]:
        yield StartMessage(StartRequest(model, "a", "", AdaptationSettings("")), False)
        yield ExamplesMessage(0, changes)
        yield CommitMessage()

    async with aclosing(service.adaptations.adapt(messages())) as answers:
        assert any([isinstance(it, Published) async for it in answers])


async def raised_by(events: AsyncIterator[Any]) -> Exception:
    """What an iteration ends with."""
    try:
        while True:
            await anext(events)
    except Exception as error:  # noqa: BLE001 - the caller looks at it
        return error


def test_a_watcher_of_a_deleted_model_is_told_that_it_is_gone(
    runner: asyncio.Runner, service: Service, few: Rows
) -> None:
    async def watched() -> Exception:
        await publish(service, "tests/watched", few)
        async with aclosing(service.adaptations.watch_adaptation("tests/watched", "a")) as events:
            await anext(events)
            await service.models.delete_model("tests/watched")
            return await raised_by(events)

    error = runner.run(watched())
    assert isinstance(error, MissingError)
    assert error.reason == "ADAPTATION_NOT_FOUND"


def test_what_fails_since_a_model_was_deleted_meanwhile_says_that_it_is_gone(
    runner: asyncio.Runner, service: Service, few: Rows
) -> None:
    async def exported() -> tuple[Exception, object]:
        await publish(service, "tests/exported", few)
        versions = service.models.versions
        version = versions.resolve("tests/exported", Selector())
        with pytest.raises(StoreError) as there:
            async with versions.existing(version):
                raise StoreError("It cannot be read.", reason="STORE_UNAVAILABLE")
        export = service.models.export_model("tests/exported", Selector())
        async with aclosing(export):
            composing = asyncio.ensure_future(anext(export))
            await asyncio.sleep(0)  # it has found its version
            await service.models.delete_model("tests/exported")
            (gone,) = await asyncio.gather(composing, return_exceptions=True)
        return there.value, gone

    there, gone = runner.run(exported())
    assert type(there) is StoreError
    assert isinstance(gone, MissingError)
    assert gone.reason == "MODEL_NOT_FOUND"


def test_a_stream_answers_what_is_in_work_before_it_ends(
    runner: asyncio.Runner, service: Service, few: Rows
) -> None:
    """As the server goes away, its frontend raises where the client's next request would come."""

    async def streamed() -> tuple[set[str], object]:
        await publish(service, "tests/streamed", few)
        request = PredictionRequest("tests/streamed", [Input("the lock is stuck")])

        async def requests() -> AsyncIterator[StreamedRequest]:
            for number in range(20):
                yield StreamedRequest(str(number), request)
            raise DrainingError

        answered: set[str] = set()
        async with aclosing(service.predictions.predict_stream(requests())) as answers:

            async def read() -> None:
                async for it in answers:
                    answered.add(it.request_id)

            (error,) = await asyncio.gather(read(), return_exceptions=True)
        return answered, error

    answered, error = runner.run(streamed())
    assert answered == {str(number) for number in range(20)}
    assert isinstance(error, DrainingError)


def test_a_watcher_of_a_server_that_goes_away_is_told_to_call_again(
    runner: asyncio.Runner, service: Service, few: Rows
) -> None:
    """The last test: the service is drained."""

    async def watched() -> Exception:
        await publish(service, "tests/drained", few)
        async with aclosing(service.adaptations.watch_adaptation("tests/drained", "a")) as events:
            await anext(events)
            await service.drain()
            return await raised_by(events)

    assert isinstance(runner.run(watched()), DrainingError)
