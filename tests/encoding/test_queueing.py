"""The batching policy, without threads, event loop or clock: from what is queued and the time to the next batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from graft_server.backbones.text.packing import cost
from graft_server.domain.caller import new_call
from graft_server.domain.errors import OverloadError
from graft_server.encoding.fair_queue import Submission
from graft_server.encoding.queueing import (
    ADAPT_SHARE,
    BRIEF,
    BRIEF_S,
    FREE_S,
    LOOKAHEAD,
    Batch,
    Decision,
    Lane,
    Limits,
    Queues,
    admission,
    idle_s,
    next_batch,
)

PRICE = partial(cost, dimension=384)
LONG_AGO, NOW = 0.0, 1_000.0


def reader(features: Any) -> Any:
    return features


def submission(*lengths: int, **other: Any) -> Submission:
    fields: dict[str, Any] = {
        "reader": reader,
        "tuned": None,
        "deadline": math.inf,
        "is_over": lambda: False,
        **other,
    }
    return Submission([range(length) for length in lengths], **fields)


def queued(*submissions: Submission, lane: Lane = Lane.PREDICT, at: float = LONG_AGO) -> Queues:
    queues = Queues()
    for it in submissions:
        queues.put(it, lane, at)
    return queues


def take(queues: Queues, *, budget: float = 64, workers: int = 1, now: float = NOW) -> Decision:
    decision = next_batch(queues, Limits(budget, workers), PRICE, now)
    queues.begin(decision)
    return decision


def rows(queues: Queues, lane: Lane = Lane.PREDICT) -> list[Any]:
    return [
        row
        for identity in queues.lanes[lane].identities.members.values()
        for call in identity.calls.members.values()
        for row in call.rows
    ]


def refusal(queues: Queues, limits: Limits) -> OverloadError | None:
    """What a caller is told who asks for as much as all others together."""
    found = admission(queues, limits, new_call(), 1_000)
    assert not isinstance(found, Submission)
    return found


def lengths(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [len(it.items[row]) for it, rows in batch.parts() for row in rows]


def all_batches(
    queues: Queues, after: Callable[[Batch], None] = lambda _: None, **limits: Any
) -> list[Batch]:
    batches = []
    while (batch := take(queues, **limits).batch) is not None:
        batches.append(batch)
        queues.end(batch)
        after(batch)
    return batches


def test_of_an_empty_queue_there_is_no_batch():
    decision = take(Queues())
    assert decision.batch is None
    assert not any(it.taken or it.kept or it.dropped or it.expired for it in decision.choices)


def test_deciding_changes_nothing():
    queues = queued(submission(5, 9), submission(4, is_over=lambda: True), submission(7, deadline=NOW - 1))
    before = rows(queues)
    decisions = [next_batch(queues, Limits(64, 1), PRICE, NOW) for _ in range(2)]
    assert [lengths(it.batch) for it in decisions] == [[5, 9], [5, 9]]
    assert rows(queues) == before
    assert (queues.lanes[Lane.PREDICT].length, queues.lanes[Lane.PREDICT].requests) == (25, 3)


def test_a_batch_is_all_that_waits_where_the_budget_allows_it():
    queues = queued(submission(5), submission(9), submission(4, 7))
    batch = take(queues).batch
    assert sorted(lengths(batch)) == [4, 5, 7, 9]
    assert batch is not None
    assert (batch.lane, batch.length) == (Lane.PREDICT, 25)
    assert (queues.lanes[Lane.PREDICT].length, queues.lanes[Lane.PREDICT].requests) == (0, 0)


def test_batches_cost_no_more_than_the_budget_and_no_row_is_lost():
    batches = all_batches(queued(submission(*range(3, 40))), budget=100)
    for batch in batches:
        rows = lengths(batch)
        assert len(rows) == 1 or PRICE(len(rows), sum(rows), max(rows)) <= 100
    assert sorted(length for batch in batches for length in lengths(batch)) == list(range(3, 40))
    assert len(batches) < 15


def test_a_row_beyond_the_budget_is_a_batch_of_its_own():
    batches = all_batches(queued(submission(4), submission(200), submission(4)))
    assert [lengths(it) for it in batches] == [[4, 4], [200]]


def test_batch_mates_are_those_nearest_in_length_to_the_row_that_waited_longest():
    queues = queued(*[submission(length) for length in (9, 30, 8, 31, 10, 9)])
    assert [lengths(it) for it in all_batches(queues, budget=40)] == [[9, 8, 10, 9], [30], [31]]


def test_rows_that_were_passed_over_keep_their_place():
    queues = queued(submission(5), submission(60), *[submission(5) for _ in range(40)])
    first, second = (lengths(take(queues).batch) for _ in range(2))
    assert set(first) == {5}
    assert 60 in second


def test_mates_are_looked_for_in_the_head_of_the_queue_alone():
    budget = 64
    far = LOOKAHEAD * budget // 30 + 1
    queues = queued(submission(4), *[submission(30) for _ in range(far)], submission(4))
    assert lengths(take(queues, budget=budget).batch)[0] == 4
    assert [len(it.items[row]) for it, row in rows(queues)][-1] == 4


@pytest.mark.parametrize(("workers", "size"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_a_batch_is_a_workers_share_of_the_queue(workers, size):
    queues = queued(*[submission(10) for _ in range(8)])
    assert len(lengths(take(queues, budget=10_000, workers=workers).batch)) == size


def test_rows_whose_caller_left_are_dropped_and_their_mates_are_not():
    left = submission(7, 7, is_over=lambda: True)
    queues = queued(left, submission(8))
    decision = take(queues)
    assert lengths(decision.batch) == [8]
    assert [it for choice in decision.choices for it, _ in choice.dropped] == [left, left]
    assert not any(choice.expired for choice in decision.choices)
    assert (queues.lanes[Lane.PREDICT].length, queues.lanes[Lane.PREDICT].requests) == (0, 0)


def test_rows_that_expired_are_dropped_and_their_submission_is_named_once():
    late = submission(7, 7, 7, deadline=NOW - 0.001)
    on_time = submission(8, deadline=NOW)
    decision = take(queued(late, on_time))
    assert lengths(decision.batch) == [8]
    assert [choice.expired for choice in decision.choices] == [[late]]


def test_who_left_and_is_late_besides_hears_of_nothing():
    queues = queued(submission(7, deadline=NOW - 1, is_over=lambda: True))
    decision = take(queues)
    assert decision.batch is None
    assert not any(choice.expired for choice in decision.choices)
    assert queues.lanes[Lane.PREDICT].requests == 0


def test_dropped_rows_do_not_use_up_the_lookahead():
    queues = queued(*[submission(64, is_over=lambda: True) for _ in range(100)], submission(5))
    assert lengths(take(queues).batch) == [5]


def test_what_is_left_of_a_submission_is_dropped_once_it_is_over():
    over: list[bool] = []
    queues = queued(submission(*[20] * 100, is_over=lambda: bool(over)), submission(3))
    assert set(lengths(take(queues).batch)) == {20}
    over.append(True)
    assert lengths(take(queues).batch) == [3]
    assert queues.lanes[Lane.PREDICT].length == 0


def test_predictions_go_first():
    queues = queued(submission(7), lane=Lane.ADAPT)
    queues.put(submission(8), Lane.PREDICT, LONG_AGO)
    assert [lengths(it) for it in all_batches(queues)] == [[8], [7]]


def test_where_no_prediction_can_run_adaptation_does():
    queues = queued(submission(7), lane=Lane.ADAPT)
    queues.put(submission(8, is_over=lambda: True), Lane.PREDICT, LONG_AGO)
    queues.put(submission(9, deadline=NOW - 1), Lane.PREDICT, LONG_AGO)
    decision = take(queues)
    assert lengths(decision.batch) == [7]
    assert [len(choice.dropped) for choice in decision.choices] == [2, 0]


def test_adaptation_has_its_share_while_predictions_queue():
    queues = queued(*[submission(8) for _ in range(600)])
    for _ in range(200):
        queues.put(submission(7), Lane.ADAPT, LONG_AGO)
    batches = all_batches(queues, lambda batch: queues.account(batch, 0.01, workers=1))
    last = max(place for place, batch in enumerate(batches) if batch.lane is Lane.PREDICT)
    while_queueing = batches[: last + 1]
    adapted = sum(batch.length for batch in while_queueing if batch.lane is Lane.ADAPT)
    share = adapted / sum(batch.length for batch in while_queueing)
    assert share == pytest.approx(ADAPT_SHARE, abs=0.03)
    assert sum(len(lengths(it)) for it in batches) == 800


def test_adaptation_is_owed_nothing_while_none_of_it_waits():
    queues = queued(*[submission(8) for _ in range(100)])
    all_batches(queues, lambda batch: queues.account(batch, 0.01, workers=1))
    assert queues.adapt_credit == 0


@pytest.mark.parametrize(("since_s", "brief"), [(BRIEF_S / 2, True), (BRIEF_S * 2, False), (math.inf, False)])
def test_batches_of_adaptation_are_short_while_predictions_come_in(since_s, brief):
    queues = queued(submission(*[7] * 40), lane=Lane.ADAPT)
    queues.last_prediction = NOW - since_s
    rows = lengths(take(queues, budget=128).batch)
    price = PRICE(len(rows), sum(rows), max(rows))
    assert (price <= BRIEF * 128) == brief
    assert price <= 128


@pytest.mark.parametrize(("workers", "running"), [(1, 1), (2, 1), (4, 3)])
def test_one_worker_is_kept_free_of_adaptation_right_after_a_prediction(workers, running):
    queues = queued(*[submission(*[7] * 40) for _ in range(8)], lane=Lane.ADAPT)
    queues.last_prediction = NOW
    batches = [take(queues, workers=workers).batch for _ in range(running)]
    assert all(it is not None for it in batches)
    assert take(queues, workers=workers).batch is None
    assert idle_s(queues, NOW) == FREE_S
    later = NOW + FREE_S
    assert idle_s(queues, later) == 0
    assert take(queues, workers=workers, now=later).batch is not None


def test_the_worker_that_was_kept_free_runs_predictions_and_adaptation_once_a_batch_of_it_ended():
    queues = queued(submission(*[7] * 40), lane=Lane.ADAPT)
    queues.last_prediction = NOW
    running = take(queues, workers=2).batch
    assert take(queues, workers=2).batch is None
    queues.put(submission(9), Lane.PREDICT, NOW)
    assert lengths(take(queues, workers=2).batch) == [9]
    assert running is not None
    queues.end(running)
    decision = take(queues, workers=2)
    assert decision.batch is not None
    assert decision.batch.lane is Lane.ADAPT


def test_without_adaptation_a_worker_waits_for_as_long_as_nothing_comes():
    assert idle_s(queued(submission(8), at=NOW), NOW) is None


def test_rows_of_one_reader_are_next_to_each_other_with_their_tuned_layers():
    other, layers = (lambda features: features), object()
    first, second, third = (
        submission(5, 5),
        submission(5, reader=other, tuned=layers),
        submission(5),
    )
    batch = take(queued(first, second, third)).batch
    assert batch is not None
    assert batch.groups == [(reader, [(first, [0, 1]), (third, [0])]), (other, [(second, [0])])]
    assert [{it.tuned for it, _ in parts} for _, parts in batch.groups] == [{None}, {layers}]


@pytest.mark.parametrize("limit", [{"queued_requests": 3}, {"queued_length": 24}])
def test_a_full_queue_refuses_until_a_batch_is_taken(limit):
    limits = Limits(64, 1, **limit)
    queues = queued(submission(8), submission(8))
    assert refusal(queues, limits) is None
    queues.put(submission(8), Lane.PREDICT, LONG_AGO)
    error = refusal(queues, limits)
    assert error is not None
    assert error.reason == "QUEUE_FULL"
    take(queues)
    assert refusal(queues, limits) is None


def test_work_of_adaptation_fills_no_queue():
    queues = queued(*[submission(8) for _ in range(10)], lane=Lane.ADAPT)
    assert refusal(queues, Limits(64, 1, queued_length=1, queued_requests=1)) is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, 1.0), (1.0, 3.0), (10.0, 30.0), (0.1, 0.3), (1e-6, 0.05), (1e6, 30.0)]
)
def test_whoever_is_refused_hears_how_long_the_queue_takes_to_drain(seconds, expected):
    """Of a queue of 192, a batch of 64 took so many seconds."""
    queues = queued(*[submission(64) for _ in range(4)])
    for _ in range(1 if seconds is None else 200):
        batch = next_batch(queues, Limits(64, 1), PRICE, NOW).batch
        assert batch is not None
        if seconds is not None:
            queues.account(batch, seconds, workers=1)
    take(queues)
    error = refusal(queues, Limits(64, 1, queued_length=1))
    assert error is not None
    assert error.retry_after_s == expected


def test_clearing_leaves_nothing():
    queues = queued(submission(8, 9), submission(7))
    queues.put(submission(8), Lane.ADAPT, LONG_AGO)
    queues.clear()
    assert take(queues).batch is None
    assert all((it.length, it.requests) == (0, 0) for it in queues.lanes.values())
