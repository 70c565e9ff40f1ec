"""A user's own checkpoint, exported once and served; and what is kept of it on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.v1 import model_pb2
from graft_server.backbones.families import FAMILIES
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.contract import Making
from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError
from graft_server.encoding.encoder import Encoder
from graft_server.jobs.job import Place


def _entries(cache: Path) -> list[str]:
    """What lies in a cache, and what this process has there half-made."""
    found = [it for it in (cache / "encoders").iterdir() if it.name != ".temporary"]
    return [it.name for it in [*found, *(cache / "encoders").glob(".temporary/*/*")]]


def features(wire: Any, texts: list[str]) -> Any:
    return np.array([it.features for it in wire.predict("tests/m", texts, include_features=True).results])


@pytest.mark.slow
def test_a_checkpoint_of_ones_own_is_exported_and_served_also_over_a_damaged_cache(
    serve, connect, tiny, few, tmp_path
):
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "tiny"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    graph = EncoderCache(tmp_path / "cache").graph(open_backbone("mine", str(folder)).encoder_id)
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"half a graph")
    server = serve("--cache", str(tmp_path / "cache"), "--backbone", f"mine={folder}")
    wire = connect(server)
    (backbone,) = wire.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones
    assert (backbone.name, backbone.is_default, backbone.feature_dimension) == ("mine", True, 32)
    assert wire.publish("tests/m", few).summary.backbone == "mine"
    np.testing.assert_allclose(features(wire, tiny.texts), tiny.cls, atol=1e-4)
    assert np.abs(tiny.cls - tiny.mean).max() > 0.1, "the two poolings would be taken for each other"
    assert "is made again" in "".join(server.log)


# As a checkpoint that brings code of its own says so.
CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from transformers import BertConfig, BertModel
class OwnConfig(BertConfig): pass
class OwnModel(BertModel): pass
"""


def test_a_graph_that_does_not_tell_what_torch_does_is_not_kept(text_checkpoints, tmp_path, monkeypatch):
    from graft_server.backbones.torch.export import export_encoder  # noqa: PLC0415 (torch where it is needed)

    # As if somebody had put an architecture into a family that it does not fit: GPT-2 looks back only, BERT both ways.
    monkeypatch.setitem(FAMILIES, "gpt2", FAMILIES["bert"])
    folder = str(text_checkpoints / "gpt2")
    backbone = open_backbone("mine", folder)
    place = Place(cache=str(tmp_path), backbones={"mine": folder})
    with pytest.raises(
        BackboneError, match="Backbone mine: the exported graph differs from torch by "
    ) as raised:
        export_encoder(Making("mine", backbone.encoder_id, ""), place, lambda _: None)
    assert raised.value.reason == "EXPORT_PARITY"
    assert _entries(tmp_path) == []


def test_code_that_comes_with_a_checkpoint_is_never_run(tiny, tmp_path):
    from graft_server.backbones.torch.family import torch_family  # noqa: PLC0415

    folder = Path(shutil.copytree(tiny.folder, tmp_path / "tiny"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE)
    backbone = open_backbone("mine", str(folder))
    assert type(torch_family(backbone).load(backbone)).__name__ == "BertModel"
    assert not list(tmp_path.rglob("ran"))


def test_a_graph_that_cannot_be_loaded_is_an_error(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(BackboneError) as raised:
        Encoder(tmp_path / "encoder.onnx", device="cpu", threads=1)
    assert raised.value.reason == "ENCODER_LOAD_FAILED"


def test_the_default_encoder_gives_unit_norm_features_that_do_not_depend_on_company(encoder, tokenizer):
    texts = [tokenizer(text).item for text in ("a", "the lock is stuck", "why " * 300, "漢字")]
    together = encoder.encode(texts)["pooled"]
    assert together.shape == (4, 384)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(encoder.encode([text])["pooled"][0], row, atol=1e-6)


def test_a_failed_export_leaves_nothing_in_the_cache(tmp_path):
    cache = EncoderCache(tmp_path)

    def fail() -> None:
        with cache.new_entry("id") as entry:
            (entry / "encoder.onnx").write_bytes(b"half")
            raise BackboneError("no parity", reason="EXPORT_PARITY")

    with pytest.raises(BackboneError):
        fail()
    assert not cache.has("id")
    assert _entries(tmp_path) == []


def test_of_two_who_export_the_same_encoder_both_succeed(tmp_path):
    cache = EncoderCache(tmp_path)
    with cache.new_entry("id") as one, cache.new_entry("id") as two:
        for entry in (one, two):
            (entry / "encoder.onnx").write_bytes(b"graph")
    assert cache.graph("id").read_bytes() == b"graph"
    assert _entries(tmp_path) == ["id"]
    cache.discard("id")
    assert not cache.has("id")


def test_a_checkpoint_is_the_same_encoder_wherever_it_lies(tiny, tmp_path):
    copied = shutil.copytree(tiny.folder, tmp_path / "elsewhere")
    assert open_backbone("a", str(copied)).encoder_id == open_backbone("b", str(tiny.folder)).encoder_id
