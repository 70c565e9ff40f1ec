"""The small checkpoints by name, and those that stand for their kind where not every one is tried each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

TEXTS = (
    "bert", "bert-cls", "camembert", "clip-text", "deberta", "deberta-v2", "distilbert", "electra", "gpt2", "llama",
    "mistral", "mpnet", "qwen2", "qwen3", "roberta", "t5", "xlm-roberta",
)  # fmt: skip
IMAGES = ("resnet", "convnext", "convnextv2", "vit", "dinov2", "dinov2-with-registers", "clip", "clip-vision")
CLIPS = ("whisper", "whisper-whole", "wav2vec2", "wav2vec2-layered", "hubert")

TYPICAL = {
    "bert",  # packed texts, and pairs whose tokens say which text they are of
    "roberta",  # pairs with marks between them
    "gpt2",  # padded texts that are read from the left
    "strange",  # its tokenizer has a token that its embedding lacks, and puts none into every text
    "resnet",
    "vit",
    "clip",  # with a text encoder beside it
    "whisper",  # windows that are cut to the clip
    "whisper-whole",
    "wav2vec2",
}
"""At least one of each module of `backbones.torch`. They are exported as they are made, others by whoever uses them."""


def rare(names: Iterable[str]) -> list[str]:
    """Those of the names that are not typical."""
    return [name for name in names if name not in TYPICAL]


def each(names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test, which is slow for those that are not typical."""
    return [name if name in TYPICAL else pytest.param(name, marks=pytest.mark.slow) for name in names]
