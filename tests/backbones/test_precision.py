"""Encoders in int8 and fp16: how near they are to float32, and where they may run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from graft_server.backbones.graphs import reducing
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.contract import Making
from graft_server.backbones.preprocessing import odd_batches
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.packing import pack
from graft_server.domain.errors import BackboneError
from graft_server.encoding.encoder import Encoder, device_for, run_bound
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunk import Trunk
from graft_server.jobs.job import Place

TEXTS = ["my card was declined", "where is my money? " * 20, "a", "größer als 10 € 🙂"]


@pytest.fixture(scope="session")
def reference(encoder_cache, backbone) -> Path:
    """The default backbone's graph in float32."""
    return EncoderCache(encoder_cache).graph(backbone.encoder_id)


@pytest.fixture(scope="session")
def tokens(tokenizer):
    return [text.item for text in tokenizer.many(TEXTS)]


@pytest.fixture(scope="session")
def int8(reference, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "encoder.onnx"
    reducing.to_int8(reference, path)
    return path


def cosines(one, two):
    return (one["pooled"] * two["pooled"]).sum(axis=1)


@pytest.fixture(scope="session")
def nearness(reference, backbone):
    preprocessor = backbone.preprocessor()

    def measure(path):
        batches = map(preprocessor.collate, odd_batches(preprocessor))
        return reducing.nearness(reference, path, batches=batches, provider="CPUExecutionProvider")

    return measure


def test_the_precision_is_part_of_what_identifies_an_encoder():
    opened = [open_backbone(DEFAULT_NAME, DEFAULT_SOURCE, precision=it) for it in ("fp32", "int8", "fp16")]
    assert len({it.encoder_id for it in opened}) == 3
    assert {it.reference_id for it in opened} == {opened[0].encoder_id}


def test_int8_features_are_near_those_in_float32(reference, int8, encoder, tokens, nearness):
    found = nearness(int8)
    assert found.least >= reducing.LEAST_COSINE["int8"]
    assert found.mean >= 0.99
    assert cosines(encoder.encode(tokens), Encoder(int8, device="cpu", threads=1).encode(tokens)).min() > 0.98


def test_a_text_alone_has_the_same_int8_features_each_time_and_company_moves_them_a_little(int8, tokens):
    encoder = Encoder(int8, device="cpu", threads=1)
    alone = np.concatenate([encoder.encode([it])["pooled"] for it in tokens])
    again = np.concatenate([encoder.encode([it])["pooled"] for it in tokens])
    np.testing.assert_array_equal(alone, again)
    together = encoder.encode(tokens)["pooled"]
    assert 0.98 < (alone * together).sum(axis=1).min() < 1 - 1e-6


def test_an_int8_graph_with_one_scale_a_tensor_would_be_refused(reference, tmp_path, nearness):
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    path = tmp_path / "coarse.onnx"
    quantize_dynamic(str(reference), str(path), op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    assert nearness(path).least < reducing.LEAST_COSINE["int8"]


def test_the_job_refuses_what_is_too_far_from_float32(encoder_cache, backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(reducing.LEAST_COSINE, "int8", 0.9999)
    int8 = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE, precision="int8")
    (tmp_path / "encoders").mkdir()
    of_reference = EncoderCache(encoder_cache).graph(backbone.encoder_id).parent
    (tmp_path / "encoders" / backbone.encoder_id).symlink_to(of_reference)
    place = Place(cache=str(tmp_path), backbones={DEFAULT_NAME: DEFAULT_SOURCE}, precision="int8")
    entries = EncoderCache(tmp_path)
    with pytest.raises(BackboneError) as raised:
        reducing.reduce_encoder(Making(int8.name, int8.encoder_id, entries.identity), place, lambda _: None)
    assert raised.value.reason == "PRECISION_PARITY"
    assert "--precision fp32" in raised.value.message
    assert not entries.has(int8.encoder_id)


def test_the_fp16_graph_takes_and_gives_the_same_types_and_is_at_parity(reference, tmp_path, nearness):
    # On the CPU, which computes some of it in float32: on a GPU the export job asks the same of the GPU.
    path = tmp_path / "encoder.onnx"
    reducing.to_fp16(reference, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {it.type for it in session.get_outputs()} == {"tensor(float)"}
    assert path.stat().st_size < 0.55 * reference.stat().st_size
    assert nearness(path).least >= reducing.LEAST_COSINE["fp16"]


def test_bound_runs_give_what_others_do(reference, encoder, tokens):
    session = onnxruntime.InferenceSession(str(reference), providers=["CPUExecutionProvider"])
    outputs = run_bound(session, pack(tokens), "cpu")
    expected = encoder.encode(tokens)
    for view, output in zip(encoder.views, outputs, strict=True):
        np.testing.assert_allclose(output, expected[view], atol=1e-6)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_fp16_needs_a_gpu_and_says_so(device, encoder_cache):
    settings = TrunkSettings(encoder_cache, device=device, precision="fp16")
    trunk = Trunk(DEFAULT_NAME, DEFAULT_SOURCE, settings)
    with pytest.raises(BackboneError) as raised:
        asyncio.run(trunk.open(None))  # type: ignore[arg-type]
    assert raised.value.reason == "PRECISION_UNAVAILABLE"
    assert "'fp16' needs --device cuda" in raised.value.message
    assert "--precision fp32" in raised.value.message


def test_int8_runs_on_the_cpu_only():
    assert device_for("int8", "auto") == device_for("int8", "cpu") == "cpu"
    with pytest.raises(BackboneError, match="needs --device cpu"):
        device_for("int8", "cuda")


def test_making_an_int8_graph_needs_no_torch():
    code = "import sys, graft_server.backbones.graphs.reducing; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "False"
