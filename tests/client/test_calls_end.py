"""Every call ends: within its bound where the server falls silent or dies, whole where another call can go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.client import scripted

import graft

ROWS = [(f"text {number}", "label") for number in range(600)]
"""More than two messages of an evaluation."""


@pytest.fixture
def script() -> Any:
    return scripted.Scripted()


@pytest.fixture
def server(script: Any) -> Iterator[Any]:
    with scripted.Server(script) as server:
        yield server


def adapt(client: Any, _: Path) -> Any:
    return client.adapt("m", ROWS[:2])


def check(client: Any, _: Path) -> Any:
    return client.check("m", ROWS[:2])


def evaluate(client: Any, _: Path) -> Any:
    return client.evaluate("m", ROWS)


def export(client: Any, folder: Path) -> Any:
    return client.export("m", folder / "bundle")


def watch(client: Any, _: Path) -> Any:
    return drained(client.watch("m", "a"))


def predict_stream(client: Any, _: Path) -> Any:
    return drained(client.predict_stream("m", ["a", "b", "c"], chunk_size=1))


def drained(items: Any) -> Any:
    """All items of a stream; of an asynchronous one, when it is awaited."""
    if isinstance(items, Iterator):
        return list(items)

    async def collected() -> list[Any]:
        return [it async for it in items]

    return collected()


STAGES = [
    *((adapt, stage) for stage in range(6)),
    *((check, stage) for stage in range(4)),
    *((evaluate, stage) for stage in (0, 1, 2, 9)),
    *((export, stage) for stage in range(5)),
    *((watch, stage) for stage in range(4)),
    *((predict_stream, stage) for stage in range(3)),
]
both_clients = pytest.mark.parametrize("kind", ["blocking", "asynchronous"])


def made(kind: str, target: str, call: Callable[[Any, Path], Any], folder: Path, **settings: Any) -> Any:
    """The result of a call of one of the clients, in its own connection."""
    if kind == "blocking":
        with graft.Client(target, **settings) as client:
            return call(client, folder)

    async def awaited() -> Any:
        async with graft.AsyncClient(target, **settings) as client:
            return await call(client, folder)

    return asyncio.run(awaited())


BOUNDS = {"timeout": 2.0, "connect_timeout": 2.0, "resume_timeout": 2.0}


def at_every_stage(kind: str, ends: Callable[[Any], Callable[[Any], None]], folder: Path) -> dict[str, Any]:
    """The results or errors of all calls, made at once, each to a server of its own that ends it at one stage."""
    with ExitStack() as stack:

        def prepared(call: Callable[[Any, Path], Any], stage: int) -> tuple[Any, Path]:
            script = scripted.Scripted()
            server = stack.enter_context(scripted.Server(script))
            script.stage, script.ends = stage, ends(server)
            return server, folder / f"{call.__name__}-{stage}"

        places = [prepared(*it) for it in STAGES]
        names = [f"{call.__name__}-{stage}" for call, stage in STAGES]
        return dict(zip(names, made_at_once(kind, places), strict=True))


def made_at_once(kind: str, places: list[tuple[Any, Path]]) -> list[Any]:
    calls = [(call, *place) for (call, _), place in zip(STAGES, places, strict=True)]
    if kind == "blocking":

        def caught(call: Callable[[Any, Path], Any], server: Any, folder: Path) -> Any:
            try:
                with graft.Client(server.target, **BOUNDS) as client:
                    return call(client, folder)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                return error

        with ThreadPoolExecutor(len(calls)) as threads:
            return [it.result() for it in [threads.submit(caught, *each) for each in calls]]

    async def one(call: Callable[[Any, Path], Any], server: Any, folder: Path) -> Any:
        async with graft.AsyncClient(server.target, **BOUNDS) as client:
            return await call(client, folder)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one(*it) for it in calls), return_exceptions=True)

    return asyncio.run(all_of_them())


@both_clients
@pytest.mark.parametrize("end", ["silence", "death"])
def test_every_call_ends_at_every_stage(kind: str, end: str, tmp_path: Path) -> None:
    def ends(server: Any) -> Callable[[Any], None]:
        return scripted.silent if end == "silence" else server.dies  # type: ignore[no-any-return]

    results = at_every_stage(kind, ends, tmp_path)
    assert {name: it for name, it in results.items() if not isinstance(it, graft.GraftError)} == {}
    assert list(tmp_path.glob("*/*/*")) == []  # no half a bundle


def once(ends: Callable[[Any], None]) -> Callable[[Any], None]:
    """What happens at the first call alone."""
    left = iter([ends])

    def end(context: Any) -> None:
        for it in left:
            it(context)

    return end


WHOLE: dict[Callable[[Any, Path], Any], Callable[[Any], bool]] = {
    adapt: lambda it: it.version == 1,
    evaluate: lambda it: (it.version, it.examples) == (7, 600),
    export: lambda it: {p.name: p.read_bytes() for p in it.files} == scripted.FILES and it.size == 26,
    watch: lambda it: [event.number for event in it] == [1, 2, 3],
    predict_stream: lambda it: len(it) == 3,
}


@both_clients
def test_every_call_that_breaks_once_at_any_stage_gives_the_whole_result(kind: str, tmp_path: Path) -> None:
    results = at_every_stage(kind, lambda _: once(scripted.breaks), tmp_path)
    for call, stage in STAGES:
        if call is not check:  # of a check the server keeps nothing
            assert WHOLE[call](results[f"{call.__name__}-{stage}"]), (call, stage, results)


@both_clients
def test_an_export_asks_for_the_rest_of_the_version_that_it_began_with(
    script: Any, server: Any, kind: str, tmp_path: Path
) -> None:
    script.stage, script.ends = 2, once(scripted.breaks)
    made(kind, server.target, export, tmp_path)
    first, second = script.calls["ExportModel"]
    assert (first.version, list(first.received)) == (0, [])
    assert second.version == 7
    assert [(it.path, it.size) for it in second.received] == [("model.onnx", 20)]


@both_clients
@pytest.mark.parametrize("stage", range(5))
def test_an_export_begins_anew_where_an_older_server_sends_everything_again(
    script: Any, server: Any, kind: str, stage: int, tmp_path: Path
) -> None:
    script.stage, script.ends, script.resumes = stage, once(scripted.breaks), False
    assert WHOLE[export](made(kind, server.target, export, tmp_path))


@both_clients
@pytest.mark.parametrize("call", [evaluate, export, watch], ids=lambda it: it.__name__)
def test_a_call_outlives_the_age_of_its_connection(
    script: Any, kind: str, call: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    """The first call waits for as long as its connection lives, whose age the server limits."""
    script.stage, script.ends = 2, once(scripted.silent)
    ages = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 100))
    with scripted.Server(script, *ages) as server:
        assert WHOLE[call](made(kind, server.target, call, tmp_path))


def test_an_evaluation_sends_an_iterator_again_and_the_same_version(script: Any, server: Any) -> None:
    script.stage, script.ends = 9, once(scripted.breaks)
    with graft.Client(server.target) as client:
        assert client.evaluate("m", iter(ROWS), alias="live").examples == len(ROWS)
    assert [versions[0] for versions in script.calls["EvaluateModel"]] == [7, 7]


@pytest.mark.parametrize("room", [True, False])
def test_an_evaluation_keeps_large_examples_with_and_without_room_for_temporary_files(
    script: Any, server: Any, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft._client.evaluating._IN_MEMORY", 1000)
    if not room:
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    script.stage, script.ends = 9, once(scripted.breaks)
    with graft.Client(server.target) as client:
        assert client.evaluate("m", ROWS).examples == len(ROWS)


UNARY: dict[str, Callable[[Any], Any]] = {
    "predict": lambda it: it.predict("m", "text"),
    "models": lambda it: it.models(),
    "model": lambda it: it.model("m"),
    "versions": lambda it: it.versions("m"),
    "version": lambda it: it.version("m"),
    "set_alias": lambda it: it.set_alias("m", "live", 1),
    "promote": lambda it: it.promote("m", 1),
    "delete_version": lambda it: it.delete_version("m", 1),
    "delete_model": lambda it: it.delete_model("m"),
    "examples": lambda it: it.examples("m"),
    "delete_examples": lambda it: it.delete_examples("m", ids=["a"]),
    "backbones": lambda it: it.backbones(),
    "adaptation": lambda it: it.adaptation("m", "a"),
    "adaptations": lambda it: it.adaptations("m"),
    "cancel": lambda it: it.cancel("m", "a"),
    "health": lambda it: it.health(),
}


class Deaf(grpc.GenericRpcHandler):
    """Takes every unary call, and answers none."""

    def service(self, _: Any) -> Any:
        def hear(_: bytes, context: Any) -> bytes:
            scripted.silent(context)
            return b""

        return grpc.unary_unary_rpc_method_handler(hear)


@pytest.fixture
def deaf() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2 * len(UNARY)), handlers=[Deaf()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_every_unary_method_ends_at_its_deadline(deaf: str) -> None:
    def asked(name: str) -> Exception | None:
        try:
            UNARY[name](client)
        except Exception as error:  # noqa: BLE001 - looked at below
            return error
        return None

    with graft.Client(deaf, timeout=0.3) as client, ThreadPoolExecutor(len(UNARY)) as threads:
        errors = dict(zip(UNARY, threads.map(asked, UNARY), strict=True))
    assert {name for name, it in errors.items() if not isinstance(it, graft.DeadlineExceededError)} == set()


def test_so_does_every_one_of_the_async_client(deaf: str) -> None:
    async def asked() -> list[Any]:
        async with graft.AsyncClient(deaf, timeout=0.3) as client:
            return await asyncio.gather(*(it(client) for it in UNARY.values()), return_exceptions=True)

    errors = dict(zip(UNARY, asyncio.run(asked()), strict=True))
    assert {name for name, it in errors.items() if not isinstance(it, graft.DeadlineExceededError)} == set()


@both_clients
@pytest.mark.parametrize("call", [adapt, evaluate, export, watch, predict_stream], ids=lambda it: it.__name__)
def test_a_client_that_is_closed_during_a_call_raises_its_own_error(
    script: Any, server: Any, kind: str, call: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    reached = threading.Event()

    def ends(context: Any) -> None:
        reached.set()
        scripted.silent(context)

    script.stage, script.ends = 1, ends
    if kind == "blocking":
        client = graft.Client(server.target)
        threading.Thread(target=lambda: (reached.wait(), client.close())).start()
        with pytest.raises(graft.CancelledError, match="closed"):
            call(client, tmp_path)
        return

    async def closed() -> None:
        client = graft.AsyncClient(server.target)
        running = asyncio.ensure_future(call(client, tmp_path))
        await asyncio.to_thread(reached.wait)
        await client.close()
        await running

    with pytest.raises(graft.CancelledError, match="closed"):
        asyncio.run(closed())


@pytest.mark.parametrize("call", [adapt, evaluate, export, watch, predict_stream], ids=lambda it: it.__name__)
def test_a_cancelled_task_stays_cancelled(
    script: Any, server: Any, call: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    reached = threading.Event()

    def ends(context: Any) -> None:
        reached.set()
        scripted.silent(context)

    script.stage, script.ends = 1, ends

    async def cancelled() -> None:
        async with graft.AsyncClient(server.target) as client:
            running = asyncio.ensure_future(call(client, tmp_path))
            await asyncio.to_thread(reached.wait)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(cancelled())


class OwnError(Exception):
    """The caller's."""


def failing() -> Iterator[Any]:
    yield from ROWS[:300]
    raise OwnError


async def failing_async() -> AsyncIterator[Any]:
    for row in failing():
        yield row


SOURCES: dict[str, Callable[[Any, Any], Any]] = {
    "adapt": lambda client, rows: client.adapt("m", rows),
    "check": lambda client, rows: client.check("m", rows),
    "evaluate": lambda client, rows: client.evaluate("m", rows),
    "predict_stream": lambda client, rows: drained(client.predict_stream("m", rows)),
}


@both_clients
@pytest.mark.parametrize("method", SOURCES)
def test_an_error_of_the_callers_own_iterator_stays_as_it_is(server: Any, kind: str, method: str) -> None:
    def call(client: Any, _: Path) -> Any:
        rows: Any = failing() if kind == "blocking" else failing_async()
        if method == "predict_stream" and kind == "blocking":
            rows = (text for text, _ in rows)
        elif method == "predict_stream":
            rows = texts_of(rows)
        return SOURCES[method](client, rows)

    async def texts_of(rows: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for text, _ in rows:
            yield text

    with pytest.raises(OwnError):
        made(kind, server.target, call, Path())


@both_clients
def test_a_closed_client_refuses_every_method(server: Any, kind: str, tmp_path: Path) -> None:
    calls = [*UNARY.values(), *(lambda it, c=c: c(it, tmp_path) for c in (adapt, evaluate, export, watch))]
    if kind == "blocking":
        client = graft.Client(server.target)
        client.close()
        client.close()
        for call in calls:
            with pytest.raises(graft.CancelledError):
                call(client)
        return

    async def refused() -> None:
        client = graft.AsyncClient(server.target)
        await client.close()
        await client.close()
        for call in calls:
            awaitable: Awaitable[Any] = call(client)
            with pytest.raises(graft.CancelledError):
                await awaitable

    asyncio.run(refused())


def test_an_async_client_may_be_made_before_there_is_a_loop_and_used_from_several(server: Any) -> None:
    client = graft.AsyncClient(server.target)
    for _ in range(2):
        assert asyncio.run(drained(client.predict_stream("m", ["a", "b"])))
    used = asyncio.new_event_loop()
    assert used.run_until_complete(client.version("m")).version == 7
    asyncio.run(client.close())
    with pytest.raises(graft.CancelledError):
        used.run_until_complete(client.version("m"))
    used.close()


@pytest.mark.parametrize("call", [adapt, export, watch, predict_stream], ids=lambda it: it.__name__)
def test_an_interpreter_that_ends_is_an_error_of_the_client(
    server: Any, call: Callable[[Any, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("graft-"):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        started(thread)

    with graft.Client(server.target) as client:
        assert client.version("m").version == 7
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(graft.CancelledError) as refused:
            call(client, tmp_path)
    assert refused.value.reason == "INTERPRETER_SHUTDOWN"
