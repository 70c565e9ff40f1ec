"""Inputs that take long to prepare are prepared in turns, so that one caller's many do not keep another's waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graft_server.domain.caller import NOBODY, new_call
from graft_server.domain.examples import Input, Kind
from graft_server.encoding.preparing import BYTES_A_TURN, FILES_A_TURN, TEXTS_A_TURN, Preparer
from graft_server.sharing.threads import Threads


class Reading:
    """Prepares texts or files, waiting at each call until it is let on; remembers the calls."""

    def __init__(self, kind: Kind) -> None:
        self.kinds = frozenset({kind})
        self.calls: list[list[Input]] = []
        self.let_on = threading.Semaphore(0)

    def many(self, inputs: Sequence[Input]) -> list[Any]:
        self.calls.append(list(inputs))
        assert self.let_on.acquire(timeout=30)
        return list(inputs)

    def quick(self, _inputs: Sequence[Input]) -> bool:
        return False

    def typical(self, _generator: np.random.Generator) -> Any:
        return range(50)


def texts(count: int, size: int = 20) -> list[Input]:
    return [Input("x" * size) for _ in range(count)]


def files(count: int, size: int = 20) -> list[Input]:
    return [Input(kind=Kind.IMAGE, data=b"x" * size) for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "make", "size", "most"),
    [
        (Kind.TEXT, texts, 20, TEXTS_A_TURN),
        (Kind.IMAGE, files, 20, FILES_A_TURN),
        (Kind.TEXT, texts, BYTES_A_TURN, 1),
        (Kind.IMAGE, files, BYTES_A_TURN, 1),
    ],
)
def test_a_lone_input_is_prepared_in_the_next_turn_beside_any_number_of_another_callers(
    kind, make, size, most
):
    reading, threads = Reading(kind), Threads("preparing", 1)
    preparer = Preparer(reading, 384, threads)  # type: ignore[arg-type]
    many, lone = make(10 * most, size), make(1)

    async def scenario() -> None:
        bulk = asyncio.create_task(preparer.prepare_all(many, new_call()))
        for _ in range(5):
            await asyncio.sleep(0)
        alone = asyncio.create_task(preparer.prepare_all(lone, new_call()))
        for _ in range(5):
            await asyncio.sleep(0)
        reading.let_on.release(2)
        assert await alone == lone
        assert len(reading.calls) <= 3
        reading.let_on.release(10)
        assert await bulk == many

    asyncio.run(scenario())
    threads.close()
    assert max(map(len, reading.calls)) <= most


def test_the_length_of_an_input_is_estimated_before_it_is_prepared():
    threads = Threads("preparing", 1)
    of_texts = Preparer(Reading(Kind.TEXT), 384, threads, longest=256).lengths(1_000)  # type: ignore[arg-type]
    assert [of_texts(it) for it in (Input("x" * 40), Input("x" * 10**6))] == [12, 256]
    of_files = Preparer(Reading(Kind.IMAGE), 384, threads).lengths  # type: ignore[arg-type]
    (small,) = files(1)
    assert of_files(1_000)(small) == 50
    assert of_files(256 * 80)(small) == 80, "no more than 256 files at once"
    threads.close()


def test_a_caller_who_leaves_gives_its_turns_to_others():
    reading, threads = Reading(Kind.IMAGE), Threads("preparing", 1)
    preparer = Preparer(reading, 384, threads)  # type: ignore[arg-type]

    async def scenario() -> None:
        bulk = asyncio.create_task(preparer.prepare_all(files(400)))
        for _ in range(5):
            await asyncio.sleep(0)
        bulk.cancel()
        await asyncio.gather(bulk, return_exceptions=True)
        reading.let_on.release(2)
        await preparer.prepare_all(files(1), NOBODY)

    asyncio.run(scenario())
    threads.close()
    assert len(reading.calls) == 2
