from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from graft_server.domain.errors import CorruptError, InvalidError
from graft_server.heads import decode, encode, maps
from graft_server.heads.graph import to_onnx
from graft_server.heads.half import widened
from graft_server.heads.novelty import table
from graft_server.heads.single_label import SingleLabelHead

ROWS = 300


@pytest.fixture
def features(head: SingleLabelHead) -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((ROWS, head.dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_probabilities_are_a_distribution_and_novelty_a_share(
    head: SingleLabelHead, features: np.ndarray
) -> None:
    output = head.scores(features)
    assert output.probabilities.shape == (ROWS, head.classes)
    np.testing.assert_allclose(output.probabilities.sum(axis=1), 1, atol=1e-5)
    assert output.probabilities.min() >= 0
    assert output.novelty.min() >= 0
    assert output.novelty.max() <= 1
    assert len(np.unique(output.novelty)) > ROWS / 3


def test_onnx_graph_agrees_with_numpy(head: SingleLabelHead, features: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(to_onnx(head), providers=["CPUExecutionProvider"])
    probabilities, novelty = session.run(["probabilities", "novelty"], {"features": features})
    output = head.scores(features)
    np.testing.assert_allclose(probabilities, output.probabilities, atol=1e-5)
    np.testing.assert_allclose(novelty, output.novelty, atol=1e-5)


def test_onnx_graph_takes_any_number_of_rows(head: SingleLabelHead, features: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(to_onnx(head), providers=["CPUExecutionProvider"])
    whole = session.run(["probabilities"], {"features": features})[0]
    for rows in (1, 7):
        part = session.run(["probabilities"], {"features": features[:rows]})[0]
        assert part.shape == (rows, head.classes)
        np.testing.assert_allclose(part, whole[:rows], atol=1e-6)


def test_encoding_gives_the_same_head_back(head: SingleLabelHead, features: np.ndarray) -> None:
    again = decode(encode(head))
    assert (again.kind, again.view, again.classes, again.dimension) == ("test", "pooled", 5, 24)
    np.testing.assert_array_equal(again.scores(features).probabilities, head.scores(features).probabilities)
    np.testing.assert_array_equal(again.scores(features).novelty, head.scores(features).novelty)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x80", b"\x93\x01\x02\x03"])
def test_nonsense_is_no_head(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(data)


def test_no_cut_of_a_head_is_a_head(head: SingleLabelHead) -> None:
    whole = encode(head)
    for size in range(0, len(whole), 97):
        with pytest.raises(CorruptError):
            decode(whole[:size])


@pytest.mark.parametrize("shape", [(3, 23), (24,), (2, 3, 24)])
def test_features_of_another_shape_are_refused_with_the_right_one(
    head: SingleLabelHead, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidError, match="24 numbers") as raised:
        head.scores(np.zeros(shape, np.float32))
    assert raised.value.reason == "FEATURES_DIMENSION_MISMATCH"


def test_rows_are_scored_alike_alone_and_among_many(
    head: SingleLabelHead, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = head.scores(features).probabilities
    monkeypatch.setattr(maps, "ROWS_AT_ONCE", 64)
    np.testing.assert_allclose(head.scores(features).probabilities, whole, atol=1e-6)


def test_novelty_table_reads_the_share_that_is_less_strange() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=2000).astype(np.float32)
    knots, shares = table(values)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(shares) >= 0).all()
    assert (shares[0], shares[-1]) == (0, 1)
    held_out = np.random.default_rng(1).gamma(2.0, size=4000)
    assert (np.interp(held_out, knots, shares) > 0.95).mean() == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [0.0, 1e-9], [-3e4], [5e5, 5e5]])
def test_novelty_table_of_hardly_any_values_still_rises(values: list[float]) -> None:
    knots, shares = table(np.array(values, np.float32))
    assert len(knots) >= 2
    assert (np.diff(knots) > 0).all()
    assert shares[-1] == 1


def test_importing_heads_brings_in_no_training_library() -> None:
    code = "import sys, graft_server.heads; print({'scipy', 'onnx', 'torch', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_widening_gives_every_finite_number_of_half_precision_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(2, -1)
    np.testing.assert_array_equal(widened(finite), finite.astype(np.float32))
