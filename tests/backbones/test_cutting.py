"""Cutting an encoder's graph between two layers, and putting other weights above the cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import HIDDEN, EncoderCache
from graft_server.backbones.graphs.cutting import Parts, boundary_of, cut, joined, replant
from graft_server.backbones.text.packing import pack
from graft_server.domain.errors import BackboneError

TEXTS = [np.arange(5, 5 + length) for length in (3, 17, 1, 40)]


@pytest.fixture(scope="module")
def graph(encoder_cache: Path, backbone: Backbone) -> onnx.ModelProto:
    return onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))


@pytest.fixture(scope="module")
def of_texts(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What the whole graph computes of TEXTS."""
    return run(graph, pack(TEXTS))


def halves(graph: onnx.ModelProto, layer: int) -> Parts:
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    return cut(copy, boundary_of(graph, layer, "minilm"))


def run(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {it.name: arrays[it.name] for it in session.get_inputs()})
    return dict(zip([it.name for it in session.get_outputs()], found, strict=True))


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_the_parts_compute_what_the_whole_does(graph, of_texts, layer):
    parts, packed = halves(graph, layer), pack(TEXTS)
    below = run(parts.below, packed)
    found = {**below, **run(parts.above, {**packed, **below})}
    for view, right in of_texts.items():
        np.testing.assert_allclose(found[view], right, atol=1e-5)


def test_joining_the_parts_gives_the_whole_again(graph, of_texts):
    parts, packed = halves(graph, 4), pack(TEXTS)
    whole = joined(parts.below, parts.above)
    np.testing.assert_allclose(run(whole, packed)["pooled"], of_texts["pooled"], atol=1e-5)


def test_a_cut_beyond_the_last_layer_is_refused(graph):
    with pytest.raises(BackboneError) as raised:
        boundary_of(graph, 7, "minilm")
    assert raised.value.reason == "BACKBONE_NOT_CUTTABLE"


def test_other_weights_change_what_is_above_the_cut_only(graph):
    parts = halves(graph, 4)
    packed = pack(TEXTS)
    hidden = run(parts.below, packed)[HIDDEN]
    before = run(parts.above, {**packed, HIDDEN: hidden})["pooled"]
    largest = max(parts.above.graph.initializer, key=lambda it: np.prod(it.dims))
    old = onnx.numpy_helper.to_array(largest).T.copy()  # as torch has it
    replant(parts.above, {"dense.weight": old}, {"dense.weight": old * 1.5})
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(largest), (old * 1.5).T)
    after = run(parts.above, {**packed, HIDDEN: hidden})["pooled"]
    assert np.abs(after - before).max() > 1e-3


def test_a_weight_that_the_graph_lacks_is_refused(graph):
    above = halves(graph, 4).above
    old = np.ones((3, 5), np.float32)
    with pytest.raises(BackboneError, match=r"lost\.weight"):
        replant(above, {"lost.weight": old}, {"lost.weight": old * 2})


def test_weights_that_looked_alike_and_became_different_are_refused(graph):
    above = halves(graph, 4).above
    largest = max(above.graph.initializer, key=lambda it: np.prod(it.dims))
    old = onnx.numpy_helper.to_array(largest).T.copy()
    with pytest.raises(BackboneError, match="cannot be put into"):
        replant(above, {"a.weight": old, "b.weight": old}, {"a.weight": old * 2, "b.weight": old * 3})
