"""Image and audio checkpoints on disk: what is found out of their files, and what is refused with which remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError

RESNET = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}
CLIP = {"image_processor_type": "CLIPImageProcessor"}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80}


def opened(folder: Path, config: dict[str, Any], preprocessing: Any = None, **files: str) -> Backbone:
    """Opens a checkpoint; opening reads no weights but for their digest."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(json.dumps(config))
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    return open_backbone("mine", str(folder))


def refused(*arguments: Any, **files: str) -> BackboneError:
    with pytest.raises(BackboneError) as raised:
        opened(*arguments, **files)
    assert raised.value.message.startswith("Backbone mine: ")
    return raised.value


def test_published_configurations_are_described(tmp_path):
    resnet = opened(tmp_path / "a", {"model_type": "resnet", "hidden_sizes": [256, 512, 1024, 2048]}, RESNET)
    assert (resnet.layers, resnet.dimension, resnet.modality, resnet.max_tokens) == (4, 2048, "image", 0)
    vision = {"num_hidden_layers": 12, "hidden_size": 768}
    config = {"model_type": "clip", "projection_dim": 512, "vision_config": vision}
    clip = opened(tmp_path / "b", config, CLIP, tokenizer="{}")
    assert (clip.layers, clip.dimension, clip.max_tokens) == (12, 512, 77)
    whisper = opened(tmp_path / "c", {"model_type": "whisper", "encoder_layers": 4, "d_model": 384}, WHISPER)
    assert (whisper.layers, whisper.dimension, whisper.modality) == (4, 384, "audio")
    hubert = {"model_type": "hubert", "num_hidden_layers": 24, "hidden_size": 1024}
    assert opened(tmp_path / "d", hubert, {"sampling_rate": 16_000}).dimension == 1024


def test_a_convolutional_encoder_of_one_stage_is_refused(tmp_path):
    error = refused(tmp_path / "a", {"model_type": "resnet", "hidden_sizes": [64]}, RESNET)
    assert "hidden_sizes of its config.json has 1 stage" in error.message


def test_another_preprocessing_is_another_encoder(tmp_path):
    config = {"model_type": "whisper"}
    one = opened(tmp_path / "a", config, WHISPER)
    assert one.encoder_id == opened(tmp_path / "b", config, WHISPER).encoder_id
    assert one.encoder_id != opened(tmp_path / "c", config, WHISPER | {"whole_window": False}).encoder_id


@pytest.mark.parametrize("architecture", ["resnet", "vit", "clip_vision_model", "whisper", "wav2vec2"])
def test_a_checkpoint_without_its_preprocessing_is_refused(tmp_path, architecture):
    error = refused(tmp_path / "a", {"model_type": architecture})
    assert error.reason == "BACKBONE_FILE_MISSING"
    assert "preprocessor_config.json" in error.message


def test_a_clip_without_its_tokenizer_is_refused(tmp_path):
    error = refused(tmp_path / "a", {"model_type": "clip"}, CLIP)
    assert error.reason == "BACKBONE_FILE_MISSING"
    assert "tokenizer.json" in error.message


def test_an_image_processor_that_is_not_known_is_named(tmp_path):
    error = refused(tmp_path / "a", {"model_type": "vit"}, {"image_processor_type": "SamImageProcessor"})
    assert error.reason == "BACKBONE_PREPROCESSING_UNKNOWN"
    assert "SamImageProcessor" in error.message
    assert "ViTImageProcessor" in error.message


def test_an_architecture_that_is_not_known_is_named_with_those_that_are(tmp_path):
    error = refused(tmp_path / "a", {"model_type": "detr"}, RESNET)
    assert error.reason == "BACKBONE_ARCHITECTURE_UNSUPPORTED"
    assert "'detr'" in error.message
    for known in ("resnet", "clip", "whisper", "bert"):
        assert known in error.message
