"""Makes small checkpoints of every image and audio architecture, as a user would: python checkpoints.py FOLDER CACHE.

Random weights, but the same each time, so that what is exported of them is found in the cache. The typical ones are
exported to it here, by one process, so that no server of the tests has to start others for that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from kinds import TYPICAL
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    HubertConfig,
    HubertModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.contract import Making
from graft_server.backbones.source import open_backbone
from graft_server.backbones.torch.export import export_encoder
from graft_server.jobs.job import Place

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MLP = {"intermediate_size": 64}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
WAVES = {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    **SMALL,
    **MLP,
}
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
WORDS = ["a", "photo", "of", "the", "red", "blue", "green", "thing", "cat", "dog"]


def images() -> dict[str, tuple[Any, Any]]:
    edge = {"shortest_edge": 32}
    dino = BitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42})
    clip = CLIPImageProcessorPil(size=edge, crop_size={"height": 32, "width": 32})
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": 16, **SMALL, **MLP}
    text = {
        "vocab_size": 64, "max_position_embeddings": 16, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 1,
        **SMALL, **MLP,
    }  # fmt: skip
    return {
        "resnet": (
            ResNetModel(ResNetConfig(embedding_size=8, layer_type="basic", **STAGES)),
            ConvNextImageProcessorPil(size=edge),
        ),
        "convnext": (ConvNextModel(ConvNextConfig(**STAGES)), ConvNextImageProcessorPil(size=edge)),
        "convnextv2": (ConvNextV2Model(ConvNextV2Config(**STAGES)), ConvNextImageProcessorPil(size=edge)),
        # Trained at 32 × 32, used at 48 × 40: its positions are interpolated.
        "vit": (
            ViTModel(ViTConfig(image_size=32, patch_size=8, **SMALL, **MLP)),
            ViTImageProcessorPil(size={"height": 48, "width": 40}),
        ),
        "dinov2": (Dinov2Model(Dinov2Config(image_size=56, patch_size=14, mlp_ratio=2, **SMALL)), dino),
        "dinov2-with-registers": (
            Dinov2WithRegistersModel(
                Dinov2WithRegistersConfig(
                    image_size=56, patch_size=14, mlp_ratio=2, num_register_tokens=3, **SMALL
                )
            ),
            dino,
        ),
        "clip": (CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)), clip),
        "clip-vision": (CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)), clip),
    }


def clips() -> dict[str, tuple[Any, Any]]:
    whisper = {
        "vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
    }  # fmt: skip
    layered = Wav2Vec2Config(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, **WAVES)
    return {
        "whisper": (WhisperModel(WhisperConfig(**whisper)), WhisperFeatureExtractor()),
        "wav2vec2": (Wav2Vec2Model(Wav2Vec2Config(**WAVES)), Wav2Vec2FeatureExtractor()),
        "wav2vec2-layered": (Wav2Vec2Model(layered), Wav2Vec2FeatureExtractor()),
        "hubert": (HubertModel(HubertConfig(**WAVES)), Wav2Vec2FeatureExtractor()),
        # Whole windows, but of 3 s.
        "whisper-whole": (
            WhisperModel(WhisperConfig(**whisper, max_source_positions=150)),
            WhisperFeatureExtractor(chunk_length=3),
        ),
    }


def clip_tokenizer() -> Tokenizer:
    """Words instead of CLIP's byte pairs, between CLIP's marks."""
    vocabulary = {word: n for n, word in enumerate([START, END, UNKNOWN, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 0), (END, 1)]
    )
    return tokenizer


def unalike(model: torch.nn.Module) -> None:
    """Gives biases and scales, which begin as zeros and ones, values of their own, as training does.

    The exporter merges weights that are equal, and a graph in which they are one cannot be given tuned ones.
    """
    for weights in model.parameters():
        if weights.ndim == 1:
            weights.data += 0.002 * torch.randn(weights.shape)


def make(folder: Path) -> None:
    """Saves them all, each in a folder of its name."""
    for of_kind in (images, clips):
        torch.manual_seed(0)
        for name, (model, processor) in of_kind().items():
            unalike(model)
            # BatchNorm's running statistics should not be trivial.
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
            if name.startswith("whisper"):  # as initialised, positions are all that there is to see
                model.encoder.conv1.weight.data.mul_(10)
                model.encoder.conv2.weight.data.mul_(10)
            model.eval().save_pretrained(folder / name)
            processor.save_pretrained(folder / name)
    # Windows that are cut to the clip.
    settings = folder / "whisper" / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"whole_window": False}))
    clip_tokenizer().save(str(folder / "clip" / "tokenizer.json"))


def export(folder: Path, cache: Path) -> None:
    """Exports the typical ones of a folder's checkpoints, where that has not been done."""
    for name in sorted(TYPICAL & {it.name for it in folder.iterdir()}):
        backbone = open_backbone(name, str(folder / name))
        if not EncoderCache(cache).has(backbone.encoder_id):
            place = Place(cache=str(cache), backbones={name: str(folder / name)})
            wanted = Making(name, backbone.encoder_id, EncoderCache(cache).identity)
            export_encoder(wanted, place, lambda _: None)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
    export(Path(sys.argv[1]), Path(sys.argv[2]))
