"""A server that goes away: who is told, who may finish, and what a second signal does. Nothing is timed.

The drain time is longer than a test may take: what waits for it fails by that.
"""

from __future__ import annotations

import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2

LONG = ("--drain-seconds", "600")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"


class Stream:
    """A call whose client sends the given messages, and nothing more."""

    def __init__(self, method: Callable[..., Any], *messages: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for message in messages:
            self._requests.put(message)
        self.responses = method(iter(self._requests.get, None))

    def close(self) -> None:
        self._requests.put(None)


def reflect(wire: Any, version: str) -> Callable[..., Any]:
    return wire.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )


def idle(wire: Any, model: str) -> Iterator[Any]:
    """Calls of every kind that wait for their client, or for something to happen."""
    asked = prediction_pb2.PredictRequest(model=model, inputs=[types_pb2.Input(text="the lock")])
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    start = adaptation_pb2.AdaptStart(model=model, adaptation_id="open")
    yield Stream(wire.prediction.PredictStream)
    answered = Stream(
        wire.prediction.PredictStream, prediction_pb2.PredictStreamRequest(request_id="1", request=asked)
    )
    assert next(answered.responses).request_id == "1"
    yield answered
    for version in ("v1", "v1alpha"):
        stream = Stream(reflect(wire, version), listing)
        assert next(stream.responses).HasField("list_services_response")
        yield stream
    yield Stream(wire.adaptation.Adapt)
    adapting = Stream(wire.adaptation.Adapt, adaptation_pb2.AdaptRequest(start=start))
    assert next(adapting.responses).HasField("started")
    yield adapting


def ended(responses: Any) -> tuple[list[Any], grpc.RpcError]:
    """The messages of a call until it ends, which must be with an error."""
    messages: list[Any] = []
    with pytest.raises(grpc.RpcError) as raised:
        messages.extend(responses)
    return messages, raised.value


def test_idle_calls_are_told_and_ended(serve: Any, connect: Any, few: Any) -> None:
    server = serve(*LONG)
    wire = connect(server)
    wire.publish("tests/m", few)
    streams = list(idle(wire, "tests/m"))
    evaluating = threading.Thread(target=lambda: evaluated.append(evaluate(wire)))
    evaluated: list[grpc.RpcError] = []
    evaluating.start()
    health = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(health).status == SERVING
    request = adaptation_pb2.WatchAdaptationRequest(model="tests/m", adaptation_id="open")
    watch = wire.adaptation.WatchAdaptation(request)
    unaware = connect(server)  # nobody looks at its connection
    unaware.model.ListModels(model_pb2.ListModelsRequest())
    address = ("127.0.0.1", int(server.target.rpartition(":")[2]))
    with socket.create_connection(address), socket.create_connection(address) as half_open:
        half_open.sendall(PREFACE)
        server.process.send_signal(signal.SIGTERM)
        for responses in (*(it.responses for it in streams), watch):
            messages, error = ended(responses)
            failure = wire.failure(error)
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert messages == []
        told, error = ended(health)
        assert [it.status for it in told] == [NOT_SERVING]
        assert wire.failure(error).reason == "DRAINING"
        evaluating.join()
        assert wire.failure(evaluated[0]).reason == "DRAINING"
        assert server.process.wait(timeout=60) == 0
    assert server.stop() == 0
    for stream in streams:
        stream.close()


def evaluate(wire: Any) -> grpc.RpcError:
    """Sends one example, and then nothing."""
    example = types_pb2.Example(input=types_pb2.Input(text="the lock"), label="lock")
    stream = Stream(
        wire.channel.stream_stream(
            "/graft.v1.ModelService/EvaluateModel",
            model_pb2.EvaluateModelRequest.SerializeToString,
            model_pb2.EvaluateModelResponse.FromString,
        ),
        model_pb2.EvaluateModelRequest(model="tests/m", examples=[example]),
    )
    _, error = ended(stream.responses)
    stream.close()
    return error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_notice_is_given_first_and_a_second_signal_hurries(
    serve: Any, connect: Any, number: signal.Signals
) -> None:
    server = serve(*LONG, "--drain-notice-seconds", "600")
    wire = connect(server)
    stub = health_pb2_grpc.HealthStub(wire.channel)
    health = stub.Watch(health_pb2.HealthCheckRequest(service="graft.v1.PredictionService"))
    assert next(health).status == SERVING
    server.process.send_signal(number)
    assert next(health).status == NOT_SERVING
    assert stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING
    later = connect(server)  # connections are taken too
    assert list(later.model.ListModels(model_pb2.ListModelsRequest()).models) == []
    server.process.send_signal(number)
    assert ended(health)[1].code() is grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(timeout=60) == 0
    assert server.stop() == 0
