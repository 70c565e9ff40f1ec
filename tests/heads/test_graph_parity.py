"""Whether a head and its graph agree: how strictly it is asked follows how large the numbers are that are summed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from graft_server.domain.errors import FaultError
from graft_server.heads import KernelMap, LinearMap, Member, Novelty, rounding
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.heads.rounding import GRAPH_PARITY
from graft_server.heads.single_label import SingleLabelHead

DIMENSION, CLASSES, PAIRS = 24, 4, 100


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(seed, n):
    rows = normal(seed, n, DIMENSION)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def head_of(map_):
    knots, shares = np.array([-9, -3, 0], np.float32), np.array([0, 0.5, 1], np.float32)
    return SingleLabelHead(
        "test", "pooled", (Member(map_, 0.5, 1.0),), 1.0, Novelty(unit(0, 5), 1.0, 1.0, knots, shares)
    )


@pytest.fixture
def plain():
    weight = 4 * normal(1, DIMENSION, CLASSES)
    return head_of(LinearMap(weight, np.zeros(CLASSES, np.float32)))


@pytest.fixture
def cancelling():
    """A kernel head with pairs of landmarks close together, whose large weights nearly cancel out."""
    landmarks = unit(1, PAIRS)
    near = (landmarks + np.float16(1e-3) * unit(2, PAIRS)).astype(np.float16)
    weight = 300 * normal(3, PAIRS, CLASSES)
    bias = np.full(CLASSES, 1 / CLASSES, np.float32)
    return head_of(
        KernelMap(np.concatenate([landmarks, near]), 1.0, np.concatenate([weight, -weight]), bias, 0.03)
    )


def skewed(graph, by):
    """The graph with another bias for the first class."""
    model = onnx.load_model_from_string(graph)
    bias = next(it for it in model.graph.initializer if "bias" in it.name)
    values = numpy_helper.to_array(bias).copy()
    values[0] += by
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return model.SerializeToString()


def off(head, graph, rows):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (computed,) = session.run(["probabilities"], {"features": rows.astype(np.float32)})
    return np.abs(computed - head.scores(rows.astype(np.float32)).probabilities).max()


def test_a_head_whose_weights_cancel_out_may_be_off_by_what_float32_rounds(cancelling):
    rows, graph = unit(4, 500), to_onnx(cancelling)
    assert off(cancelling, graph, rows) > GRAPH_PARITY
    check_parity(cancelling, graph, rows)


def test_a_head_whose_weights_cancel_out_may_not_be_off_by_more(cancelling):
    with pytest.raises(FaultError, match="probabilities by up to") as raised:
        check_parity(cancelling, skewed(to_onnx(cancelling), 0.1), unit(4, 500))
    assert raised.value.reason == "HEAD_PARITY"


def test_a_head_of_small_weights_is_held_to_the_fifth_digit(plain):
    rows = unit(4, 500)
    answers, _ = rounding.allowance(plain, rows.astype(np.float32))
    assert answers.max() < GRAPH_PARITY
    check_parity(plain, to_onnx(plain), rows)
    slightly = skewed(to_onnx(plain), 1.6e-4)
    assert off(plain, slightly, rows) < 2 * GRAPH_PARITY
    with pytest.raises(FaultError, match="probabilities by up to"):
        check_parity(plain, slightly, rows)


def test_the_allowance_bounds_what_two_ways_to_compute_a_head_differ_by(plain, cancelling):
    for head in (plain, cancelling):
        rows = unit(4, 500)
        answers, novelty = rounding.allowance(head, rows.astype(np.float32))
        assert answers.shape == (500, CLASSES)
        assert novelty.shape == (500,)
        wide = double_precision(head, rows)
        found = np.abs(head.scores(rows.astype(np.float32)).probabilities - wide)
        assert (found <= 1e-6 + answers).all()


def double_precision(head, rows):
    """What the head's first member would answer without rounding."""
    x, of = rows.astype(np.float64), head.members[0].map
    if isinstance(of, LinearMap):
        logits = x @ of.weight.astype(np.float64)
    else:
        z = of.landmarks.astype(np.float64)
        squared = np.square(x[:, None] - z).sum(axis=2)
        scores = np.exp(-of.gamma * squared) @ of.weight.astype(np.float64) + of.bias
        logits = np.log(np.maximum(np.logaddexp(0, scores / of.softness), 1e-30))
    logits = logits / head.members[0].temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
