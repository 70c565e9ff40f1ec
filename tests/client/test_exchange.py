"""The client's side of Adapt, without a connection: real messages in and out, and a clock of our own."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
import pytest

import graft
from graft._streams.adapt import AdaptExchange
from graft._streams.limits import BATCH_BYTES, BATCH_WAIT_S, SILENCE_S, Limits
from graft._transport.retry import Backoff, is_resumable, overload_delay_s
from graft.v1 import adaptation_pb2 as pb
from graft.v1 import report_pb2, types_pb2

BROKEN = graft.UnavailableError("Socket closed")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


class Talk:
    """An exchange with what its driver would do around it."""

    def __init__(self, limits: Limits | None = None, **how: bool) -> None:
        self.clock = Clock()
        backoff = Backoff(uniform=lambda _, high: high)
        start = pb.AdaptStart(adaptation_id="a", model="m")
        self.exchange = AdaptExchange(start, "c", limits=limits, backoff=backoff, clock=self.clock, **how)

    def add(self, count: int, text: str = "t") -> None:
        for _ in range(count):
            example = types_pb2.Example(input=types_pb2.Input(text=text), label="x")
            self.exchange.add(pb.ExampleChange(upsert=example))

    def open(self, next_sequence: int = 0) -> None:
        self.exchange.opened()
        assert self.exchange.next_request() == pb.AdaptRequest(
            start=pb.AdaptStart(adaptation_id="a", model="m")
        )
        self.exchange.receive(
            pb.AdaptResponse(started=pb.Started(adaptation_id="a", next_sequence=next_sequence))
        )

    def accept(self, next_sequence: int, rejected: Iterable[pb.Rejection] = ()) -> None:
        accepted = pb.Accepted(next_sequence=next_sequence, rejected=rejected)
        self.exchange.receive(pb.AdaptResponse(accepted=accepted))

    def publish(self, commit_id: str = "c") -> None:
        published = pb.Published(
            commit_id=commit_id, model="m", version=3, summary=report_pb2.Report(examples=9, accuracy=0.5)
        )
        self.exchange.receive(pb.AdaptResponse(published=published))

    def requests(self) -> list[pb.AdaptRequest]:
        sent = []
        while (request := self.exchange.next_request()) is not None:
            sent.append(request)
        return sent

    def batches(self) -> list[tuple[int, int]]:
        """What is sent now: first sequence and number of each batch."""
        batches = [request.examples for request in self.requests()]
        return [(batch.first_sequence, len(batch.changes)) for batch in batches]


def test_nothing_is_sent_after_start_before_the_server_says_where_to_go_on() -> None:
    talk = Talk()
    talk.add(300)
    talk.exchange.opened()
    assert talk.requests()[0].HasField("start")
    assert talk.requests() == []


def test_examples_travel_in_full_batches_and_the_rest_when_there_are_no_more() -> None:
    talk = Talk()
    talk.open()
    talk.add(600)
    assert talk.batches() == [(0, 256), (256, 256)]
    talk.exchange.end()
    assert talk.batches() == [(512, 88)]


def test_a_batch_is_full_at_a_mebibyte_and_a_larger_example_travels_alone() -> None:
    talk = Talk()
    talk.open()
    talk.add(3, "a" * (BATCH_BYTES // 2))
    talk.add(1, "a" * (2 * BATCH_BYTES))
    talk.exchange.end()
    assert talk.batches() == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_slow_source_does_not_hold_its_examples_back() -> None:
    talk = Talk()
    talk.open()
    talk.add(2)
    assert talk.requests() == []
    assert talk.exchange.wait_s() == pytest.approx(BATCH_WAIT_S)
    talk.clock.forward(BATCH_WAIT_S)
    assert talk.exchange.wait_s() == 0.0
    assert talk.batches() == [(0, 2)]
    assert talk.exchange.wait_s() is None


def test_the_window_closes_when_full_and_opens_with_acknowledgements() -> None:
    talk = Talk(Limits(window_examples=10, window_bytes=10_000))
    talk.open()
    talk.add(9)
    assert talk.exchange.has_room
    talk.add(1)
    assert not talk.exchange.has_room
    talk.exchange.end()
    assert talk.batches() == [(0, 10)]
    talk.accept(1)
    assert talk.exchange.has_room


def test_the_window_counts_bytes_and_lets_one_large_example_through() -> None:
    talk = Talk(Limits(window_examples=10, window_bytes=100))
    assert talk.exchange.has_room
    talk.add(1, "a" * 1000)
    assert not talk.exchange.has_room


def test_the_commit_waits_for_the_last_acknowledgement_and_closes() -> None:
    talk = Talk()
    talk.open()
    talk.add(3)
    talk.exchange.end()
    assert talk.batches() == [(0, 3)]
    assert not talk.exchange.half_closed
    talk.accept(2)
    assert talk.requests() == []
    talk.accept(3)
    assert talk.requests() == [pb.AdaptRequest(commit=pb.Commit(commit_id="c", next_sequence=3, close=True))]
    assert talk.exchange.half_closed


def test_no_examples_at_all_are_committed_too() -> None:
    talk = Talk()
    talk.open()
    talk.exchange.end()
    assert talk.requests() == [pb.AdaptRequest(commit=pb.Commit(commit_id="c", next_sequence=0, close=True))]


def test_the_outcome_is_that_of_our_commit() -> None:
    talk = Talk()
    talk.open()
    talk.publish("somebody else's")
    assert not talk.exchange.done
    talk.publish()
    result = talk.exchange.result
    assert result is not None
    assert (result.model, result.version, result.adaptation_id, result.commit_id) == ("m", 3, "a", "c")
    assert (result.report.examples, result.report.accuracy) == (9, 0.5)


def test_a_failed_publication_is_an_error_with_its_code() -> None:
    talk = Talk()
    talk.open()
    failed = pb.PublicationFailed(commit_id="c")
    failed.status.code, failed.status.message = 9, "one class only"
    talk.exchange.receive(pb.AdaptResponse(publication_failed=failed))
    assert isinstance(talk.exchange.failure, graft.FailedPreconditionError)
    assert talk.exchange.failure.message == "one class only"


def test_after_a_break_what_was_not_acknowledged_is_sent_again_in_order() -> None:
    talk = Talk()
    talk.open()
    talk.add(600)
    assert talk.batches() == [(0, 256), (256, 256)]
    talk.accept(256)
    talk.exchange.closed(BROKEN)
    talk.add(10)
    talk.open(next_sequence=300)
    talk.exchange.end()
    assert talk.batches() == [(300, 256), (556, 54)]
    talk.accept(610)
    assert talk.requests()[0].commit.next_sequence == 610


def test_coalesced_acknowledgements_and_repeats_of_old_ones_are_understood() -> None:
    talk = Talk()
    talk.open()
    talk.add(512)
    talk.requests()
    talk.accept(512)
    talk.accept(100)
    assert talk.exchange.progress().acknowledged == 512
    assert talk.exchange.has_room


def test_the_commit_is_repeated_after_a_break() -> None:
    talk = Talk()
    talk.open()
    talk.exchange.end()
    first = talk.requests()
    talk.exchange.receive(pb.AdaptResponse(committed=pb.Committed(commit_id="c")))
    talk.exchange.closed(BROKEN)
    talk.open()
    assert talk.requests() == first


def test_what_an_earlier_process_had_acknowledged_is_skipped() -> None:
    talk = Talk()
    talk.add(100)
    talk.open(next_sequence=400)
    talk.add(350)
    talk.exchange.end()
    assert talk.batches() == [(400, 50)]
    progress = talk.exchange.progress()
    assert (progress.sent, progress.acknowledged) == (450, 400)


def test_a_store_that_forgot_acknowledged_examples_is_an_error() -> None:
    talk = Talk()
    talk.open()
    talk.add(256)
    talk.requests()
    talk.accept(256)
    talk.exchange.closed(BROKEN)
    talk.open(next_sequence=10)
    assert isinstance(talk.exchange.failure, graft.DataLossError)
    assert talk.exchange.failure.reason == "ACKNOWLEDGED_EXAMPLES_LOST"


def test_the_server_may_ask_for_another_call() -> None:
    talk = Talk()
    talk.open()
    talk.exchange.receive(pb.AdaptResponse(reconnect=pb.Reconnect()))
    assert talk.exchange.wants_another_call
    talk.exchange.closed(None)
    talk.open()
    assert not talk.exchange.wants_another_call
    assert talk.exchange.progress().reconnects == 1


def test_a_silent_server_is_left_and_keepalives_break_the_silence() -> None:
    talk = Talk()
    talk.open()
    talk.clock.forward(SILENCE_S - 1)
    talk.exchange.receive(pb.AdaptResponse(progress=pb.Progress()))
    talk.clock.forward(SILENCE_S - 1)
    assert not talk.exchange.wants_another_call
    talk.clock.forward(2)
    assert talk.exchange.wants_another_call


@pytest.mark.parametrize(
    "error",
    [
        graft.AbortedError("another call took over", reason="WRITER_SUPERSEDED", domain="graft"),
        graft.FailedPreconditionError("other settings", reason="START_MISMATCH", domain="graft"),
        graft.InvalidArgumentError("bad name"),
        graft.InternalError("a bug", reason="INTERNAL", domain="graft"),
        graft.InternalError("Exception iterating requests!"),
    ],
)
def test_what_the_server_decided_is_not_tried_again(error: graft.GraftError) -> None:
    talk = Talk()
    talk.open()
    assert talk.exchange.closed(error) == 0.0
    assert talk.exchange.failure is error


@pytest.mark.parametrize(
    "error",
    [
        BROKEN,
        graft.UnavailableError("draining", reason="DRAINING", domain="graft"),
        graft.InternalError("Received RST_STREAM with error code 2"),
        graft.GraftError("Stream removed", code=grpc.StatusCode.UNKNOWN),
        graft.CancelledError("CANCELLED"),
    ],
)
def test_broken_calls_are_resumed(error: graft.GraftError) -> None:
    talk = Talk()
    talk.open()
    assert talk.exchange.closed(error) > 0.0
    assert not talk.exchange.done


def test_waits_grow_and_begin_again_after_progress() -> None:
    talk = Talk()
    waits = []
    for _ in range(3):
        talk.open()
        waits.append(talk.exchange.closed(BROKEN))
    assert waits == [0.1, 0.2, 0.4]
    talk.add(256)
    talk.open()
    talk.requests()
    talk.accept(256)
    assert talk.exchange.closed(BROKEN) == 0.1


def test_an_overloaded_server_is_given_the_time_that_it_asks_for() -> None:
    talk = Talk()
    talk.open()
    assert (
        talk.exchange.closed(graft.ResourceExhaustedError("queue full", domain="graft", retry_after=7.0))
        == 7.0
    )


def test_it_gives_up_after_the_time_without_progress() -> None:
    talk = Talk(Limits(resume_timeout_s=300.0))
    talk.open()
    talk.exchange.receive(pb.AdaptResponse(progress=pb.Progress()))
    talk.clock.forward(299.0)
    talk.open()
    talk.exchange.closed(BROKEN)
    assert not talk.exchange.done
    talk.clock.forward(2.0)
    talk.exchange.closed(BROKEN)
    assert isinstance(talk.exchange.failure, graft.UnavailableError)
    assert "301 s with no progress" in str(talk.exchange.failure)
    assert "Socket closed" in str(talk.exchange.failure)


def test_a_server_that_never_answered_is_given_less_time() -> None:
    talk = Talk(Limits(connect_timeout_s=20.0))
    talk.exchange.opened()
    talk.clock.forward(21.0)
    talk.exchange.closed(BROKEN)
    assert "no answer" in str(talk.exchange.failure)


def alive(talk: Talk) -> None:
    """The server shows that it is there, and nothing else."""
    talk.exchange.receive(pb.AdaptResponse(progress=pb.Progress()))
    talk.exchange.give_up_if_overdue()


def test_being_kept_alive_is_not_being_acknowledged() -> None:
    talk = Talk(Limits(resume_timeout_s=300.0))
    talk.open()
    talk.add(3)
    talk.exchange.end()
    talk.requests()
    for _ in range(15):
        talk.clock.forward(20)
        alive(talk)
        assert not talk.exchange.done
        assert not talk.exchange.wants_another_call
    talk.clock.forward(20)
    alive(talk)
    assert isinstance(talk.exchange.failure, graft.UnavailableError)
    assert "acknowledged none" in talk.exchange.failure.message


def test_a_slow_source_and_a_slow_training_are_not_the_servers_debt() -> None:
    talk = Talk(Limits(resume_timeout_s=300.0))
    talk.open()
    for _ in range(100):
        talk.clock.forward(20)
        alive(talk)
    talk.add(1)
    talk.exchange.end()
    talk.requests()
    alive(talk)
    talk.accept(1)
    talk.requests()
    talk.exchange.receive(pb.AdaptResponse(committed=pb.Committed(commit_id="c")))
    for _ in range(100):
        talk.clock.forward(20)
        alive(talk)
    assert not talk.exchange.done
    talk.publish()
    assert talk.exchange.result is not None


def test_a_stream_that_was_idle_for_long_is_resumed_when_it_breaks() -> None:
    talk = Talk(Limits(resume_timeout_s=300.0))
    talk.open()
    for _ in range(100):
        talk.clock.forward(20)
        alive(talk)
    talk.exchange.closed(BROKEN)
    assert not talk.exchange.done


def test_appended_examples_follow_on_what_was_sent_before() -> None:
    talk = Talk(append=True, close=False)
    talk.add(2)
    talk.open(next_sequence=7)
    talk.exchange.end()
    assert talk.batches() == [(7, 2)]
    assert talk.exchange.progress().acknowledged == 0
    talk.accept(9)
    assert talk.exchange.progress().acknowledged == 2
    (request,) = talk.requests()
    assert (request.commit.next_sequence, request.commit.close) == (9, False)


def test_outcomes_of_the_servers_own_commits_are_told_and_do_not_end_the_exchange() -> None:
    talk = Talk()
    talk.open()
    talk.publish("auto:1")
    talk.exchange.receive(
        pb.AdaptResponse(publication_failed=pb.PublicationFailed(commit_id="auto:2", status={"code": 9}))
    )
    first, second = talk.exchange.take_outcomes()
    assert (first.commit_id, first.version, first.error) == ("auto:1", 3, None)
    assert (second.commit_id, second.version) == ("auto:2", 0)
    assert isinstance(second.error, graft.FailedPreconditionError)
    assert talk.exchange.progress().version == 3
    assert talk.exchange.take_outcomes() == []
    assert not talk.exchange.done


def test_figures_of_the_stream_are_in_the_progress() -> None:
    talk = Talk()
    talk.open()
    progress = pb.Progress(stage="streaming", metrics={"prequential_accuracy": 0.5})
    talk.exchange.receive(pb.AdaptResponse(progress=progress))
    assert talk.exchange.progress().metrics == {"prequential_accuracy": 0.5}
    assert talk.exchange.progress().stage == "streaming"


def test_rejections_are_collected_once_in_order() -> None:
    talk = Talk()
    talk.open()
    talk.add(256)
    talk.requests()
    talk.accept(
        100, [pb.Rejection(sequence=7, reason="INPUT_EMPTY"), pb.Rejection(sequence=3, reason="LABEL_EMPTY")]
    )
    talk.accept(256, [pb.Rejection(sequence=7, reason="INPUT_EMPTY")])
    talk.publish()
    assert talk.exchange.result is not None
    assert [rejection.sequence for rejection in talk.exchange.result.rejected] == [3, 7]
    assert talk.exchange.result.rejected_count == 2
    assert not talk.exchange.may_lack_rejections


def test_after_a_resume_the_events_complete_the_rejections() -> None:
    talk = Talk()
    talk.open(next_sequence=5)
    talk.publish()
    assert talk.exchange.may_lack_rejections
    ours, theirs = pb.Rejection(sequence=2, writer_id="default"), pb.Rejection(sequence=9, writer_id="other")
    events = [
        pb.WatchAdaptationResponse(event=1, rejected=pb.Rejections(rejected=[ours])),
        pb.WatchAdaptationResponse(event=2, rejected=pb.Rejections(rejected=[theirs])),
        pb.WatchAdaptationResponse(event=3, committed=pb.Committed(commit_id="c")),
    ]
    talk.exchange.complete_rejections(events)
    assert talk.exchange.result is not None
    assert [rejection.sequence for rejection in talk.exchange.result.rejected] == [2]


def test_progress_tells_the_stages_in_turn() -> None:
    talk = Talk()
    stages = [talk.exchange.progress().stage]
    talk.open()
    stages.append(talk.exchange.progress().stage)
    talk.exchange.receive(pb.AdaptResponse(committed=pb.Committed(commit_id="c")))
    stages.append(talk.exchange.progress().stage)
    progress = pb.Progress(commit_id="c", stage="selecting", fraction=0.5, metrics={"examples": 616})
    progress.eta.seconds = 2
    talk.exchange.receive(pb.AdaptResponse(progress=progress))
    now = talk.exchange.progress()
    assert (now.fraction, now.metrics, now.eta_s) == (0.5, {"examples": 616.0}, 2.0)
    stages.append(now.stage)
    talk.publish()
    stages.append(talk.exchange.progress().stage)
    assert stages == ["connecting", "streaming", "committed", "selecting", "published"]


def test_overload_is_waited_out_for_a_bounded_number_of_times_within_the_deadline() -> None:
    full = graft.ResourceExhaustedError("queue full", retry_after=2.0)
    assert overload_delay_s(full, 0, None) == 2.0
    assert overload_delay_s(full, 4, None) is None
    assert overload_delay_s(full, 0, 1.5) is None
    assert overload_delay_s(graft.ResourceExhaustedError("message too large"), 0, None) is None
    assert overload_delay_s(graft.UnavailableError("x", retry_after=2.0), 0, None) is None


def test_a_message_over_the_transports_limit_is_not_resumed() -> None:
    assert not is_resumable(graft.ResourceExhaustedError("Received message larger than max"))
