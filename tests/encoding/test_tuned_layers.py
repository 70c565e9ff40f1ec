"""Rows of models with tuned layers, and of others, in one batch."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut, replant
from graft_server.domain.errors import StoreError
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import (
    GraphPart,
    SplitEncoder,
    TunedLayers,
    TunedLayersCache,
    TunedLayersRef,
)

TEXTS = [np.arange(7, 7 + length) for length in (3, 17, 1, 40, 5, 5)]


def segment(graph: onnx.ModelProto | bytes) -> GraphPart:
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return GraphPart(data, device="cpu", threads=1)


def scaled(graph: onnx.ModelProto, factor: float) -> bytes:
    """The graph with its largest weight multiplied: a stand-in for what tuning changes."""
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    old = onnx.numpy_helper.to_array(max(copy.graph.initializer, key=lambda it: np.prod(it.dims)))
    replant(copy, {"w": old}, {"w": old * np.float32(factor)})
    return copy.SerializeToString()


@pytest.fixture(scope="module")
def whole(encoder_cache: Path, backbone: Backbone) -> onnx.ModelProto:
    return onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))


@pytest.fixture(scope="module")
def above(whole) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(whole.SerializeToString())
    return cut(copy, boundary_of(whole, 4, "minilm")).above


@pytest.fixture(scope="module")
def grafted(encoder: Encoder, whole: onnx.ModelProto, backbone: Backbone) -> SplitEncoder:
    grafted = SplitEncoder(encoder, backbone.preprocessor())
    for layer in (2, 4):
        copy = onnx.ModelProto.FromString(whole.SerializeToString())
        parts = cut(copy, boundary_of(whole, layer, "minilm"))
        grafted.add_cut(layer, segment(parts.below), segment(parts.above))
    return grafted


def test_a_mixed_batch_gives_each_row_what_it_gets_alone(grafted, encoder, whole, above):
    tuned_layers: list[TunedLayers | None] = [
        TunedLayers(4, segment(scaled(above, 1.3))),
        TunedLayers(4, segment(scaled(above, 0.7))),
        TunedLayers(0, segment(scaled(whole, 1.2))),
        None,
    ]
    of_row = [0, 3, 1, 0, 2, 3]
    rows_of = {tuned: np.flatnonzero(np.array(of_row) == number) for number, tuned in enumerate(tuned_layers)}
    found = grafted.encode_with(TEXTS, rows_of)
    for row, number in enumerate(of_row):
        tuned = tuned_layers[number]
        alone = encoder.encode([TEXTS[row]]) if tuned is None else grafted.encode_by(tuned, [TEXTS[row]])
        for view, right in alone.items():
            np.testing.assert_allclose(found[tuned][view][row], right[0], atol=1e-5)


def test_rows_of_several_models_go_through_the_shared_layers_at_once(grafted, above, monkeypatch):
    below, frozen = grafted._cuts[4]
    seen: list[int] = []

    class Seen:
        def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(arrays["input_ids"].size)
            return below.run(arrays)

    monkeypatch.setitem(grafted._cuts, 4, (Seen(), frozen))
    one, other = (TunedLayers(4, segment(scaled(above, factor))) for factor in (1.3, 0.7))
    grafted.encode_with(TEXTS, {one: np.array([0, 4]), other: np.array([1, 3]), None: np.array([2, 5])})
    assert seen == [sum(map(len, TEXTS))]


def test_tops_that_begin_at_different_layers_ride_together(grafted, encoder):
    unchanged = {layer: TunedLayers(layer, grafted._cuts[layer][1]) for layer in (2, 4)}
    rows_of = {unchanged[2]: np.array([0, 4]), None: np.array([1, 3]), unchanged[4]: np.array([2, 5])}
    found = grafted.encode_with(TEXTS, rows_of)
    right = encoder.encode(TEXTS)["pooled"]
    for tuned, rows in rows_of.items():
        np.testing.assert_allclose(found[tuned]["pooled"][rows], right[rows], atol=1e-5)


def refs(above: onnx.ModelProto, *keys: str) -> list[TunedLayersRef]:
    data = above.SerializeToString()
    return [TunedLayersRef(key, 4, lambda: data) for key in keys]


def test_what_was_not_asked_for_longest_makes_room(above):
    async def run() -> list[str]:
        size = len(above.SerializeToString())
        bank = TunedLayersCache(budget_bytes=5 * size)  # room for two: each takes twice its size
        a, b, c = refs(above, "a", "b", "c")
        for ref in (a, b, a, c):
            await bank.get(ref, segment)
        return bank.loaded

    assert asyncio.run(run()) == ["a", "c"]


def test_others_are_answered_while_one_is_loaded(above):
    loading, go_on = threading.Event(), threading.Event()

    def slow() -> bytes:
        loading.set()
        assert go_on.wait(timeout=60)
        return above.SerializeToString()

    async def run() -> list[str]:
        bank = TunedLayersCache(1 << 30)
        (other,) = refs(above, "other")
        await bank.get(other, segment)
        task = asyncio.create_task(bank.get(TunedLayersRef("slow", 4, slow), segment))
        await asyncio.to_thread(loading.wait, 60)
        await bank.get(other, segment)
        before = bank.loaded
        go_on.set()
        await task
        return [*before, *bank.loaded]

    assert asyncio.run(run()) == ["other", "other", "slow"]


def test_one_that_is_larger_than_the_budget_is_loaded_all_the_same(above):
    async def run() -> list[str]:
        bank = TunedLayersCache(budget_bytes=0)
        for ref in refs(above, "a", "b"):
            await bank.get(ref, segment)
        return bank.loaded

    assert asyncio.run(run()) == ["b"]


def test_layers_that_failed_are_loaded_anew_but_not_at_every_failure(above):
    async def run() -> None:
        bank = TunedLayersCache(budget_bytes=1 << 40)
        (ref,) = refs(above, "a")
        first = await bank.get(ref, segment)
        assert not bank.renew("a", least_s=60)
        assert await bank.get(ref, segment) is first
        assert bank.renew("a", least_s=0)
        assert await bank.get(ref, segment) is not first
        assert not bank.renew("unknown", least_s=0)

    asyncio.run(run())


def test_a_cut_that_is_to_be_loaded_anew_serves_until_it_is(grafted, encoder):
    layers = TunedLayers(4, grafted._cuts[4][1])
    grafted.expire_cut(4)
    assert not grafted.has_cut(4)
    right = encoder.encode(TEXTS)["pooled"]
    np.testing.assert_allclose(grafted.encode_by(layers, TEXTS)["pooled"], right, atol=1e-5)
    grafted.add_cut(4, *grafted._cuts[4])
    assert grafted.has_cut(4)


def test_layers_that_cannot_be_read_fail_for_those_who_asked_and_are_tried_again(above):
    async def run() -> TunedLayers:
        bank, failed = TunedLayersCache(1 << 30), []

        def read() -> bytes:
            if not failed:
                failed.append(1)
                raise StoreError("The store cannot be read.", reason="STORE_FAILED")
            return above.SerializeToString()

        ref = TunedLayersRef("a", 4, read)
        with pytest.raises(StoreError):
            await bank.get(ref, segment)
        return await bank.get(ref, segment)

    assert asyncio.run(run()).below == 4
