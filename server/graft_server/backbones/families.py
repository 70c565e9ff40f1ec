"""Which architectures there are, and who knows what about each.

An architecture (`model_type` of a checkpoint's configuration) belongs to a family: those whose graphs are made
alike. What a family's inputs become is said here, without torch; how its graph is made, by a module of
`backbones.torch`, which workers load by its name. To add one: docs/adding-a-backbone.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from graft_server.backbones.audio import preprocessor as audio
from graft_server.backbones.backbone import Family
from graft_server.backbones.checkpoint import Checkpoint
from graft_server.backbones.image import preprocessor as image
from graft_server.backbones.text import preprocessor as text
from graft_server.domain.errors import BackboneError
from graft_server.domain.examples import Modality

_PACKED_TEXT = Family(Modality.TEXT, "packed_text", text.describe_packed, text.packed_preprocessor)
_PADDED_TEXT = Family(Modality.TEXT, "padded_text", text.describe_padded, text.padded_preprocessor)
_CONVOLUTIONAL = Family(Modality.IMAGE, "convolutional", image.describe_convolutional, image.preprocessor)
_VISION_TRANSFORMER = Family(
    Modality.IMAGE, "vision_transformer", image.describe_transformer, image.preprocessor
)
_CLIP = Family(Modality.IMAGE, "clip", image.describe_clip, image.preprocessor, names=True)
_CLIP_VISION = Family(Modality.IMAGE, "clip", image.describe_clip, image.preprocessor)
_WHISPER = Family(Modality.AUDIO, "whisper", audio.describe_whisper, audio.spectrogram_preprocessor)
_WAVEFORM = Family(Modality.AUDIO, "waveform", audio.describe_waveform, audio.waveform_preprocessor)

FAMILIES: Mapping[str, Family] = {
    # Text encoders. MiniLM checkpoints are BERTs.
    "bert": _PACKED_TEXT,
    "roberta": _PACKED_TEXT,
    "xlm-roberta": _PACKED_TEXT,
    "camembert": _PACKED_TEXT,
    "electra": _PACKED_TEXT,
    "distilbert": _PADDED_TEXT,
    "mpnet": _PADDED_TEXT,
    "deberta": _PADDED_TEXT,
    "deberta-v2": _PADDED_TEXT,
    "t5": _PADDED_TEXT,
    "clip_text_model": _PADDED_TEXT,
    # Text decoders.
    "gpt2": _PADDED_TEXT,
    "llama": _PADDED_TEXT,
    "mistral": _PADDED_TEXT,
    "qwen2": _PADDED_TEXT,
    "qwen3": _PADDED_TEXT,
    # Images.
    "resnet": _CONVOLUTIONAL,
    "convnext": _CONVOLUTIONAL,
    "convnextv2": _CONVOLUTIONAL,
    "vit": _VISION_TRANSFORMER,
    "dinov2": _VISION_TRANSFORMER,
    "dinov2_with_registers": _VISION_TRANSFORMER,
    "clip": _CLIP,
    "clip_vision_model": _CLIP_VISION,
    # Audio.
    "whisper": _WHISPER,
    "wav2vec2": _WAVEFORM,
    "hubert": _WAVEFORM,
}
"""By architecture."""


def family_of(checkpoint: Checkpoint) -> Family:
    """Returns the family of a checkpoint's architecture.

    Raises:
        BackboneError: It is not supported; the message lists what is.
    """
    family = FAMILIES.get(checkpoint.architecture)
    if family is None:
        by_modality = "; ".join(
            f"{modality}: {', '.join(sorted(name for name, it in FAMILIES.items() if it.modality is modality))}"
            for modality in Modality
            if any(it.modality is modality for it in FAMILIES.values())
        )
        raise BackboneError(
            f"Backbone {checkpoint.name}: the architecture {checkpoint.architecture or 'of its config.json'!r} is "
            f"not supported. These are: {by_modality}.",
            reason="BACKBONE_ARCHITECTURE_UNSUPPORTED",
        )
    return family
