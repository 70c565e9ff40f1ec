"""What a bulk prediction asks, waits for and gives up, without any network: time goes by as a test says."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import graft
from graft._streams.predict import PredictExchange
from graft._transport.retry import Backoff
from graft.v1 import prediction_pb2 as pb


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def exchange(
    clock: Clock | None = None, *, timeout_s: float | None = 60.0, questions: int = 3
) -> PredictExchange:
    backoff = Backoff(uniform=lambda _, ceiling: ceiling)
    it = PredictExchange(timeout_s=timeout_s, connect_timeout_s=20.0, backoff=backoff, clock=clock or Clock())
    for number in range(questions):
        it.add(pb.PredictRequest(model=f"m{number}"))
    it.opened()
    return it


def sent(it: PredictExchange) -> list[str]:
    """The ids of what is to be sent now."""
    ids = []
    while (request := it.next_request()) is not None:
        ids.append(request.request_id)
    return ids


def answered(request_id: str, version: int = 1) -> pb.PredictStreamResponse:
    response = pb.PredictResponse(version=version, results=[pb.Prediction()])
    return pb.PredictStreamResponse(request_id=request_id, response=response)


def overloaded(request_id: str, seconds: int) -> pb.PredictStreamResponse:
    delay, info = AnyMessage(), AnyMessage()
    delay.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    info.Pack(error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="graft"))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    return pb.PredictStreamResponse(
        request_id=request_id, error=status_pb2.Status(code=code, details=[info, delay])
    )


def versions(it: PredictExchange) -> list[int]:
    return [prediction.version for prediction in it.ready()]


def test_answers_that_come_out_of_order_are_given_out_in_order() -> None:
    it = exchange()
    assert sent(it) == ["0", "1", "2"]
    it.receive(answered("2", 12))
    it.receive(answered("1", 11))
    assert versions(it) == []
    it.receive(answered("0", 10))
    assert versions(it) == [10, 11, 12]
    assert not it.waiting


def test_no_more_than_a_few_are_held() -> None:
    it = exchange(questions=8)
    assert not it.has_room
    it.receive(answered("3"))
    assert not it.has_room
    it.receive(answered("0"))
    assert len(versions(it)) == 1
    assert it.has_room


def test_after_a_break_what_has_no_answer_is_asked_again() -> None:
    it = exchange()
    sent(it)
    it.receive(answered("1", 11))
    assert it.broken(graft.UnavailableError("gone")) > 0
    it.opened()
    assert sent(it) == ["0", "2"]
    it.receive(answered("0", 10))
    it.receive(answered("1", 99))  # the old call's, late
    it.receive(answered("2", 12))
    assert versions(it) == [10, 11, 12]


def test_an_overloaded_server_is_asked_again_when_it_said() -> None:
    clock = Clock()
    it = exchange(clock, questions=1)
    sent(it)
    it.receive(overloaded("0", seconds=3))
    assert sent(it) == []
    assert it.wait_s() == pytest.approx(3)
    clock.now = 3.0
    assert sent(it) == ["0"]


def test_a_server_that_stays_overloaded_is_given_up() -> None:
    clock = Clock()
    it = exchange(clock, questions=1)
    with pytest.raises(graft.ResourceExhaustedError):  # noqa: PT012 - at whichever of them
        for _ in range(10):
            assert sent(it) == ["0"]
            it.receive(overloaded("0", seconds=1))
            clock.now += 1


def test_a_refusal_is_raised() -> None:
    it = exchange()
    code = grpc.StatusCode.NOT_FOUND.value[0]
    with pytest.raises(graft.NotFoundError):
        it.receive(pb.PredictStreamResponse(request_id="0", error=status_pb2.Status(code=code)))


def test_a_call_that_the_server_refuses_is_not_repeated() -> None:
    with pytest.raises(graft.UnauthenticatedError):
        exchange().broken(graft.UnauthenticatedError("who are you?", domain="graft"))


def test_without_an_answer_it_gives_up_after_the_timeout_and_an_answer_begins_it_anew() -> None:
    it = exchange(timeout_s=10.0)
    it.waited(9.0)
    it.receive(answered("0"))
    it.waited(9.0)
    with pytest.raises(graft.DeadlineExceededError):
        it.waited(2.0)


def test_a_server_that_never_answered_is_given_less_time() -> None:
    it = exchange(timeout_s=None)
    it.waited(21.0)
    with pytest.raises(graft.UnavailableError):
        it.broken(graft.UnavailableError("nobody there"))
    it.receive(answered("0"))
    it.waited(21.0)
    assert it.broken(graft.UnavailableError("gone")) > 0
