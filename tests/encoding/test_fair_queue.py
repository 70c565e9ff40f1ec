"""Whose turn it is: callers by cost, lone texts before bulk, and who gives way in a full queue."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from graft_server.backbones.text.packing import cost
from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import OverloadError
from graft_server.encoding.fair_queue import PASSED_OVER, TURN, Submission
from graft_server.encoding.queueing import (
    LOOKAHEAD,
    SHARE,
    Batch,
    Lane,
    Limits,
    Queues,
    admission,
    next_batch,
)

PRICE = partial(cost, dimension=384)
NOW = 1_000.0
BUDGET = 128
LIMITS = Limits(BUDGET, 1)


def reader(features: Any) -> Any:
    return features


def ask(queues: Queues, caller: Caller, *lengths: int, **other: Any) -> Submission:
    submission = Submission(
        [range(length) for length in lengths],
        reader,
        None,
        other.get("deadline", math.inf),
        other.get("is_over", lambda: False),
        caller,
        other.get("opens", True),
    )
    queues.put(submission, Lane.PREDICT, 0.0)
    return submission


def take(queues: Queues, limits: Limits = LIMITS) -> Batch:
    decision = next_batch(queues, limits, PRICE, NOW)
    queues.begin(decision)
    assert decision.batch is not None
    queues.end(decision.batch)
    queues.account(decision.batch, 0.01, limits.workers)
    return decision.batch


def shares(batch: Batch) -> Counter[Caller]:
    """The length that a batch has of each caller."""
    found: Counter[Caller] = Counter()
    for submission, places in batch.parts():
        found[submission.caller] += sum(len(submission.items[place]) for place in places)
    return found


def served(queues: Queues, batches: int) -> Counter[Caller]:
    return sum((shares(take(queues)) for _ in range(batches)), Counter())


def callers(identity: str = "") -> Iterator[Caller]:
    while True:
        yield new_call(identity)


def fair(values: list[float]) -> float:
    """Jain's index."""
    return sum(values) ** 2 / (len(values) * sum(it * it for it in values))


@pytest.mark.parametrize("length", [3, 10, 40, 200])
def test_a_lone_text_is_in_the_very_next_batch_beside_any_number_of_bulk_callers(length):
    queues = Queues()
    for _ in range(50):
        ask(queues, new_call(), *[12] * 100)
    served(queues, 7)
    lone = new_call()
    ask(queues, lone, length)
    assert shares(take(queues))[lone] == length


def test_the_lone_texts_of_several_callers_are_in_the_next_batch_together():
    queues = Queues()
    ask(queues, new_call(), *[12] * 100)
    lone = [new_call() for _ in range(4)]
    for caller, length in zip(lone, (5, 14, 9, 20), strict=True):
        ask(queues, caller, length)
    assert set(lone) <= set(shares(take(queues)))


def test_callers_are_served_alike_by_length_and_not_by_items():
    queues, many_short, few_long = Queues(), new_call(), new_call()
    ask(queues, many_short, *[6] * 1_000)
    ask(queues, few_long, *[60] * 100)
    found = served(queues, 40)
    assert fair([found[many_short], found[few_long]]) > 0.99


def test_attentions_cost_counts_so_that_long_texts_do_not_win():
    queues, short, long = Queues(), new_call(), new_call()
    ask(queues, short, *[8] * 4_000)
    ask(queues, long, *[512] * 60)
    found = served(queues, 100)
    costs = [PRICE(1, 8, 8) / 8 * found[short], PRICE(1, 512, 512) / 512 * found[long]]
    assert fair(costs) > 0.99
    assert found[long] < found[short]


def test_eight_callers_of_texts_of_any_length_are_served_alike():
    generator = random.Random(1)  # noqa: S311
    queues, found = Queues(), Counter[Caller]()
    greedy = [new_call() for _ in range(8)]
    for _ in range(300):
        for number, caller in enumerate(greedy):  # each asks in requests of its own size
            call = queues.lanes[Lane.PREDICT].call(caller)
            if call is None or call.count < 64:
                ask(queues, caller, *(generator.randint(3, 40) for _ in range(8 * (number + 1))))
        found += shares(take(queues))
    assert fair([found[caller] for caller in greedy]) > 0.98


def test_identities_are_served_alike_whatever_the_number_of_their_calls():
    queues = Queues()
    for _ in range(30):
        ask(queues, new_call("busy"), *[10] * 40)
    ask(queues, new_call("calm"), *[10] * 400)
    for _ in range(5):
        ask(queues, new_call(), *[10] * 200)
    found: Counter[str] = Counter()
    for caller, length in served(queues, 60).items():
        found[caller.identity] += length
    assert fair([found["busy"], found["calm"], found[""]]) > 0.99


def test_calls_of_one_identity_are_served_alike():
    queues = Queues()
    calls = [new_call("a") for _ in range(4)]
    for number, caller in enumerate(calls):
        ask(queues, caller, *[5 * (number + 1)] * 500)
    found = served(queues, 40)
    assert fair([found[caller] for caller in calls]) > 0.98


def test_an_identity_is_not_lone_because_its_calls_are():
    """A hundred calls of one text each do not pass by another identity's texts."""
    queues, bulk = Queues(), new_call("bulk")
    ask(queues, bulk, *[10] * 200)
    served(queues, 2)
    for _ in range(100):
        ask(queues, new_call("many"), 10)
    found = served(queues, 10)
    assert fair([found[bulk], sum(found.values()) - found[bulk]]) > 0.97


def test_lone_texts_beyond_what_can_be_served_leave_a_third_to_bulk():
    queues, bulk = Queues(), new_call()
    ask(queues, bulk, *[10] * 3_000)
    found: Counter[Caller] = Counter()
    for _ in range(60):
        for _ in range(20):  # more than two batches' worth for each batch
            ask(queues, new_call(), 12)
        found += shares(take(queues))
    assert 0.28 < found[bulk] / sum(found.values()) < 0.5


def test_long_lone_texts_do_not_starve_bulk_either():
    queues, bulk = Queues(), new_call()
    ask(queues, bulk, *[10] * 3_000)
    found: Counter[Caller] = Counter()
    for _ in range(60):
        ask(queues, new_call(), 3 * BUDGET)
        found += shares(take(queues))
    assert found[bulk] > 0.2 * sum(found.values())


def test_silence_earns_nothing():
    """Who comes back is served as others are from then on: it has neither saved up turns nor lost any."""
    queues, early, late = Queues(), new_call(), new_call()
    ask(queues, early, *[10] * 2_000)
    served(queues, 50)
    ask(queues, late, *[10] * 1_000)
    found = served(queues, 20)
    assert fair([found[early], found[late]]) > 0.97


def test_a_stream_whose_queue_runs_empty_now_and_then_is_not_lone_each_time():
    queues, stream, bulk = Queues(), new_call(), new_call()
    ask(queues, bulk, *[10] * 2_000)
    found: Counter[Caller] = Counter()
    for _ in range(60):
        ask(queues, stream, *[10] * 3)  # asks for a quarter of a batch once the last was answered
        while queues.lanes[Lane.PREDICT].call(stream) is not None:
            found += shares(take(queues))
    assert found[bulk] >= found[stream]


def test_within_a_call_requests_are_served_in_the_order_in_which_they_came():
    queues, caller = Queues(), new_call()
    requests = [ask(queues, caller, *[10] * 20) for _ in range(20)]
    order = [submission for _ in range(34) for submission, _ in take(queues).parts()]
    assert not queues.lanes[Lane.PREDICT]
    assert list(dict.fromkeys(order)) == requests


def test_a_text_unlike_its_callers_others_is_not_passed_over_for_ever():
    queues, odd, other = Queues(), new_call(), new_call()
    first = ask(queues, odd, 120)
    for _ in range(40):
        ask(queues, odd, *[8] * 10)
        ask(queues, other, *[8] * 10)
    batches = [take(queues) for _ in range(2 * (PASSED_OVER + 1))]
    assert any(submission is first for batch in batches for submission, _ in batch.parts())


def test_many_requests_of_dozens_are_answered_one_after_the_other():
    """All at once, they would all be answered late."""
    queues = Queues()
    requests = [ask(queues, new_call(), *[12] * 64) for _ in range(64)]
    served(queues, len(requests) * 64 * 12 // BUDGET // 2)
    assert sum(it.queued == 0 for it in requests) > len(requests) / 3


def test_batches_are_whole_beside_a_lone_caller():
    queues = Queues()
    ask(queues, new_call(), *(8 + place % 8 for place in range(600)))
    for _ in range(20):
        ask(queues, new_call(), 11)
        batch = take(queues)
        lengths = [len(it.items[place]) for it, places in batch.parts() for place in places]
        assert PRICE(len(lengths) + 1, sum(lengths) + 15, 15) > BUDGET


def test_of_the_next_in_turn_those_whose_deadline_is_near_go_first():
    queues, caller, hurried = Queues(), new_call(), new_call()
    ask(queues, caller, *[10] * 200)
    take(queues)
    ask(queues, hurried, *[30] * 8, deadline=NOW + 1e-4)
    assert shares(take(queues))[hurried] >= 3 * 30


def test_short_deadlines_give_nobody_more_turns():
    queues, patient, hurried = Queues(), new_call(), new_call()
    ask(queues, patient, *[10] * 2_000)
    for _ in range(200):
        ask(queues, hurried, *[10] * 10, deadline=NOW + 1e-6)
    found = served(queues, 60)
    assert fair([found[patient], found[hurried]]) > 0.97


def test_withdrawn_requests_leave_room_at_once():
    queues, caller = Queues(), new_call()
    gone = [ask(queues, caller if n % 2 else new_call(), 10, 20) for n in range(10)]
    stays = ask(queues, caller, 5)
    for submission in gone:
        queues.withdraw(submission, Lane.PREDICT)
        queues.withdraw(submission, Lane.PREDICT)
    waiting = queues.lanes[Lane.PREDICT]
    assert (waiting.length, waiting.requests) == (5, 1)
    assert [it for it, _ in take(queues).parts()] == [stays]
    assert not waiting


def test_what_is_remembered_of_callers_is_bounded():
    queues, bulk = Queues(), new_call()
    ask(queues, bulk, *[10] * 100_000)
    for _ in range(6_000):
        ask(queues, new_call(), 3)
        take(queues, Limits(16, 1))
    calls = queues.lanes[Lane.PREDICT].identities.members[""].calls
    assert len(calls.members) < 10
    assert len(calls._ahead) <= 4_096


# ---------------------------------------------------------------------------------------------- a full queue

FULL = Limits(BUDGET, 1, queued_length=1_000, queued_requests=20)


def test_a_lone_text_is_not_refused_while_somebody_holds_far_more():
    queues = Queues()
    large = [ask(queues, new_call(), *[10] * 30) for _ in range(4)]
    found = admission(queues, FULL, new_call(), 12)
    assert found is large[-1], "the newest of the largest gives way"
    queues.withdraw(found, Lane.PREDICT)
    assert admission(queues, FULL, new_call(), 12) is None


def test_who_fills_the_queue_is_refused_itself():
    queues = Queues()
    for _ in range(4):
        ask(queues, new_call(), *[10] * 30)
    found = admission(queues, FULL, new_call(), 300)
    assert isinstance(found, OverloadError)
    assert found.reason == "QUEUE_FULL"


def test_what_was_begun_is_not_refused_any_more():
    queues = Queues()
    for _ in range(4):
        ask(queues, new_call(), *[10] * 40)
    while (found := admission(queues, FULL, new_call(), 12)) is not None:
        assert isinstance(found, Submission)
        assert found.queued == len(found.items)
        take(queues)


def test_the_parts_of_a_request_that_was_let_in_give_no_way_and_keep_nobody_out_who_asks_for_far_less():
    queues, caller = Queues(), new_call()
    for _ in range(30):
        ask(queues, caller, *[10] * 30, opens=False)
    assert queues.lanes[Lane.PREDICT].requests == 0
    assert admission(queues, FULL, new_call(), 12) is None
    assert isinstance(admission(queues, FULL, new_call(), 9_000), OverloadError)
    for _ in range(FULL.queued_requests):
        ask(queues, new_call(), 12)
    assert isinstance(admission(queues, FULL, new_call(), 12), OverloadError), "such are few"


def test_texts_alone_do_not_give_way_to_shorter_ones():
    queues = Queues()
    for length in range(20, 40):
        ask(queues, new_call(), length)
    assert isinstance(admission(queues, FULL, new_call(), 3), OverloadError)


def test_of_many_small_calls_the_newest_of_the_largest_holder_is_refused():
    queues = Queues()
    modest = ask(queues, new_call("modest"), 12)
    greedy = [ask(queues, new_call("greedy"), 12) for _ in range(19)]
    found = admission(queues, FULL, new_call("another"), 12)
    assert found is greedy[-1]
    assert isinstance(admission(queues, FULL, new_call("greedy"), 12), OverloadError)
    assert modest.queued


def test_an_identity_holds_a_share_of_the_queue_while_others_wait_and_all_of_it_alone():
    queues = Queues()
    for _ in range(int(SHARE * FULL.queued_requests) + 5):
        assert admission(queues, FULL, new_call("greedy"), 12) is None
        ask(queues, new_call("greedy"), 12)
    ask(queues, new_call("modest"), 12)
    assert isinstance(admission(queues, FULL, new_call("greedy"), 12), OverloadError)
    assert admission(queues, FULL, new_call("modest"), 12) is None
    assert admission(queues, FULL, new_call(), 12) is None


def test_the_lookahead_is_shared_by_callers():
    """What a batch is chosen from is not one caller's alone, so that no caller gets far ahead of another."""
    queues, one, other = Queues(), new_call(), new_call()
    ask(queues, one, *[10] * 500)
    ask(queues, other, *[37] * 500)
    found: Counter[Caller] = Counter()
    for _ in range(50):
        found += shares(take(queues))
        assert abs(found[one] - found[other]) <= (LOOKAHEAD + 1) * BUDGET + TURN * LIMITS.quantum
