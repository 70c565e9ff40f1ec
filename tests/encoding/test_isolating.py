"""A row on which the encoder fails: alone it is refused, and neither its batch nor later callers pay for it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from graft_server.backbones.text.packing import cost
from graft_server.domain.caller import NOBODY, Caller, new_call
from graft_server.domain.errors import BackboneError, DeadlineError, InvalidError, OverloadError
from graft_server.encoding.batcher import Batcher, Encoded, unread
from graft_server.encoding.encoder import NOT_FINITE, Encoder, Features
from graft_server.encoding.isolating import (
    AT_FAULT,
    MOST_SUSPECTS,
    SMALL,
    SUSPECT_S,
    Suspects,
    batch_of,
    rows_of,
)
from graft_server.encoding.queueing import Batch, Lane, Limits, Submission

PRICE = partial(cost, dimension=384)
UNKNOWN_TOKEN = 10**9
"""A token that the vocabulary does not have: the encoder fails on it."""
BAD = np.array([101, UNKNOWN_TOKEN, 102])


class Watched:
    """The real encoder; remembers what it was asked, and holds the first batch until it may go on."""

    def __init__(self, encoder: Encoder) -> None:
        self.batches: list[list[Any]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self._encoder = encoder

    def encode(self, items: Sequence[Any]) -> Features:
        self.batches.append(list(items))
        self.begun.set()
        assert self.go_on.wait(60)
        return self._encoder.encode(items)


def texts(*lengths: int, first: int = 1000) -> list[Any]:
    return [np.arange(first + place, first + place + length) for place, length in enumerate(lengths)]


def run(encoder: Any, scenario: Callable[[Batcher], Coroutine[Any, Any, None]], budget: int = 256) -> None:
    async def main() -> None:
        batcher = Batcher(encoder, Limits(budget, 1), PRICE)
        await batcher.start()
        try:
            async with asyncio.timeout(60):
                await scenario(batcher)
        finally:
            await batcher.close()

    asyncio.run(main())


def together(
    encoder: Encoder, *submissions: list[Any], budget: int = 256, **options: Any
) -> tuple[list[Encoded | BaseException], Watched]:
    """What becomes of submissions that are queued at once, behind a batch that is running."""
    watched, found = Watched(encoder), []

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.encode(texts(3)))
        await asyncio.to_thread(watched.begun.wait, 60)
        tasks = [asyncio.create_task(batcher.encode(it, **options)) for it in submissions]
        await asyncio.sleep(0)
        watched.go_on.set()
        found.extend(await asyncio.gather(*tasks, return_exceptions=True))
        await first

    run(watched, scenario, budget)
    return found, watched


def alike(encoder: Encoder, items: list[Any], found: Any, rows: Sequence[int]) -> None:
    expected = np.concatenate([encoder.encode([it])["pooled"] for it in items])
    np.testing.assert_allclose(found.arrays["pooled"][list(rows)], expected, atol=1e-6)


@pytest.mark.parametrize("lane", list(Lane))
def test_of_a_batch_only_the_row_at_fault_fails(encoder, lane):
    others = [texts(5, 9), texts(4, first=2000), texts(7, 6, 8, first=3000)]
    found, watched = together(encoder, others[0], [BAD], *others[1:], lane=lane)
    assert len(watched.batches[1]) == 7, "they rode in one batch"
    fault = found[1].faults[0]
    assert isinstance(fault, InvalidError)
    assert fault.reason == AT_FAULT
    for items, one in zip(others, [found[0], *found[2:]], strict=True):
        assert not one.faults
        alike(encoder, items, one, range(len(items)))


def test_of_a_request_only_the_rows_at_fault_fail(encoder):
    items = texts(5, 9, 4, 7, 6)
    items[1] = items[3] = BAD
    (found,), _ = together(encoder, items)
    assert sorted(found.faults) == [1, 3]
    alike(encoder, [items[it] for it in (0, 2, 4)], found, (0, 2, 4))
    assert np.isfinite(found.arrays["pooled"]).all()


def test_a_row_whose_features_are_not_finite_fails_alone(encoder):
    poisoned = texts(5)[0]

    class Poisoned:
        def encode(self, items: Sequence[Any]) -> Features:
            if any(it is poisoned for it in items):
                raise BackboneError("Not finite.", reason=NOT_FINITE)
            return encoder.encode(items)

    async def scenario(batcher: Batcher) -> None:
        good = texts(6, 7, first=2000)
        found = await batcher.encode([good[0], poisoned, good[1]])
        assert "not finite numbers" in found.faults[1].message
        alike(encoder, good, found, (0, 2))

    run(Poisoned(), scenario)


def test_rows_that_fail_only_together_are_answered(encoder):
    class Small:
        def encode(self, items: Sequence[Any]) -> Features:
            if len(items) > 3:
                raise MemoryError
            return encoder.encode(items)

    async def scenario(batcher: Batcher) -> None:
        items = texts(5, 9, 4, 7, 6, 8, 5)
        found = await batcher.encode(items)
        assert not found.faults
        alike(encoder, items, found, range(7))

    run(Small(), scenario)


def test_where_the_encoder_answers_nothing_nothing_is_tried_again():
    calls: list[int] = []

    class Dead:
        def encode(self, items: Sequence[Any]) -> Features:
            calls.append(len(items))
            raise BackboneError("The device is gone.", reason="ENCODER_FAILED")

    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(BackboneError):
            await batcher.encode(texts(5, 9, 4, 7))

    run(Dead(), scenario)
    assert calls == [4, 1], "the batch, and the probe"


def test_layers_that_answer_nothing_fail_their_own_rows_only(encoder):
    broken: Any = object()

    class Split:
        def encode(self, items: Sequence[Any]) -> Features:
            return encoder.encode(items)

        def encode_with(self, items: Sequence[Any], rows_of: Any) -> Any:
            if broken in rows_of:
                raise BackboneError("These layers are damaged.", reason="ENCODER_FAILED")
            return {None: encoder.encode(items)}

    async def scenario(batcher: Batcher) -> None:
        items = texts(5, 9)
        tuned = asyncio.create_task(batcher.encode(texts(4), tuned=broken))
        frozen = asyncio.create_task(batcher.encode(items))
        with pytest.raises(BackboneError, match="damaged"):
            await tuned
        alike(encoder, items, await frozen, range(2))

    run(Split(), scenario)


def test_after_a_fault_a_callers_rows_run_apart_from_those_of_others(encoder):
    watched = Watched(encoder)
    mine, others = texts(20, 21, 22, 23), texts(20, 21, 22, 23, first=5000)

    async def scenario(batcher: Batcher) -> None:
        watched.go_on.set()
        assert (await batcher.encode([BAD], caller=who("greedy"))).faults
        watched.go_on.clear()
        watched.batches.clear()
        watched.begun.clear()
        first = asyncio.create_task(batcher.encode(texts(3), caller=who("modest")))
        await asyncio.to_thread(watched.begun.wait, 60)
        suspected = asyncio.create_task(batcher.encode(mine, caller=who("greedy")))
        modest = asyncio.create_task(batcher.encode(others, caller=who("modest")))
        await asyncio.sleep(0)
        watched.go_on.set()
        alike(encoder, mine, await suspected, range(4))
        alike(encoder, others, await modest, range(4))
        await first

    run(watched, scenario)
    for batch in watched.batches:
        assert len({int(it[0]) >= 5000 for it in batch}) == 1, "no batch has rows of both"


def who(name: str | None) -> Caller:
    return NOBODY if name is None else Caller(call=name)


def submission(caller: str | None, *lengths: int, deadline: float = math.inf) -> Submission:
    return Submission(texts(*lengths), unread, None, deadline, lambda: False, who(caller))


def batch(*submissions: Submission) -> Batch:
    rows = [(it, place) for it in submissions for place in range(len(it.items))]
    return batch_of(rows, Batch([], Lane.PREDICT, 0))


def callers(of: Batch | None) -> list[Any]:
    return [] if of is None else [it.caller.call or None for it, _ in rows_of(of)]


def test_a_batch_of_rows_keeps_their_order_and_knows_its_length():
    one, other = submission("a", 3, 4), submission("b", 5)
    found = batch_of([(one, 1), (other, 0), (one, 0)], Batch([], Lane.ADAPT, 0))
    assert rows_of(found) == [(one, 1), (other, 0), (one, 0)]
    assert (found.length, found.lane) == (12, Lane.ADAPT)


def test_suspects_run_in_small_batches_each_alone():
    suspects = Suspects(budget=100)
    suspects.note(who("a"), 0.0)
    suspects.note(who("b"), 0.0)
    trusted, refused = suspects.taken(
        batch(submission("a", *[10] * 5), submission("b", 10), submission(None, 10)), 1.0
    )
    assert (callers(trusted), refused) == ([None], [])
    found = [callers(suspects.next_batch(1.0, others_wait=False)) for _ in range(5)]
    assert found == [["a", "a"], ["a", "a"], ["a"], ["b"], []]
    assert 2 * 10 <= SMALL * 100 < 3 * 10


def test_an_identity_is_suspected_whichever_of_its_calls_failed():
    suspects = Suspects(budget=100)
    suspects.note(Caller("someone", 1), 0.0)
    rows = [
        Submission(texts(5), unread, None, math.inf, lambda: False, caller)
        for caller in (Caller("someone", 2), Caller("another", 1), Caller("", 1))
    ]
    trusted, _ = suspects.taken(batch(*rows), 1.0)
    assert callers(trusted) == [1, 1]
    assert callers(suspects.next_batch(1.0, others_wait=False)) == [2]


def test_while_others_wait_suspects_run_a_small_part_of_the_time():
    suspects = Suspects(budget=100)
    suspects.note(who("a"), 0.0)
    suspects.taken(batch(submission("a", *[20] * 3)), 0.0)
    assert callers(suspects.next_batch(0.0, others_wait=True)) == ["a"]
    suspects.ran(1.0, 1.0)
    assert suspects.next_batch(4.9, others_wait=True) is None
    assert callers(suspects.next_batch(4.9, others_wait=False)) == ["a"]
    assert callers(suspects.next_batch(5.1, others_wait=True)) == ["a"]


def test_suspicion_ends_and_is_bounded():
    suspects = Suspects(budget=100)
    for number in range(MOST_SUSPECTS + 1):
        suspects.note(who(str(number)), 0.0)
    assert callers(suspects.taken(batch(submission("0", 5), submission("1", 5)), 1.0)[0]) == ["0"]
    suspects.clear()
    assert callers(suspects.taken(batch(submission("1", 5)), SUSPECT_S + 1)[0]) == ["1"]
    suspects.note(NOBODY, SUSPECT_S + 1)
    assert callers(suspects.taken(batch(submission(None, 5)), SUSPECT_S + 2)[0]) == [None]


def test_a_suspect_that_sends_more_than_is_held_is_refused(encoder):
    watched = Watched(encoder)

    async def scenario(batcher: Batcher) -> None:
        watched.go_on.set()
        await batcher.encode([BAD], caller=who("greedy"))
        tasks = [asyncio.create_task(batcher.encode(texts(20, 20), caller=who("greedy"))) for _ in range(100)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [it for it in found if isinstance(it, OverloadError)]
        assert refused
        assert all(it.reason == "QUEUE_FULL" and it.retry_after_s > 0 for it in refused)
        assert any(isinstance(it, Encoded) for it in found)
        assert not (await batcher.encode(texts(20), caller=who("modest"))).faults

    run(watched, scenario, budget=64)


def test_rows_of_a_suspect_that_wait_beyond_their_deadline_fail(encoder):
    async def scenario(batcher: Batcher) -> None:
        await batcher.encode([BAD], caller=who("greedy"))
        batcher._suspects.taken(batch(submission("other", 3)), 0.0)
        task = asyncio.create_task(batcher.encode(texts(5), caller=who("greedy"), deadline=0.0))
        with pytest.raises(DeadlineError):
            await task

    run(encoder, scenario)


def test_a_row_that_failed_is_refused_without_being_run_again_whoever_sends_it(encoder):
    watched = Watched(encoder)
    watched.go_on.set()

    async def scenario(batcher: Batcher) -> None:
        first = await batcher.encode([BAD])
        watched.batches.clear()
        again = await batcher.encode([BAD.copy(), *texts(5, 6)], caller=who("another"))
        assert again.faults == first.faults
        alike(encoder, texts(5, 6), again, (1, 2))
        (alone,) = (await batcher.encode([BAD])).faults.values()
        assert alone.reason == AT_FAULT

    run(watched, scenario)
    assert all(UNKNOWN_TOKEN not in item for batch in watched.batches for item in batch)


def test_rows_that_failed_are_remembered_for_a_while_and_not_too_many_of_them():
    suspects = Suspects(budget=100)
    error = InvalidError("This one fails.", reason=AT_FAULT)
    one = submission(None, *range(1, MOST_SUSPECTS + 3))
    for place in range(len(one.items)):
        suspects.note_row((one, place), error, 0.0)
    rest, found = suspects.known(batch(one), 1.0)
    assert len(found) == MOST_SUSPECTS
    assert rest is not None
    assert [place for _, place in rows_of(rest)] == [0, 1]
    assert suspects.known(batch(one), SUSPECT_S + 1)[1] == []


def test_where_nobody_knows_who_called_the_connection_answers_for_faults():
    suspects = Suspects(budget=100)
    suspects.note(new_call(connection="here"), 0.0)
    mine, others = (
        Submission(texts(5), unread, None, math.inf, lambda: False, new_call(connection=it))
        for it in ("here", "there")
    )
    trusted, _ = suspects.taken(batch(mine, others), 1.0)
    assert trusted is not None
    assert [it for it, _ in rows_of(trusted)] == [others]
