"""What a request may bring: bytes, parts, metadata, compression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, prediction_pb2_grpc, types_pb2
from graft_server.domain.errors import DomainError, InvalidError, TooLargeError
from graft_server.frontends.grpc.converters.requests import MAX_REQUEST_ID, streamed_request
from graft_server.frontends.grpc.handlers import Malformed
from graft_server.frontends.grpc.sizes import MAX_METADATA_BYTES, MAX_REQUEST_BYTES, check_message

MIB = 1 << 20


def block(number: int, body: bytes = b"", *, long: bool = False) -> bytes:
    """A field with a length; `long` writes its number in more bytes than it needs."""
    tag = number << 3 | 2
    return (bytes((tag | 0x80, 0)) if long else bytes((tag,))) + length(len(body)) + body


def length(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*written, number))


def refused(data: bytes, kind: Descriptor, most: int = MAX_REQUEST_BYTES) -> str:
    """The reason for which a message is refused, or ""."""
    try:
        check_message(data, kind, most)
    except DomainError as error:
        return error.reason
    return ""


PREDICT = prediction_pb2.PredictRequest.DESCRIPTOR
STREAM = prediction_pb2.PredictStreamRequest.DESCRIPTOR
ADAPT = adaptation_pb2.AdaptRequest.DESCRIPTOR
EVALUATE = model_pb2.EvaluateModelRequest.DESCRIPTOR
ERASE = model_pb2.DeleteExamplesRequest.DESCRIPTOR

BOMBS: dict[str, tuple[bytes, Descriptor]] = {
    "empty inputs": (block(5) * (2 * MIB), PREDICT),
    "empty inputs with long tags": (block(5, long=True) * MIB, PREDICT),
    "inputs of another kind each time": (block(5, (block(2) + block(5)) * MIB), PREDICT),
    "with lengths that are longer than they need": (b"\x2a\x80\x00" * MIB, PREDICT),
    "inputs with something unknown": (block(5, b"\x78\x01") * MIB, PREDICT),
    "inputs with more that is unknown": (block(5, b"\x78\x01" * 10) * MIB, PREDICT),
    "in a stream": (block(2, block(5) * (2 * MIB)), STREAM),
    "empty changes": (block(2, block(2) * (2 * MIB)), ADAPT),
    "empty labels": (block(1, block(6) * (2 * MIB)), ADAPT),
    "empty examples": (block(4) * (2 * MIB), EVALUATE),
    "empty ids": (block(2) * (2 * MIB), ERASE),
}


@pytest.mark.parametrize(("data", "kind"), BOMBS.values(), ids=BOMBS.keys())
def test_messages_of_countless_parts_are_refused(data: bytes, kind: Descriptor) -> None:
    assert refused(data, kind) == "REQUEST_TOO_FRAGMENTED"


def texts(count: int, text: str) -> bytes:
    inputs = [types_pb2.Input(text=text)] * count
    return prediction_pb2.PredictRequest(model="m", inputs=inputs).SerializeToString()


def changes(count: int, **fields: Any) -> bytes:
    example = types_pb2.Example(**fields)
    batch = adaptation_pb2.ExampleBatch(changes=[adaptation_pb2.ExampleChange(upsert=example)] * count)
    return adaptation_pb2.AdaptRequest(examples=batch).SerializeToString()


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


PROPER: dict[str, tuple[Callable[[], bytes], Descriptor]] = {
    "10,000 short texts": (lambda: texts(10_000, "hi"), PREDICT),
    "texts of what begins a part": (lambda: texts(100, "*\n\x12" * 60_000), PREDICT),
    "pictures": (
        lambda: prediction_pb2.PredictRequest(
            inputs=[types_pb2.Input(image=noise(5 * MIB))] * 3
        ).SerializeToString(),
        PREDICT,
    ),
    "features": (
        lambda: prediction_pb2.PredictRequest(
            inputs=[types_pb2.Input(features=types_pb2.FeatureVector(values=[0.1] * 4096))] * 1_000
        ).SerializeToString(),
        PREDICT,
    ),
    "10,000 examples": (lambda: changes(10_000, input=types_pb2.Input(text="hi"), label="a", id="1"), ADAPT),
    "soft labels": (
        lambda: changes(
            1_000,
            input=types_pb2.Input(text="hi"),
            distribution=types_pb2.Distribution(
                labels=[types_pb2.LabelProbability(label="a", probability=0.1)] * 300
            ),
        ),
        ADAPT,
    ),
    "10,000 ids": (
        lambda: model_pb2.DeleteExamplesRequest(ids=[f"{n}" for n in range(10_000)]).SerializeToString(),
        ERASE,
    ),
    "what cannot be parsed": (lambda: noise(3 * MIB), PREDICT),
}


@pytest.mark.parametrize(("data", "kind"), PROPER.values(), ids=PROPER.keys())
def test_large_messages_of_real_work_are_taken(data: Callable[[], bytes], kind: Descriptor) -> None:
    assert refused(data(), kind) == ""


def test_every_kind_of_list_in_requests_is_counted() -> None:
    """Numbers in lists take no more memory than bytes, as long as they are floats."""
    seen: set[str] = set()

    def look(kind: Descriptor) -> None:
        if kind.full_name in seen:
            return
        seen.add(kind.full_name)
        for field in kind.fields:
            if field.message_type is not None:
                look(field.message_type)
            elif field.is_repeated:
                assert field.type in (field.TYPE_FLOAT, field.TYPE_STRING, field.TYPE_BYTES), field.full_name

    for file in (adaptation_pb2, model_pb2, prediction_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                look(method.input_type)
    assert len(seen) > 20


def test_a_message_has_the_bytes_that_its_method_needs() -> None:
    assert refused(bytes(100), PREDICT, 99) == "REQUEST_TOO_LARGE"
    assert refused(bytes(100), PREDICT, 100) == ""
    assert TooLargeError is not InvalidError


# ---------------------------------------------------------------------------------------------- on the wire


def test_a_method_that_takes_a_name_takes_no_more(wire: Any) -> None:
    for method, message in (
        (wire.model.GetModel, model_pb2.GetModelRequest(model="m" * MIB)),
        (health_pb2_grpc.HealthStub(wire.channel).Check, health_pb2.HealthCheckRequest(service="m" * MIB)),
    ):
        failure = wire.fails(method, message)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


def test_a_stream_goes_on_after_a_message_of_countless_parts(wire: Any, few_model: str) -> None:
    """As after one that cannot be parsed; its sender learns which one it was."""
    stream = wire.channel.stream_stream(
        "/graft.v1.PredictionService/PredictStream", None, prediction_pb2.PredictStreamResponse.FromString
    )
    asked = prediction_pb2.PredictRequest(model=few_model, inputs=[types_pb2.Input(text="the lock")])
    good = prediction_pb2.PredictStreamRequest(request_id="good", request=asked).SerializeToString()
    answers = {
        it.request_id: it
        for it in stream(iter([block(1, b"bad") + block(2, block(5) * MIB), good]), timeout=120)
    }
    assert wire.failure(answers["bad"].error).reason == "REQUEST_TOO_FRAGMENTED"
    assert answers["good"].response.results


def test_a_stream_goes_on_after_an_id_that_no_answer_could_carry(wire: Any, few_model: str) -> None:
    stream = prediction_pb2_grpc.PredictionServiceStub(wire.channel).PredictStream
    asked = prediction_pb2.PredictRequest(model=few_model, inputs=[types_pb2.Input(text="the lock")])
    whole, cut = "w" * MAX_REQUEST_ID, "c" * MAX_REQUEST_ID
    sent = [prediction_pb2.PredictStreamRequest(request_id=it, request=asked) for it in (cut * 8192, whole)]
    answers = {it.request_id: it for it in stream(iter(sent), timeout=120)}
    assert wire.failure(answers[cut].error).reason == "REQUEST_ID_TOO_LONG"
    assert answers[whole].response.results
    assert streamed_request(Malformed("any", block(1, cut.encode() * 8192))).request_id == cut


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_refused_before_they_are_inflated(
    server: Any, wire: Any, compression: grpc.Compression
) -> None:
    before = peak_bytes(server.process.pid)
    zeros = bytes(64 * MIB)
    for service in ("grpc.health.v1.Health/Check", "graft.v1.PredictionService/Predict", "no.Such/Method"):
        call = wire.channel.unary_unary(f"/{service}", None, None)
        with pytest.raises(grpc.RpcError) as raised:
            call(zeros, compression=compression, timeout=120)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert peak_bytes(server.process.pid) - before < len(zeros)
    assert not [line for line in server.log if "ompression" in line]  # nor does it fill the log


def peak_bytes(pid: int) -> int:
    """The most memory that a process had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


METADATA: dict[str, Callable[[int], list[tuple[str, str]]]] = {
    "one": lambda size: [("k", "v" * (size - 1))],
    "many": lambda size: [("k", "v" * 63)] * (size // 64 - 1) + [("k", "v" * (63 + size % 64))],
}


@pytest.mark.parametrize("shape", METADATA.values(), ids=METADATA.keys())
def test_metadata_of_16_kib_is_taken_always_and_more_never(wire: Any, shape: Any) -> None:
    check = health_pb2_grpc.HealthStub(wire.channel).Check
    for _ in range(20):
        check(health_pb2.HealthCheckRequest(), metadata=shape(MAX_METADATA_BYTES), timeout=60)
    for size in (MAX_METADATA_BYTES + 1, 2 * MAX_METADATA_BYTES, 4 * MAX_METADATA_BYTES):
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as raised:
                check(health_pb2.HealthCheckRequest(), metadata=shape(size), timeout=60)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


LONG = "long" * 14


def test_a_version_with_many_aliases_says_why_it_cannot_be_deleted(wire: Any, model: str, few: Any) -> None:
    wire.publish(model, few)
    for number in range(120):
        wire.model.SetAlias(model_pb2.SetAliasRequest(model=model, alias=f"{LONG}-{number}", version=1))
    failure = wire.fails(wire.model.DeleteVersion, model_pb2.DeleteVersionRequest(model=model, version=1))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_IN_USE")
    assert "and 111 more" in failure.message
