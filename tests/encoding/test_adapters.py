"""Rows of models with adapters, with tuned graphs, and of the frozen backbone, in one batch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.adapted import merged, products, with_adapters
from graft_server.backbones.graphs.adapters import LEAST_LANE, Adapter, LowRank, product_key
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut, joined
from graft_server.domain.errors import BackboneError, CorruptError
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import (
    GraphPart,
    SplitEncoder,
    TunedLayers,
    TunedLayersCache,
    TunedLayersRef,
)

TEXTS = [np.arange(7, 7 + length) for length in (3, 17, 1, 40, 5, 5)]
CUT = 4


def segment(graph: onnx.ModelProto | bytes) -> GraphPart:
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return GraphPart(data, device="cpu", threads=1)


def copied(graph: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(graph.SerializeToString())


@pytest.fixture(scope="module")
def whole(encoder_cache: Path, backbone: Backbone) -> onnx.ModelProto:
    return onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))


@pytest.fixture(scope="module")
def above(whole) -> onnx.ModelProto:
    return cut(copied(whole), boundary_of(whole, CUT, "minilm")).above


@pytest.fixture(scope="module")
def split(encoder: Encoder, whole: onnx.ModelProto, above, backbone: Backbone) -> SplitEncoder:
    split = SplitEncoder(encoder, backbone.preprocessor())
    parts = cut(copied(whole), boundary_of(whole, CUT, "minilm"))
    split.add_cut(CUT, segment(parts.below), segment(parts.above))
    split.add_adapted(CUT, segment(with_adapters(copied(above), "minilm")))
    return split


def adapter(graph: onnx.ModelProto, seed: int, *, rank: int = 4, skipped: int = 0) -> Adapter:
    """A random one that moves features far; without the first products."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (0.05 * rng.normal(size=shape)).astype(np.float16).astype(np.float32)

    shapes = [(product_key(it.matrix), it.matrix.shape) for it in products(graph)][skipped:]
    return Adapter({it: LowRank(normal(a, rank), normal(rank, b), normal(b)) for it, (a, b) in shapes})


def test_a_mixed_batch_of_adapters_a_tuned_graph_and_the_frozen_backbone(split, encoder, above):
    adapters = [adapter(above, 1), adapter(above, 2, rank=2), adapter(above, 3, skipped=2)]
    graphs = [merged(copied(above), it) for it in (*adapters, adapter(above, 4))]
    alone = [TunedLayers(CUT, segment(it)) for it in graphs]
    every: list[TunedLayers | None] = [*(TunedLayers(CUT, it) for it in adapters), alone[3], None]
    of_row = [4, 2, 1, 0, 3, 0]
    rows_of = {it: np.flatnonzero(np.array(of_row) == number) for number, it in enumerate(every)}
    found = split.encode_with(TEXTS, rows_of)
    frozen = encoder.encode(TEXTS)
    for row, number in enumerate(of_row):
        right = frozen if number == 4 else split.encode_by(alone[number], TEXTS)
        np.testing.assert_allclose(found[every[number]]["pooled"][row], right["pooled"][row], atol=1e-4)
        assert number == 4 or np.abs(right["pooled"][row] - frozen["pooled"][row]).max() > 0.01
    assert found[None].keys() == frozen.keys()


def test_adapters_of_all_layers_and_frozen_rows_share_every_layer(split, encoder, whole):
    split.add_adapted(0, segment(with_adapters(copied(whole), "minilm")))
    one, other = (adapter(whole, seed, rank=1) for seed in (1, 2))
    layers = [TunedLayers(0, one), TunedLayers(0, other), None]
    rows_of = {it: np.array([number, number + 3]) for number, it in enumerate(layers)}
    found = split.encode_with(TEXTS, rows_of)
    right = split.encode_by(TunedLayers(0, segment(merged(copied(whole), one))), TEXTS)["pooled"]
    np.testing.assert_allclose(found[layers[0]]["pooled"][[0, 3]], right[[0, 3]], atol=1e-4)
    np.testing.assert_allclose(
        found[None]["pooled"][[2, 5]], encoder.encode(TEXTS)["pooled"][[2, 5]], atol=1e-5
    )


def test_a_broken_adapter_fails_its_batch_so_that_the_others_are_answered_apart(split, above):
    broken = adapter(above, 1)
    next(iter(broken.products.values())).down[:] = np.nan
    with pytest.raises(BackboneError, match="not finite"):
        split.encode_with(TEXTS[:2], {TunedLayers(CUT, broken): np.array([0]), None: np.array([1])})


def test_an_adapter_is_held_within_the_budget_by_its_own_size(above):
    small, large = adapter(above, 1, rank=1), adapter(above, 1, rank=8)
    assert small.nbytes < large.nbytes / 5
    assert len(large.encoded()) == pytest.approx(large.nbytes / 2, rel=0.15)

    async def run() -> list[str]:
        held = TunedLayersCache(budget_bytes=large.nbytes + 2 * small.nbytes)
        for key, it in {"a": small, "b": small, "c": large, "d": small}.items():
            await held.get(TunedLayersRef(key, CUT, it.encoded, adapted=True), segment)
        return held.loaded

    assert asyncio.run(run()) == ["b", "c", "d"]


def test_an_adapter_comes_back_from_its_bytes_and_other_bytes_are_refused(above):
    one = adapter(above, 1, rank=2)
    found = Adapter.decode("k", one.encoded())
    assert found.rank == 2
    for key, low in one.products.items():
        np.testing.assert_array_equal(found.products[key].matrix, low.matrix)
        np.testing.assert_array_equal(found.products[key].offset, low.offset)
    with pytest.raises(CorruptError, match="no adapter"):
        Adapter.decode("k", b"something else")


def test_a_merged_adapter_joins_the_part_below_into_one_graph(split, whole, above):
    one = adapter(above, 1)
    below = cut(copied(whole), boundary_of(whole, CUT, "minilm")).below
    joint = segment(joined(below, merged(copied(above), one)))
    right = split.encode_by(TunedLayers(CUT, one), TEXTS)["pooled"]
    np.testing.assert_allclose(joint.run(split._collate(TEXTS))["pooled"], right, atol=1e-4)


def test_a_graph_without_the_product_of_an_adapter_is_not_merged(above):
    strange = Adapter({"0" * 24: LowRank(np.ones((2, 1), "f"), np.ones((1, 2), "f"), np.zeros(2, "f"))})
    with pytest.raises(BackboneError, match="commit again"):
        merged(copied(above), strange)


def test_an_adapter_with_many_tokens_has_several_lanes(split, above, encoder):
    one, other = TunedLayers(CUT, adapter(above, 1)), TunedLayers(CUT, adapter(above, 2))
    texts = [np.arange(7, 7 + 5 * LEAST_LANE), np.arange(7, 9)]
    found = split.encode_with(texts, {one: np.array([0]), other: np.array([1])})
    for row, it in enumerate((one, other)):
        right = split.encode_by(it, [texts[row]])["pooled"][0]
        np.testing.assert_allclose(found[it]["pooled"][row], right, atol=1e-5)
