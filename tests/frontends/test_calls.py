"""Which calls are at work, and which wait for their clients."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.v1 import prediction_pb2, prediction_pb2_grpc
from graft_server.domain.errors import DrainingError
from graft_server.domain.prediction import StreamedAnswer
from graft_server.frontends.grpc import calls as module
from graft_server.frontends.grpc.calls import Call, Calls
from graft_server.frontends.grpc.converters.predictions import stream_response
from graft_server.frontends.grpc.handlers import Malformed, add_service
from graft_server.frontends.grpc.sizes import MAX_NAMES_BYTES


class Context:
    """The side of a call that gRPC has."""

    def add_done_callback(self, done: Callable[[Any], None]) -> None:
        self.end = lambda: done(self)


async def silent(*messages: str) -> AsyncIterator[str]:
    """Messages of a client that then sends nothing more."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


def begun(calls: Calls, **kind: bool) -> tuple[Call, Context]:
    context = Context()
    return calls.begin(context, **kind), context


def run(test: Callable[[Calls], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await test(Calls())

    asyncio.run(limited())


def test_a_call_is_at_work_until_its_status_is_written() -> None:
    async def test(calls: Calls) -> None:
        call, context = begun(calls)
        waiting = asyncio.ensure_future(calls.worked())
        await asyncio.sleep(0)
        assert call.at_work
        assert not waiting.done()
        context.end()
        await waiting
        await calls.ended()

    run(test)


def test_what_tells_of_other_work_is_not_waited_for_but_told() -> None:
    async def test(calls: Calls) -> None:
        _, context = begun(calls, rests=True)
        await calls.worked()
        ending = asyncio.ensure_future(calls.ended())
        await asyncio.sleep(0)
        assert not ending.done()
        context.end()
        await ending

    run(test)


@pytest.mark.parametrize("sent", [(), ("one",)])
@pytest.mark.parametrize("kind", [{}, {"rests": True}, {"resumes": True}])
def test_a_silent_client_is_told(kind: dict[str, bool], sent: tuple[str, ...]) -> None:
    async def test(calls: Calls) -> None:
        call, _ = begun(calls, **kind)
        messages = call.messages(silent(*sent))
        for message in sent:
            assert await anext(messages) == message
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        calls.drain()
        with pytest.raises(DrainingError):
            await waiting

    run(test)


def test_a_client_that_begins_late_is_told() -> None:
    async def test(calls: Calls) -> None:
        calls.drain()
        call, _ = begun(calls)
        with pytest.raises(DrainingError):
            await anext(call.messages(silent()))
        call, _ = begun(calls, resumes=True)
        with pytest.raises(DrainingError):
            await anext(call.messages(silent("it was sent already")))

    run(test)


def test_a_stream_is_at_work_for_what_it_has_not_answered() -> None:
    async def test(calls: Calls) -> None:
        call, _ = begun(calls, resumes=True)
        messages = call.messages(silent("one", "two"))
        assert not call.at_work
        await anext(messages)
        await anext(messages)
        call.sending()
        call.sent()
        call.sending()
        call.sent(answers=False)  # it says only that the server is at work
        assert call.at_work
        working = asyncio.ensure_future(calls.worked())
        await asyncio.sleep(0)
        assert not working.done()
        call.sending()
        call.sent()
        await working
        await messages.aclose()  # type: ignore[attr-defined]

    run(test)


def test_a_client_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREAD_S", 0.0)

    async def test(calls: Calls) -> None:
        call, _ = begun(calls)
        call.sending()
        await calls.worked()
        call.sent()
        assert call.at_work

    run(test)


def test_a_client_that_goes_on_sending_may_finish() -> None:
    async def test(calls: Calls) -> None:
        call, _ = begun(calls)
        room: asyncio.Queue[str] = asyncio.Queue()

        async def sent() -> AsyncIterator[str]:
            while (message := await room.get()) != "end":
                yield message

        messages = call.messages(sent())
        await room.put("first")
        assert await anext(messages) == "first"
        calls.drain()
        for message in ("second", "third"):
            await room.put(message)
            assert await anext(messages) == message
        await room.put("end")
        assert await anext(messages, None) is None

    run(test)


class Forever:
    """A service of health that never finishes."""

    async def Check(self, _: Any, __: Any) -> Any:  # noqa: N802
        await asyncio.Event().wait()

    async def Watch(self, _: Any, __: Any) -> AsyncIterator[Any]:  # noqa: N802
        yield health_pb2.HealthCheckResponse()
        await asyncio.Event().wait()


def test_what_is_at_work_when_the_time_is_over_is_told_too() -> None:
    async def test(calls: Calls) -> None:
        server = grpc.aio.server()
        add_service(server, Forever(), health_pb2.DESCRIPTOR.services_by_name["Health"], calls)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            check = asyncio.ensure_future(stub.Check(health_pb2.HealthCheckRequest()))
            while sum(call.at_work for call in calls._running) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert calls.give_up()
            for ending in (check, watch.read()):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await ending
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "shutting down" in str(raised.value.details())
            await calls.ended()
            assert not calls.give_up()
        await server.stop(None)

    run(test)


def test_a_refused_request_is_gone_with_its_call() -> None:
    class Servicer:
        async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise NotImplementedError

        Watch = List = Check

    async def test(calls: Calls) -> None:
        server = grpc.aio.server()
        add_service(server, Servicer(), health_pb2.DESCRIPTOR.services_by_name["Health"], calls)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for data in (bytes(MAX_NAMES_BYTES + 1), b"\xff"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary("/grpc.health.v1.Health/Check")(data)
        await calls.ended()
        await server.stop(None)

    gc.collect()
    gc.disable()
    try:
        run(test)
        # Their own types alone: to ask what else is an instance wakes libraries that load on use.
        assert not [it for it in gc.get_objects() if type(it) is Malformed]
    finally:
        gc.enable()


def test_the_error_of_a_streamed_request_is_gone_with_its_answer() -> None:
    error = DrainingError()
    seen = weakref.ref(error)
    gc.collect()
    gc.disable()
    try:
        answer = StreamedAnswer("one", error)
        assert asyncio.run(stream_response(answer)).error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        del error, answer
        assert seen() is None
    finally:
        gc.enable()


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


class Endless:
    """Answers for as long as it may, whether its answers are read or not."""

    async def Predict(self, *_: Any) -> prediction_pb2.PredictResponse:  # noqa: N802 - the RPC's name
        raise NotImplementedError

    async def PredictStream(  # noqa: N802
        self, *_: Any
    ) -> AsyncIterator[prediction_pb2.PredictStreamResponse]:
        self.task = asyncio.current_task()
        while True:
            yield prediction_pb2.PredictStreamResponse(request_id="x" * 1_000_000)


@pytest.mark.parametrize(
    ("drained", "reason"), [(False, "ANSWERS_NOT_READ"), (True, "DRAINING")], ids=["made way", "drained"]
)
def test_a_client_that_does_not_read_is_told_that_its_call_was_ended(
    monkeypatch: pytest.MonkeyPatch, drained: bool, reason: str
) -> None:
    monkeypatch.setattr(module, "UNREAD_S", 0.1)

    async def test(calls: Calls) -> None:
        server, servicer = grpc.aio.server(), Endless()
        descriptor = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"]
        add_service(server, servicer, descriptor, calls)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = prediction_pb2_grpc.PredictionServiceStub(channel).PredictStream()
            await call.read()
            await calls.worked()  # what is not read is not waited for
            if drained:
                assert calls.give_up()
            else:
                servicer.task.cancel()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await read_to_the_end(call)
            details = raised.value.trailing_metadata()["grpc-status-details-bin"]
            assert reason.encode() in details
            await calls.ended()
        await server.stop(None)

    run(test)
