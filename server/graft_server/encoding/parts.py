"""Requests of any size in parts: one enters as room comes, so that no caller fills the queue or the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from graft_server.domain.caller import Caller
from graft_server.domain.examples import Input
from graft_server.encoding.windows import Windows
from graft_server.sharing.event_loop import in_slices

T = TypeVar("T")

PART_INPUTS = 256
"""The most inputs of a part: what is done with a part's answers on the event loop takes some milliseconds."""

Work = Callable[[Sequence[Input], bool], Awaitable[T]]
"""Answers the inputs of a part; and whether it is the request's first part."""


async def in_parts(
    windows: Windows, caller: Caller, inputs: Sequence[Input], length: Callable[[Input], float], work: Work[T]
) -> list[tuple[list[int], T]]:
    """Returns the results of `work` on the inputs, part by part, with the inputs' places.

    Inputs of similar length share a part, so that batches have little to pad.

    Args:
        windows: Where parts enter.
        caller: Whose request it is.
        inputs: The request.
        length: The length of an input's item, before it is prepared.
        work: Answers a part.

    Raises:
        Exception: The first exception of `work`; no part enters after it, and those at work are cancelled.
    """
    lengths = await in_slices(length, inputs)
    total = sum(lengths)
    if total <= windows.part and len(inputs) <= PART_INPUTS:
        async with windows.place(caller, total):
            return [(list(range(len(inputs))), await work(inputs, True))]
    tasks: list[asyncio.Task[tuple[list[int], T]]] = []
    failed = asyncio.Event()

    async def one(places: list[int], *, opens: bool) -> tuple[list[int], T]:
        try:
            return places, await work([inputs[place] for place in places], opens)
        except BaseException:
            failed.set()
            raise

    try:
        for places in _cut(lengths, windows.part):
            held, opens = sum(lengths[place] for place in places), not tasks
            await windows.enter(caller, held, opens=opens)
            if failed.is_set():
                windows.leave(caller, held, opens=opens)
                break
            task = asyncio.create_task(one(places, opens=opens))
            # Not within the task: one that is cancelled before its first step runs nothing of it.
            task.add_done_callback(partial(_leave, windows, caller, held, opens))
            tasks.append(task)
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _leave(windows: Windows, caller: Caller, held: float, opens: bool, _: asyncio.Task[Any]) -> None:
    windows.leave(caller, held, opens=opens)


def _cut(lengths: Sequence[float], most: float) -> Iterator[list[int]]:
    """Returns the places of the inputs of each part, by length."""
    part: list[int] = []
    total = 0.0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (total + lengths[place] > most or len(part) == PART_INPUTS):
            yield part
            part, total = [], 0.0
        part.append(place)
        total += lengths[place]
    if part:
        yield part
