"""The batcher in front of the real encoder: who rides with whom, who is dropped, and what nobody notices."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from graft_server.backbones.text.packing import cost
from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import DeadlineError, DrainingError, FaultError, InvalidError, OverloadError
from graft_server.encoding import queueing
from graft_server.encoding.batcher import Batcher, unread
from graft_server.encoding.encoder import Encoder, Features
from graft_server.encoding.queueing import Lane, Limits

DIMENSION = 384
PRICE = partial(cost, dimension=DIMENSION)
UNKNOWN_TOKEN = 10**9
"""A token that the vocabulary does not have: the encoder fails on it."""


class Gate:
    """The real encoder behind a gate: calls wait until it opens. Remembers what was encoded."""

    def __init__(self, encoder: Encoder, calls_to_hold: int) -> None:
        self.batches: list[list[Any]] = []
        self.held = threading.Semaphore(0)
        """Released as each of the held calls begins."""
        self.passed = threading.Semaphore(0)
        """Released as each of the others begins."""
        self._encoder = encoder
        self._to_hold = calls_to_hold
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def encode(self, texts: Sequence[Any]) -> Features:
        self.batches.append(list(texts))
        if len(self.batches) <= self._to_hold:
            self.held.release()
            assert self._open.wait(60)
        else:
            self.passed.release()
        return self._encoder.encode(texts)


def tokens(*lengths: int, first: int = 1000) -> list[Any]:
    return [np.arange(first + place, first + place + length) for place, length in enumerate(lengths)]


@pytest.fixture
def batched(encoder: Encoder) -> Callable[..., Any]:
    """Runs a scenario: batched(scenario, budget=…, workers=…), where scenario(batcher, gate) is a coroutine.

    The first `workers` batches are held until the scenario opens the gate, so that it decides what queues.
    """

    def run(scenario: Callable[[Batcher, Gate], Coroutine[Any, Any, Any]], **limits: Any) -> Gate:
        limits = {"budget": 64, "workers": 1, **limits}
        gate = Gate(encoder, limits["workers"])

        async def main() -> None:
            batcher = Batcher(gate, Limits(**limits), PRICE)  # type: ignore[arg-type]
            await batcher.start()
            try:
                async with asyncio.timeout(60):
                    await scenario(batcher, gate)
            finally:
                gate.open()
                await batcher.close()

        asyncio.run(main())
        return gate

    return run


async def begun(begins: threading.Semaphore) -> None:
    """Waits until a batch begins to be encoded; fails where none does, as when the worker has died."""
    assert await asyncio.to_thread(begins.acquire, timeout=30), "no batch has begun"


async def hold(
    batcher: Batcher, gate: Gate, workers: int = 1, lane: Lane = Lane.PREDICT
) -> list[asyncio.Task[Any]]:
    """Makes all workers busy until the gate opens."""
    tasks = []
    for _ in range(workers):
        tasks.append(asyncio.create_task(batcher.encode(tokens(3), lane=lane)))
        await begun(gate.held)
    return tasks


async def submit(batcher: Batcher, texts: list[Any], **options: Any) -> asyncio.Task[Any]:
    task = asyncio.create_task(batcher.encode(texts, **options))
    await asyncio.sleep(0)  # until it is in the queue
    return task


def close_to(encoder: Encoder, texts: list[Any], features: Any) -> None:
    alone = np.concatenate([encoder.encode([text])["pooled"] for text in texts])
    np.testing.assert_allclose(features["pooled"], alone, atol=1e-6)


def test_under_low_load_a_text_does_not_wait_for_company(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open()
        for _ in range(3):
            await batcher.encode(tokens(5))

    assert [len(batch) for batch in batched(scenario).batches] == [1, 1, 1]


def test_what_arrives_while_the_device_is_busy_is_the_next_batch(batched, encoder):
    texts = tokens(5, 9, 4, 7)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, [text]) for text in texts]
        gate.open()
        for task, text in zip(waiting, texts, strict=True):
            close_to(encoder, [text], (await task).arrays)
        await asyncio.gather(*first)

    assert [len(batch) for batch in batched(scenario).batches] == [1, 4]


def test_a_batch_stays_within_the_budget(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = await submit(batcher, tokens(*range(3, 40)))
        gate.open()
        await asyncio.gather(waiting, *first)

    _, *batches = batched(scenario, budget=100).batches
    for batch in batches:
        lengths = [len(text) for text in batch]
        assert len(batch) == 1 or cost(len(batch), sum(lengths), max(lengths), DIMENSION) <= 100
    assert sum(map(len, batches)) == 37
    assert len(batches) < 15


def test_a_text_beyond_the_budget_runs_alone(batched, encoder):
    texts = tokens(4, 200, 4)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = await submit(batcher, texts)
        gate.open()
        close_to(encoder, texts, (await waiting).arrays)
        await asyncio.gather(*first)

    assert [[len(text) for text in batch] for batch in batched(scenario).batches[1:]] == [[4, 4], [200]]


def test_batch_mates_are_those_nearest_in_length_to_the_text_that_waited_longest(batched, encoder):
    texts = tokens(9, 30, 8, 31, 10, 9)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, [text]) for text in texts]
        gate.open()
        for task, text in zip(waiting, texts, strict=True):
            close_to(encoder, [text], (await task).arrays)
        await asyncio.gather(*first)

    batches = [[len(text) for text in batch] for batch in batched(scenario, budget=40).batches[1:]]
    assert batches == [[9, 8, 10, 9], [30], [31]]


def test_a_text_unlike_all_others_still_has_its_turn_when_it_is_the_oldest(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, [text]) for text in tokens(5, 60, *[5] * 40)]
        gate.open()
        await asyncio.gather(*first, *waiting)

    batches = [[len(text) for text in batch] for batch in batched(scenario, budget=64).batches[1:]]
    assert 60 in batches[1]


def test_a_worker_takes_its_share_of_the_queue_and_not_all_of_it(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate, workers=2)
        waiting = [await submit(batcher, tokens(10)) for _ in range(8)]
        gate.open()
        await asyncio.gather(*first, *waiting)

    batches = batched(scenario, budget=10_000, workers=2).batches[2:]
    assert 1 < len(batches[0]) <= 4
    assert sum(map(len, batches)) == 8


def test_features_come_in_the_order_of_the_texts_though_batches_are_sorted_by_length(batched, encoder):
    texts = tokens(30, 3, 17, 5, 40, 3, 12)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open()
        encoded = await batcher.encode(texts)
        close_to(encoder, texts, encoded.arrays)
        assert encoded.encode_s > 0
        assert encoded.queue_s >= 0

    batched(scenario, budget=50)


def test_a_caller_who_leaves_the_queue_is_never_encoded(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        leaving = await submit(batcher, tokens(7, first=5000))
        staying = await submit(batcher, tokens(8))
        leaving.cancel()
        gate.open()
        await asyncio.gather(staying, *first)
        assert leaving.cancelled()
        assert batcher.queued_length == 0

    assert [[len(text) for text in batch] for batch in batched(scenario).batches] == [[3], [8]]


def test_a_caller_who_leaves_in_the_middle_of_a_batch_does_not_strand_its_mates(batched, encoder):
    mine = tokens(9)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        leaving = await submit(batcher, tokens(7, first=5000))
        staying = await submit(batcher, mine)
        first[0].cancel()  # it is being encoded now
        gate.open()
        await begun(gate.passed)  # the two are being encoded together
        leaving.cancel()
        close_to(encoder, mine, (await staying).arrays)
        assert first[0].cancelled() or first[0].cancelling()
        assert batcher.queued_length == 0
        close_to(encoder, mine, (await batcher.encode(mine)).arrays)

    batched(scenario)


def test_what_is_left_of_a_cancelled_submission_is_dropped(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        large = await submit(batcher, tokens(*[20] * 100))
        await begun(gate.held)  # its first batch is being encoded
        small = await submit(batcher, tokens(3))
        large.cancel()
        gate.open()
        await small
        assert batcher.queued_length == 0

    assert len(batched(scenario).batches) == 2


def test_a_text_whose_deadline_passed_is_never_encoded(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        late = await submit(batcher, tokens(7), deadline=time.monotonic() - 1)
        early = await submit(batcher, tokens(8), deadline=time.monotonic() + 60)
        gate.open()
        await asyncio.gather(early, *first)
        with pytest.raises(DeadlineError):
            await late
        assert batcher.queued_length == 0

    assert [[len(text) for text in batch] for batch in batched(scenario).batches] == [[3], [8]]


def test_a_failing_batch_fails_its_own_callers_only(batched, encoder):
    good = tokens(9)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        bad = await submit(batcher, [np.array([101, UNKNOWN_TOKEN, 102])])
        fine = await submit(batcher, good)
        gate.open()
        (fault,) = (await bad).faults.values()
        assert isinstance(fault, InvalidError)
        assert fault.reason == "INPUT_NOT_ENCODED"
        close_to(encoder, good, (await fine).arrays)
        await asyncio.gather(*first)
        assert batcher.queued_length == 0

    batched(scenario, budget=1)


def test_each_reader_reads_its_own_rows_in_any_company_and_fails_alone(batched, encoder):
    texts = tokens(5, 9, 4, 7, 3, 6)
    expected = np.concatenate([encoder.encode([text])["pooled"] for text in texts])

    def first_place(features: Features) -> Features:
        return {"first": features["pooled"][:, :1]}

    def broken(features: Features) -> Features:
        raise FaultError("This head is broken.", reason="TEST")

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        readers = [first_place, broken, unread]
        waiting = [
            await submit(batcher, [text], reader=readers[place % 3]) for place, text in enumerate(texts)
        ]
        gate.open()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        for place, answer in enumerate(answers):
            if place % 3 == 0:
                np.testing.assert_allclose(answer.arrays["first"], expected[[place], :1], atol=1e-6)
            elif place % 3 == 1:
                assert isinstance(answer, FaultError)
            else:
                np.testing.assert_allclose(answer.arrays["pooled"], expected[[place]], atol=1e-6)
        await asyncio.gather(*first)

    assert [len(batch) for batch in batched(scenario).batches] == [1, 6]


def test_the_rest_of_a_submission_whose_reader_failed_is_dropped(batched):
    def broken(features: Features) -> Features:
        raise FaultError("This head is broken.", reason="TEST")

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        bad = await submit(batcher, tokens(*[20] * 50), reader=broken)
        gate.open()
        with pytest.raises(FaultError):
            await bad
        await asyncio.gather(*first)
        await batcher.encode(tokens(4))
        assert batcher.queued_length == 0

    assert len(batched(scenario).batches) == 3


def test_adaptation_gets_its_share_while_predictions_queue(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, tokens(8)) for _ in range(300)]
        adapting = [await submit(batcher, tokens(7), lane=Lane.ADAPT) for _ in range(40)]
        gate.open()
        await asyncio.gather(*first, *waiting, *adapting)

    rows = [len(text) for batch in batched(scenario).batches[1:] for text in batch]
    assert rows[:8] == [8] * 8, "predictions go first"
    while_queueing = rows[: len(rows) - rows[::-1].index(8)]
    share = while_queueing.count(7) * 7 / sum(while_queueing)
    assert 0.08 < share < 0.17
    assert (rows.count(8), rows.count(7)) == (300, 40)


def test_adaptation_alone_has_the_whole_device(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate, lane=Lane.ADAPT)
        waiting = await submit(batcher, tokens(*[7] * 40), lane=Lane.ADAPT)
        gate.open()
        await asyncio.gather(waiting, *first)

    batches = batched(scenario).batches[1:]
    assert len(batches) <= 6


def test_while_predictions_come_in_adaptation_runs_in_short_batches(batched, monkeypatch):
    monkeypatch.setattr(queueing, "BRIEF_S", math.inf)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = await submit(batcher, tokens(*[7] * 40), lane=Lane.ADAPT)
        gate.open()
        await asyncio.gather(waiting, *first)

    batches = batched(scenario, budget=128).batches[1:]
    assert max(cost(len(it), sum(map(len, it)), max(map(len, it)), DIMENSION) for it in batches) <= 32


def test_while_predictions_come_in_one_worker_is_kept_free_of_adaptation(batched, monkeypatch):
    monkeypatch.setattr(queueing, "FREE_S", math.inf)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        batcher._queues.last_prediction = time.monotonic()
        adapting = await submit(batcher, tokens(*[7] * 40), lane=Lane.ADAPT)
        await begun(gate.held)
        # The other worker is there for this one at once, and for nothing else.
        predicting = await submit(batcher, tokens(9))
        await begun(gate.held)
        gate.open()
        await asyncio.gather(adapting, predicting)

    batches = batched(scenario, workers=2).batches
    assert [len(text) for text in batches[1]] == [9]


def test_a_worker_that_was_kept_free_helps_once_no_more_predictions_come(batched, monkeypatch):
    monkeypatch.setattr(queueing, "FREE_S", 0.05)

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        batcher._queues.last_prediction = time.monotonic()
        adapting = await submit(batcher, tokens(*[7] * 40), lane=Lane.ADAPT)
        await begun(gate.held)
        await begun(gate.held)
        gate.open()
        await adapting

    batched(scenario, workers=2)


@pytest.mark.parametrize("limit", [{"queued_requests": 3}, {"queued_length": 24}])
def test_a_full_queue_refuses_predictions_and_never_adaptation(batched, limit):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, tokens(8)) for _ in range(3)]
        with pytest.raises(OverloadError) as raised:
            await batcher.encode(tokens(8))
        assert raised.value.reason == "QUEUE_FULL"
        assert 0 < raised.value.retry_after_s <= 30
        adapting = await submit(batcher, tokens(8), lane=Lane.ADAPT)
        gate.open()
        await asyncio.gather(adapting, *first, *waiting)
        await batcher.encode(tokens(8))

    batched(scenario, **limit)


def test_in_a_full_queue_the_largest_request_gives_way_to_a_lone_text(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        large = [await submit(batcher, tokens(*[8] * 10), caller=new_call()) for _ in range(3)]
        batcher.require_room(new_call(), 8)
        lone = await submit(batcher, tokens(9), caller=new_call())
        with pytest.raises(OverloadError) as raised:
            await large[-1]
        assert raised.value.reason == "QUEUE_FULL"
        assert raised.value.retry_after_s > 0
        large[-1] = await submit(batcher, tokens(*[8] * 10), caller=new_call())
        with pytest.raises(OverloadError):
            batcher.require_room(new_call(), 80)
        with pytest.raises(OverloadError):
            await batcher.encode(tokens(*[8] * 10), caller=new_call())
        gate.open()
        await asyncio.gather(lone, *large, *first)

    gate = batched(scenario, queued_length=240)
    assert 9 in map(len, gate.batches[1]), "the lone text is in the very next batch"
    assert sum(map(len, gate.batches)) == 1 + 1 + 30, "what was refused was not encoded"


def test_what_a_caller_who_left_had_queued_leaves_room_at_once(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        leaving = [await submit(batcher, tokens(8), caller=new_call()) for _ in range(3)]
        with pytest.raises(OverloadError):
            await batcher.encode(tokens(8), caller=new_call())
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert batcher.queued_length == 0
        staying = await submit(batcher, tokens(8), caller=new_call())
        gate.open()
        await asyncio.gather(staying, *first)

    batched(scenario, queued_requests=3)


def test_adaptations_take_turns(batched):
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        large = await submit(batcher, tokens(*[8] * 60), lane=Lane.ADAPT, caller=Caller(call="large"))
        small = await submit(batcher, tokens(9), lane=Lane.ADAPT, caller=Caller(call="small"))
        gate.open()
        await small
        assert not large.done()
        await asyncio.gather(large, *first)

    batched(scenario)


def test_thousands_who_leave_at_random_leave_nothing_behind(batched, encoder):
    generator = random.Random(3)  # noqa: S311
    texts = tokens(*(generator.randint(2, 12) for _ in range(50)))
    expected = np.concatenate([encoder.encode([text])["pooled"] for text in texts])

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open()

        async def one() -> None:
            rows = generator.sample(range(50), generator.randint(1, 3))
            lane = generator.choice(list(Lane))
            deadline = time.monotonic() + generator.choice([0.002, 60])
            try:
                encoded = await batcher.encode([texts[row] for row in rows], lane=lane, deadline=deadline)
            except DeadlineError:
                return
            np.testing.assert_allclose(encoded.arrays["pooled"], expected[rows], atol=1e-6)

        async def impatient() -> None:
            task = asyncio.create_task(one())
            for _ in range(generator.randint(0, 40)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(20):
            async with asyncio.TaskGroup() as group:
                for number in range(120):
                    group.create_task(impatient() if number % 6 else one())
        await batcher.encode(texts, lane=Lane.ADAPT)
        await batcher.encode(texts)
        assert batcher.queued_length == 0
        assert not any(queue or queue.requests for queue in batcher._queues.lanes.values())
        assert not batcher._unanswered

    batched(scenario, budget=128, workers=2)


def test_closing_fails_what_waits_and_what_is_being_encoded(encoder):
    async def main() -> list[Any]:
        gate = Gate(encoder, 1)
        batcher = Batcher(gate, Limits(64, 1), PRICE)  # type: ignore[arg-type]
        await batcher.start()
        running = await hold(batcher, gate)
        waiting = [await submit(batcher, tokens(5), lane=lane) for lane in Lane]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        gate.open()
        await closing
        async with asyncio.timeout(60):
            return await asyncio.gather(*running, *waiting, return_exceptions=True)

    assert [type(it) for it in asyncio.run(main())] == [DrainingError] * 3


def test_closing_does_not_hold_up_the_event_loop_while_a_batch_is_encoded(encoder):
    async def main() -> None:
        gate = Gate(encoder, 1)
        batcher = Batcher(gate, Limits(64, 1), PRICE)  # type: ignore[arg-type]
        await batcher.start()
        (running,) = await hold(batcher, gate)
        closing = asyncio.create_task(batcher.close())
        with pytest.raises(DrainingError):
            await running
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done(), "the batch is still being encoded"
        gate.open()
        await closing

    asyncio.run(main())


def test_a_closed_batcher_refuses_at_once(encoder):
    async def main() -> None:
        batcher = Batcher(encoder, Limits(64, 1), PRICE)
        await batcher.start()
        await batcher.close()
        async with asyncio.timeout(60):
            with pytest.raises(DrainingError):
                await batcher.encode(tokens(3))

    asyncio.run(main())


def test_an_encoder_that_raises_what_it_should_not_fails_its_batch_and_not_the_worker(batched):
    class Broken:
        def encode(self, _: Any) -> Features:
            raise ZeroDivisionError

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open()
        batcher._encoder, working = Broken(), batcher._encoder
        with pytest.raises(ZeroDivisionError):
            await batcher.encode(tokens(3))
        batcher._encoder = working
        await batcher.encode(tokens(3))

    batched(scenario)


def test_a_worker_that_dies_fails_what_is_unanswered_and_is_replaced(batched, caplog):
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, features: Features) -> Features:
            return features

    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await hold(batcher, gate)
        waiting = [await submit(batcher, tokens(8)), await submit(batcher, tokens(8), reader=Unhashable())]
        gate.open()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, FaultError)
        await asyncio.gather(*first)
        await batcher.encode(tokens(3))
        assert batcher.queued_length == 0

    batched(scenario)
    assert "died and is replaced" in caplog.text
