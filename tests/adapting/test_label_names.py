"""Features of labels' names: encoded once, in turns with what others have, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from graft_server.adapting.publishing.label_names import LabelNames
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE
from graft_server.domain.caller import behind
from graft_server.domain.examples import Input, Label
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.preparing import TURN, TURNS_AT_ONCE
from graft_server.encoding.queueing import Lane
from graft_server.encoding.trunk import Trunk

ONE, OTHER = behind("m/one"), behind("m/other")


@asynccontextmanager
async def opened(cache: Any) -> AsyncIterator[tuple[Trunk, list[int]]]:
    """The default backbone, and the numbers of items that it was given at once."""
    settings = TrunkSettings(cache, device="cpu", cores=1, budget=256, measure_s=0)
    trunk = Trunk(DEFAULT_NAME, DEFAULT_SOURCE, settings)
    await trunk.open(None)  # type: ignore[arg-type]
    given: list[int] = []
    encode = trunk.batcher.encode

    async def watched(items: Any, **options: Any) -> Any:
        given.append(len(items))
        return await encode(items, **options)

    trunk.batcher.encode = watched  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(120):
            yield trunk, given
    finally:
        await trunk.close()


def labels(count: int, first: int = 0) -> list[Label]:
    return [Label(f"label {number}") for number in range(first, first + count)]


def test_names_are_encoded_once_also_beyond_what_is_remembered_and_at_once(encoder_cache):
    async def scenario() -> None:
        async with opened(encoder_cache) as (trunk, given):
            names = LabelNames(remembered=50)
            first, again = await asyncio.gather(
                names.features(labels(100), trunk, ONE), names.features(labels(100), trunk, ONE)
            )
            assert sum(given) == 100
            for view, array in first.items():
                np.testing.assert_array_equal(array, again[view])
            await names.features(labels(101), trunk, ONE)
            assert sum(given) == 101
            (alone,) = await trunk.prepare_all([Input("label 7")])
            right = (await trunk.encode([alone], lane=Lane.ADAPT)).arrays  # type: ignore[list-item]
            for view, array in right.items():
                np.testing.assert_allclose(first[view][7], array[0], atol=1e-3)

    asyncio.run(scenario())


def test_what_was_not_asked_for_longest_is_forgotten(encoder_cache):
    async def scenario() -> None:
        async with opened(encoder_cache) as (trunk, given):
            names = LabelNames(remembered=6)
            for first in (0, 4, 0, 8, 0):
                await names.features(labels(3, first), trunk, ONE)
            assert sum(given) == 9, "the first three were asked for before each of the others was forgotten"

    asyncio.run(scenario())


def test_thousands_of_names_take_turns_with_anothers_examples(encoder_cache):
    async def scenario() -> None:
        async with opened(encoder_cache) as (trunk, given):
            names = asyncio.create_task(LabelNames().features(labels(40 * TURN), trunk, ONE))
            while not given:  # noqa: ASYNC110 -- nothing tells it
                await asyncio.sleep(0)

            async def encode(part: Any) -> Any:
                return await trunk.encode(await trunk.prepare_all(part), lane=Lane.ADAPT, caller=OTHER)

            inputs = [Input(f"example {number}") for number in range(9)]
            ((places, found),) = await trunk.in_turns(OTHER, inputs, encode)
            assert len(found.arrays["pooled"]) == len(places) == 9
            assert not names.done()
            assert max(given) <= TURN
            assert sum(given) <= 9 + TURN * (2 * TURNS_AT_ONCE + 2), "one of the next turns is the other's"
            await names

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 3])
def test_labels_of_one_text_have_the_same_features(encoder_cache, count):
    async def scenario() -> None:
        async with opened(encoder_cache) as (trunk, given):
            found = await LabelNames().features([Label("same")] * count, trunk, ONE)
            assert sum(given) == 1
            assert all(len(array) == count for array in found.values())

    asyncio.run(scenario())
