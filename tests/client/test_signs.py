"""What a server says while it is at work counts as progress, and is shown."""

from __future__ import annotations

from typing import Any

import pytest

import graft
from graft._client.bundle import BundleWriter
from graft._client.exporting import Export
from graft._client.operations import Selector
from graft._streams.adapt import AdaptExchange
from graft._streams.limits import Limits
from graft._streams.predict import PredictExchange
from graft._streams.watch import WatchCursor
from graft._transport.progress_timeout import Cursor, ProgressTimeout, keep_alive_s
from graft._transport.retry import Backoff
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2

BROKEN = graft.UnavailableError("Socket closed")
LOADING = types_pb2.Activity(stage="loading the backbone minilm")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def patient(clock: Clock) -> ProgressTimeout:
    backoff = Backoff(uniform=lambda _, high: high)
    return ProgressTimeout(
        "word", connect_timeout_s=20.0, resume_timeout_s=300.0, backoff=backoff, clock=clock
    )


def test_a_silent_call_is_waited_for_as_long_as_it_may_be_and_no_longer() -> None:
    clock = Clock()
    progress_timeout = patient(clock)
    clock.now += 299
    assert progress_timeout.left_s() == 1
    progress_timeout.progressed()
    assert progress_timeout.left_s() == 300
    clock.now += 300
    with pytest.raises(graft.UnavailableError, match="No word came for 300 s") as raised:
        progress_timeout.left_s()
    assert raised.value.reason == "NO_PROGRESS"


def test_the_time_that_a_caller_takes_over_a_message_is_not_the_servers() -> None:
    clock = Clock()
    progress_timeout = patient(clock)
    clock.now += 1000
    progress_timeout.restarted()
    assert progress_timeout.left_s() == 300


def test_calls_that_break_are_repeated_for_longer_once_there_was_an_answer() -> None:
    clock = Clock()
    progress_timeout = patient(clock)
    assert progress_timeout.broken(BROKEN) == 0.1
    clock.now += 20
    with pytest.raises(graft.UnavailableError, match=r"^Socket closed; gave up after 20 s with no answer"):
        progress_timeout.broken(BROKEN)
    progress_timeout.progressed()
    clock.now += 299.5
    assert progress_timeout.broken(BROKEN) <= 0.5
    clock.now += 1
    with pytest.raises(graft.UnavailableError, match="with no progress"):
        progress_timeout.broken(BROKEN)


def test_what_a_server_decided_is_not_repeated() -> None:
    with pytest.raises(graft.NotFoundError):
        patient(Clock()).broken(graft.NotFoundError("no such model", domain="graft"))


def test_a_deadline_is_that_of_all_calls_together() -> None:
    clock = Clock()
    cursor = Cursor(patient(clock), 30.0)
    clock.now += 10
    assert cursor.deadline_s() == 20
    clock.now += 30
    assert cursor.deadline_s() == 0
    assert Cursor(patient(clock)).deadline_s() is None


def test_signs_are_asked_for_several_times_within_the_bound() -> None:
    assert (keep_alive_s(300.0), keep_alive_s(3.0)) == (20.0, 1.0)


def test_a_watcher_is_not_told_that_the_server_is_there() -> None:
    cursor = WatchCursor("m", "a", 0, connect_timeout_s=20.0, resume_timeout_s=30.0)
    assert cursor.request().keep_alive.ToMilliseconds() == 10_000
    sign = adaptation_pb2.WatchAdaptationResponse(progress=adaptation_pb2.Progress())
    assert cursor.receive(sign) is None
    sign.progress.stage = "encoding"
    event = cursor.receive(sign)
    assert event is not None
    assert event.kind == "progress"


def test_a_bulk_prediction_waits_while_a_backbone_is_loaded() -> None:
    shown: list[str] = []
    exchange = PredictExchange(timeout_s=60.0, connect_timeout_s=20.0, on_progress=shown.append)
    exchange.add(prediction_pb2.PredictRequest(model="m"))
    exchange.opened()
    request = exchange.next_request()
    assert request is not None
    assert request.keep_alive.ToMilliseconds() == 20_000
    for _ in range(5):
        exchange.waited(50.0)
        exchange.receive(prediction_pb2.PredictStreamResponse(activity=LOADING))
    exchange.receive(prediction_pb2.PredictStreamResponse(activity=types_pb2.Activity()))
    assert shown == [LOADING.stage] * 5
    with pytest.raises(graft.DeadlineExceededError):
        exchange.waited(61.0)


def test_an_export_shows_what_is_done_before_the_first_piece(tmp_path: Any) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        export = Export(
            "m", Selector(), writer, connect_timeout_s=20.0, resume_timeout_s=300.0, timeout_s=None
        )
        assert export.request().keep_alive.ToMilliseconds() == 20_000
        assert export.receive(model_pb2.ExportModelResponse(activity=LOADING)) == (LOADING.stage, 0)
        assert export.receive(model_pb2.ExportModelResponse(activity=types_pb2.Activity())) is None


def adapting(clock: Clock) -> AdaptExchange:
    limits = Limits(connect_timeout_s=20.0, resume_timeout_s=300.0)
    start = adaptation_pb2.AdaptStart(adaptation_id="a", model="m")
    exchange = AdaptExchange(start, "c", limits=limits, clock=clock)
    exchange.opened()
    return exchange


def test_an_adaptation_waits_while_a_backbone_is_loaded_before_it_starts() -> None:
    clock = Clock()
    exchange = adapting(clock)
    loading = adaptation_pb2.AdaptResponse(progress=adaptation_pb2.Progress(stage="loading the backbone"))
    for _ in range(30):
        clock.now += 50
        exchange.receive(loading)
        exchange.give_up_if_overdue()
        assert not exchange.wants_another_call
        assert not exchange.done
    assert exchange.progress().stage == "loading the backbone"
    assert exchange.closed(BROKEN) > 0
    exchange.opened()
    started = adaptation_pb2.Started(adaptation_id="a", next_sequence=0)
    exchange.receive(adaptation_pb2.AdaptResponse(started=started))
    assert exchange.progress().stage == "streaming"


def test_a_server_that_keeps_a_call_alive_and_does_not_answer_the_start_is_given_up() -> None:
    clock = Clock()
    exchange = adapting(clock)
    for _ in range(31):
        clock.now += 10
        exchange.receive(adaptation_pb2.AdaptResponse(progress=adaptation_pb2.Progress()))
        exchange.give_up_if_overdue()
    assert exchange.failure is not None
    assert "did not answer the start" in exchange.failure.message


def test_a_server_that_takes_a_call_and_says_nothing_is_left_after_the_first_answers_time() -> None:
    clock = Clock()
    exchange = adapting(clock)
    clock.now += 21
    assert exchange.wants_another_call
    exchange.closed(None)
    assert exchange.failure is not None
    assert "no answer" in exchange.failure.message
