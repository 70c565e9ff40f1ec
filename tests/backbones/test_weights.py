"""Checkpoints whose files do not hold what the architecture needs are refused; names that wrappers change are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError

Weights = dict[str, Any]
FEED = "encoder.layer.1.output.dense.weight"


@pytest.fixture
def folder(tiny: Any, tmp_path: Path) -> Path:
    """A checkpoint of the test's own: a BERT of two layers."""
    return Path(shutil.copytree(tiny.folder, tmp_path / "checkpoint"))


def changed(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def loaded(folder: Path) -> Any:
    from graft_server.backbones.torch.family import torch_family  # noqa: PLC0415 (torch where it is needed)

    backbone = open_backbone("mine", str(folder))
    return backbone, torch_family(backbone).load(backbone)


def features(folder: Path) -> Any:
    from graft_server.backbones.torch.family import torch_family  # noqa: PLC0415

    backbone, model = loaded(folder)
    items = [backbone.preprocessor().made_up(np.random.default_rng(0), 12)]
    return torch_family(backbone).reference(backbone, model, items)


def refused(folder: Path) -> str:
    with pytest.raises(BackboneError) as raised:
        loaded(folder)
    assert raised.value.reason == "BACKBONE_WEIGHTS_OTHER"
    assert raised.value.message.startswith("Backbone mine: ")
    return raised.value.message


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): it for name, it in weights.items()}


def test_one_missing_weight_is_named(folder):
    said = refused(changed(folder, lambda weights: {k: it for k, it in weights.items() if k != FEED}))
    assert "1 of the" in said
    assert FEED in said


def test_a_layer_under_other_names_is_refused_with_both_names(folder):
    said = refused(changed(folder, renamed("encoder.layer.1.output.", "encoder.layer.1.ffn_out.")))
    assert "encoder.layer.1.output.LayerNorm.weight" in said
    assert "encoder.layer.1.ffn_out." in said


def test_a_prefix_that_hides_all_names_is_said(folder):
    said = refused(changed(folder, lambda weights: {f"0.auto_model.{k}": it for k, it in weights.items()}))
    assert "their names begin with '0.auto_model.'" in said


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: it for name, it in weights.items()}


@pytest.mark.parametrize(
    "change",
    [
        prefixed("_orig_mod."),
        prefixed("module."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("_orig_mod.bert."),
        renamed("encoder.layer.", "encoder._orig_mod.layer."),
        renamed("encoder.layer.1.", "encoder.layer.1._checkpoint_wrapped_module."),
    ],
)
def test_what_wrappers_put_into_names_is_read_as_if_it_were_not_there(folder, change):
    right = features(folder)
    for got, expected in zip(features(changed(folder, change)), right, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_weights_of_another_shape_are_refused_with_both_shapes(folder):
    said = refused(changed(folder, lambda weights: weights | {FEED: weights[FEED][:, :16].copy()}))
    assert f"{FEED} has 32 × 16 in the files, and should have 32 × 64" in said


def test_another_vocabulary_than_the_configuration_says_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 201}))
    assert "embeddings.word_embeddings.weight has 200 × 32 in the files, and should have 201 × 32" in refused(
        folder
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    def change(weights: Weights) -> Weights:
        weights[FEED][3, 5] = value
        return weights

    said = refused(changed(folder, change))
    assert "1 of its weights are not finite" in said
    assert FEED in said


def test_an_adapter_beside_the_weights_is_refused_with_how_to_merge_it(folder):
    name = "encoder.layer.0.attention.self.query.lora_A.weight"
    said = refused(changed(folder, lambda weights: weights | {name: np.ones((4, 32), np.float32)}))
    assert name in said
    assert "merge_and_unload" in said


def test_an_adapter_that_wraps_the_layers_is_refused_with_how_to_merge_it(folder):
    def change(weights: Weights) -> Weights:
        wrapped = renamed("query.weight", "query.base_layer.weight")(weights)
        return prefixed("base_model.model.")(wrapped)

    assert "merge_and_unload" in refused(changed(folder, change))


def test_a_folder_with_an_adapter_alone_is_refused_with_how_to_merge_it(folder):
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    for file in ("config.json", None):
        if file:
            (folder / file).unlink()
        with pytest.raises(BackboneError, match="merge_and_unload") as raised:
            open_backbone("mine", str(folder))
        assert raised.value.reason == "BACKBONE_WEIGHTS_MISSING"
        assert "some/model" in raised.value.message


def test_an_adapter_that_lies_beside_whole_weights_is_not_left_out_silently(folder):
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(BackboneError, match=r"adapter_model\.safetensors") as raised:
        open_backbone("mine", str(folder))
    assert raised.value.reason == "BACKBONE_WEIGHTS_OTHER"


def test_weights_of_the_layers_that_the_architecture_does_not_read_are_refused(folder):
    name = "encoder.layer.0.attention.self.query_norm.weight"
    said = refused(changed(folder, lambda weights: weights | {name: np.ones(32, np.float32)}))
    assert name in said


def test_heads_and_layers_above_those_that_are_asked_for_are_left_out(folder):
    right = features(folder)

    def change(weights: Weights) -> Weights:
        above = {
            k.replace("layer.1.", "layer.2."): np.array(it)
            for k, it in weights.items()
            if "encoder.layer.1." in k
        }
        head = {
            "cls.predictions.bias": np.ones(200, np.float32),
            "classifier.weight": np.ones((2, 32), np.float32),
        }
        return weights | above | head

    for got, expected in zip(features(changed(folder, change)), right, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_quantized_weights_are_refused(folder):
    said = refused(changed(folder, lambda weights: weights | {FEED: weights[FEED].astype(np.int8)}))
    assert f"quantized ({FEED} is I8)" in said


def test_a_configuration_of_quantized_weights_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    said = refused(folder)
    assert "quantized (bitsandbytes)" in said
    assert "or remove quantization_config" in said


def test_weights_in_half_precision_are_read(folder):
    def change(weights: Weights) -> Weights:
        return {k: it.astype(np.float16) if it.dtype == np.float32 else it for k, it in weights.items()}

    right = features(folder)
    for got, expected in zip(features(changed(folder, change)), right, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "unused"),
    [("bert", "pooler."), ("mpnet", "pooler."), ("dinov2", "embeddings.mask_token"), ("wav2vec2", "masked_spec_embed"),
     ("hubert", "masked_spec_embed"), ("whisper", "decoder."), ("t5", "decoder.")],
)  # fmt: skip
def test_weights_that_no_view_reads_may_be_missing(
    text_checkpoints, media_checkpoints, tmp_path, name, unused
):
    of_kind = text_checkpoints if (text_checkpoints / name).exists() else media_checkpoints
    folder = Path(shutil.copytree(of_kind / name, tmp_path / name))
    right, left_out = features(folder), [0]

    def change(weights: Weights) -> Weights:
        kept = {k: it for k, it in weights.items() if not k.startswith(unused)}
        left_out[0] = len(weights) - len(kept)
        return kept

    for got, expected in zip(features(changed(folder, change)), right, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert left_out[0] > 0


@pytest.mark.parametrize(
    ("name", "needed"),
    [("resnet", "running_mean"), ("convnext", "layernorm.weight"), ("vit", "position_embeddings"),
     ("clip", "visual_projection"), ("whisper", "encoder.embed_positions"), ("wav2vec2", "pos_conv_embed"),
     ("gpt2", "ln_f.bias"), ("t5", "relative_attention_bias"), ("roberta", "token_type_embeddings")],
)  # fmt: skip
def test_weights_that_a_view_reads_may_not_be_missing(
    text_checkpoints, media_checkpoints, tmp_path, name, needed
):
    of_kind = text_checkpoints if (text_checkpoints / name).exists() else media_checkpoints
    folder = Path(shutil.copytree(of_kind / name, tmp_path / name))
    said = refused(changed(folder, lambda weights: {k: it for k, it in weights.items() if needed not in k}))
    assert needed in said.split("not in its files")[1]


def test_tied_embeddings_are_read_under_either_name(text_checkpoints, tmp_path):
    folder = Path(shutil.copytree(text_checkpoints / "t5", tmp_path / "t5"))
    right = features(folder)
    features_of_other = features(changed(folder, renamed("shared.weight", "encoder.embed_tokens.weight")))
    for got, expected in zip(features_of_other, right, strict=True):
        np.testing.assert_array_equal(got, expected)
