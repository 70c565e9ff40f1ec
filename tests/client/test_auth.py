"""What calls carry: metadata from `auth`, asked anew for each call, and what interceptors see of them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

import graft
from graft.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
)

ROWS = [("the lock is stuck", "lock"), ("my bill is wrong", "bill")]


class Recorder(
    adaptation_pb2_grpc.AdaptationServiceServicer,
    prediction_pb2_grpc.PredictionServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """A server that notes which tokens came with which calls, and has each method fail once where that is resumed."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[str]] = {}

    def _came(self, method: str, context: grpc.ServicerContext) -> int:
        """Notes the call's token, and returns which call of the method this is, from 0."""
        calls = self.tokens.setdefault(method, [])
        calls.append(dict(context.invocation_metadata()).get("authorization", ""))
        return len(calls) - 1

    def Adapt(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        again = self._came("Adapt", context)
        start = next(requests).start
        started = adaptation_pb2.Started(adaptation_id=start.adaptation_id, next_sequence=1 if again else 0)
        yield adaptation_pb2.AdaptResponse(started=started)
        next(requests)
        if not again:
            yield adaptation_pb2.AdaptResponse(accepted=adaptation_pb2.Accepted(next_sequence=1))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
        yield adaptation_pb2.AdaptResponse(accepted=adaptation_pb2.Accepted(next_sequence=len(ROWS)))
        commit_id = next(requests).commit.commit_id
        yield adaptation_pb2.AdaptResponse(committed=adaptation_pb2.Committed(commit_id=commit_id))
        yield adaptation_pb2.AdaptResponse(
            published=adaptation_pb2.Published(commit_id=commit_id, model=start.model, version=1)
        )

    def WatchAdaptation(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        calls_before = self._came("WatchAdaptation", context)
        yield adaptation_pb2.WatchAdaptationResponse(event=request.from_event + 1)
        if calls_before == 1:  # the first call is the end of `adapt`
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self._came("Predict", context):
            delay = error_details_pb2.RetryInfo()
            delay.retry_delay.FromMilliseconds(1)
            packed = AnyMessage()
            packed.Pack(delay)
            status = status_pb2.Status(
                code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="full", details=[packed]
            )
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return prediction_pb2.PredictResponse(model=request.model, version=1)

    def PredictStream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        again = self._came("PredictStream", context)
        asked = next(requests)
        if not again:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
        answer = prediction_pb2.PredictResponse(results=[prediction_pb2.Prediction()], version=1)
        yield prediction_pb2.PredictStreamResponse(request_id=asked.request_id, response=answer)

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._came("GetVersion", context)
        return model_pb2.GetVersionResponse()

    def EvaluateModel(self, requests: Iterator[Any], context: Any) -> Any:  # noqa: N802
        self._came("EvaluateModel", context)
        for _ in requests:
            pass
        return model_pb2.EvaluateModelResponse()

    def ExportModel(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002, N802
        self._came("ExportModel", context)
        digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        yield model_pb2.ExportModelResponse(path="model.onnx", sha256=digest)


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    """A recorder that serves, and its address."""
    servicer = Recorder()
    server = grpc.server(ThreadPoolExecutor(8))
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(servicer, server)
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def counted() -> Callable[[], list[tuple[str, str]]]:
    """An auth that gives "token 0", "token 1" and so on."""
    numbers, lock = itertools.count(), threading.Lock()

    def auth() -> list[tuple[str, str]]:
        with lock:
            return [("authorization", f"token {next(numbers)}")]

    return auth


def blocking_calls(client: graft.Client, folder: Path) -> None:
    assert client.adapt("m", ROWS).version == 1
    assert len(list(client.watch("m", "a"))) == 2
    assert client.predict("m", "hello").version == 1
    assert len(list(client.predict_stream("m", ["hello"]))) == 1
    client.evaluate("m", ROWS)
    client.export("m", folder / "bundle")


async def asynchronous_calls(client: graft.AsyncClient, folder: Path) -> None:
    assert (await client.adapt("m", ROWS)).version == 1
    assert len([event async for event in client.watch("m", "a")]) == 2
    assert (await client.predict("m", "hello")).version == 1
    assert len([it async for it in client.predict_stream("m", ["hello"])]) == 1
    await client.evaluate("m", ROWS)
    await client.export("m", folder / "bundle")


def called(recorder: Recorder) -> dict[str, int]:
    """How often each method was called; no two calls had the same token, and none had none."""
    tokens = [token for calls in recorder.tokens.values() for token in calls]
    assert all(token.startswith("token ") for token in tokens)
    assert len(set(tokens)) == len(tokens)
    return {method: len(calls) for method, calls in recorder.tokens.items()}


# An adaptation that was resumed is watched once more, for rejections that the broken call may have had; and a version
# is looked at before it is evaluated.
CALLS = {
    "Adapt": 2,
    "WatchAdaptation": 3,
    "Predict": 2,
    "PredictStream": 2,
    "GetVersion": 1,
    "EvaluateModel": 1,
    "ExportModel": 1,
}


def test_each_call_has_metadata_of_its_own_the_repeated_and_the_resumed_too(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    seen, target = recorder
    with graft.Client(target, auth=counted()) as client:
        blocking_calls(client, tmp_path)
    assert called(seen) == CALLS


@pytest.mark.parametrize("asynchronous", [False, True])
def test_so_has_each_of_the_async_client_whose_auth_may_be_asynchronous(
    recorder: tuple[Recorder, str], tmp_path: Path, asynchronous: bool
) -> None:
    seen, target = recorder
    auth = counted()

    async def awaited() -> list[tuple[str, str]]:
        await asyncio.sleep(0)
        return auth()

    async def calls() -> None:
        async with graft.AsyncClient(target, auth=awaited if asynchronous else auth) as client:
            await asynchronous_calls(client, tmp_path)

    asyncio.run(calls())
    assert called(seen) == CALLS


def test_auth_comes_on_top_of_metadata(recorder: tuple[Recorder, str]) -> None:
    seen, target = recorder
    other = [("tenant", "t")]
    with graft.Client(target, metadata=[("authorization", "fixed")], auth=lambda: other) as client:
        client.evaluate("m", ROWS)
    assert seen.tokens == {"GetVersion": ["fixed"], "EvaluateModel": ["fixed"]}


def refused() -> list[tuple[str, str]]:
    raise LookupError("the vault is sealed")


METHODS: dict[str, Callable[[Any], Any]] = {
    "adapt": lambda client: client.adapt("m", ROWS),
    "check": lambda client: client.check("m", ROWS),
    "predict": lambda client: client.predict("m", "hello"),
    "predict_stream": lambda client: list(client.predict_stream("m", ["hello"])),
    "evaluate": lambda client: client.evaluate("m", ROWS),
    "watch": lambda client: list(client.watch("m", "a")),
    "health": lambda client: client.health(),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_of_auth_reaches_the_caller(recorder: tuple[Recorder, str], method: str) -> None:
    seen, target = recorder
    with graft.Client(target, auth=refused) as client, pytest.raises(graft.UnauthenticatedError) as raised:
        METHODS[method](client)
    assert raised.value.message == "auth= raised LookupError: the vault is sealed"
    assert isinstance(raised.value.__cause__, LookupError)
    assert seen.tokens == {}


def test_an_exception_of_auth_leaves_no_half_a_bundle(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    with graft.Client(recorder[1], auth=refused) as client, pytest.raises(graft.UnauthenticatedError):
        client.export("m", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_of_auth_ends_a_resumed_adaptation_and_says_which(
    recorder: tuple[Recorder, str],
) -> None:
    given = iter([[("authorization", "token")]])

    def once() -> list[tuple[str, str]]:
        for it in given:
            return it
        return refused()

    with graft.Client(recorder[1], auth=once) as client, pytest.raises(graft.UnauthenticatedError) as raised:
        client.adapt("m", ROWS, adaptation_id="mine")
    assert "auth= raised LookupError" in raised.value.message


@pytest.mark.parametrize(
    "method", ["adapt", "check", "predict", "predict_stream", "evaluate", "watch", "health"]
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_so_does_one_of_the_async_clients(
    recorder: tuple[Recorder, str], method: str, asynchronous: bool
) -> None:
    async def awaited() -> list[tuple[str, str]]:
        return refused()

    async def calls() -> None:
        async with graft.AsyncClient(recorder[1], auth=awaited if asynchronous else refused) as client:
            arguments = {"adapt": ROWS, "check": ROWS, "evaluate": ROWS, "watch": "a", "health": None}
            given = arguments.get(method, ["hello"])
            asked = getattr(client, method)(*(["m", given] if given else []))
            if isinstance(asked, AsyncIterator):
                async for _ in asked:
                    pass
            else:
                await asked

    with pytest.raises(graft.UnauthenticatedError) as raised:
        asyncio.run(calls())
    assert raised.value.message == "auth= raised LookupError: the vault is sealed"
    assert isinstance(raised.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "auth= gave a NoneType; it must give pairs of key and value"),
        ("authorization", "auth= gave a str; it must give pairs of key and value"),
        (["authorization"], "auth= gave a str among the pairs of key and value"),
        (
            [("Authorization", "secret")],
            "auth= gave the key 'Authorization'; it must be a text in lower case",
        ),
        ([("authorization", b"secret")], "gave 'authorization' a value of type bytes; it must be str"),
        ([("token-bin", "secret")], "gave 'token-bin' a value of type str; it must be bytes"),
    ],
)
def test_what_cannot_be_sent_is_told_without_its_value(given: Any, says: str) -> None:
    client = graft.Client("127.0.0.1:1", auth=lambda: given)
    with client, pytest.raises(graft.UnauthenticatedError) as raised:
        client.health()
    assert says in raised.value.message
    assert "secret" not in raised.value.message


class Blocking(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Notes what passes by."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def _pass(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen.append(
            (details.method.rpartition("/")[2], "authorization" in [key for key, _ in details.metadata])
        )
        return continuation(details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _pass


class _Noted:
    def __init__(self, seen: list[tuple[str, bool]]) -> None:
        self.seen = seen

    async def _pass(self, continuation: Any, details: Any, request: Any) -> Any:
        name = details.method.decode() if isinstance(details.method, bytes) else details.method
        self.seen.append((name.rpartition("/")[2], "authorization" in [key for key, _ in details.metadata]))
        return await continuation(details, request)


# grpc.aio takes an interceptor for one kind of call only, even if it has the methods for several.
class UnaryUnary(_Noted, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Noted._pass


class UnaryStream(_Noted, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Noted._pass


class StreamUnary(_Noted, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = _Noted._pass


class StreamStream(_Noted, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = _Noted._pass


def passed(seen: list[tuple[str, bool]]) -> dict[str, int]:
    """How often each method was seen, always with the metadata of `auth`; the wait for a connection set apart."""
    assert all(authorized for _, authorized in seen)
    names = [name for name, _ in seen if name != "Check"]
    return {name: names.count(name) for name in names}


def test_interceptors_see_every_call_with_its_metadata(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    interceptor = Blocking()
    with graft.Client(recorder[1], auth=counted(), interceptors=[interceptor]) as client:
        blocking_calls(client, tmp_path)
    assert passed(interceptor.seen) == called(recorder[0]) == CALLS


def test_those_of_the_async_client_do_too(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    interceptors = [kind(seen) for kind in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)]

    async def calls() -> None:
        async with graft.AsyncClient(recorder[1], auth=counted(), interceptors=interceptors) as client:
            await asynchronous_calls(client, tmp_path)

    asyncio.run(calls())
    assert passed(seen) == called(recorder[0]) == CALLS


def test_the_whole_job_is_done_through_interceptors(server: Any) -> None:
    rows = [(f"{text} {number}", label) for number in range(8) for text, label in ROWS]
    interceptor = Blocking()
    with graft.Client(server.target, auth=counted(), interceptors=[interceptor]) as client:
        result = client.adapt("auth-tests/blocking", [*rows, ("", "lock")])
        assert (result.report.examples, result.rejected_count) == (len(rows), 1)
        assert client.evaluate(result.model, rows).trained_on_count == len(rows)
        with pytest.raises(graft.NotFoundError, match="auth-tests/none"):
            client.evaluate("auth-tests/none", rows)
        assert [it.label for it in client.predict_stream(result.model, [text for text, _ in ROWS])] == [
            "lock",
            "bill",
        ]
        assert client.health() == "serving"
        assert "published" in [event.kind for event in client.watch(result.model, result.adaptation_id)]


def test_so_it_is_by_the_async_client(server: Any) -> None:
    rows = [(f"{text} {number}", label) for number in range(8) for text, label in ROWS]
    interceptors = [kind([]) for kind in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)]

    async def job() -> None:
        async with graft.AsyncClient(server.target, auth=counted(), interceptors=interceptors) as client:
            result = await client.adapt("auth-tests/async", [*rows, ("", "lock")])
            assert (result.report.examples, result.rejected_count) == (len(rows), 1)
            assert (await client.evaluate(result.model, rows)).trained_on_count == len(rows)
            with pytest.raises(graft.NotFoundError, match="auth-tests/none"):
                await client.evaluate("auth-tests/none", rows)
            with pytest.raises(graft.NotFoundError, match="auth-tests/none"):
                await client.adapt("auth-tests/none", rows, base_version=1)
            texts = [text for text, _ in ROWS]
            labels = [it.label async for it in client.predict_stream(result.model, texts)]
            assert labels == ["lock", "bill"]
            assert await client.health() == "serving"
            kinds = [event.kind async for event in client.watch(result.model, result.adaptation_id)]
            assert "published" in kinds

    asyncio.run(job())
