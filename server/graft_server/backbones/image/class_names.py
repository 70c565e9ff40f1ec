"""Names of classes as evidence, for backbones of images that share a space with texts.

A text encoder beside the image encoder gives the place of "a photo of a cat" in that space; the cosine of an image
with it, times the scale that the checkpoint learned, is a logit (Radford et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.checkpoint import Checkpoint
from graft_server.backbones.preprocessing import Prepared
from graft_server.backbones.text.preprocessor import TextTokenizer, embedded
from graft_server.onnx_runtime import onnxruntime

PROMPT = "a photo of a {}."
"""What images of the Internet are described like: a bare name is a rarer caption, and does worse."""
MAX_TOKENS = 77
"""Of every published CLIP; a smaller one says so in its configuration."""
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """The places of names in the space of images."""

    features: NDArray[np.float32]
    """shape (n, d), unit-norm."""
    scale: float
    """The factor from cosines to logits."""


def encode_names(graph: Path, folder: Path, names: Sequence[str], max_tokens: int = MAX_TOKENS) -> Named:
    """Encodes n >= 1 names, or names with a description.

    The graph is loaded for it and forgotten: it is needed once a commit, and may be as large as the image side's.

    Args:
        graph: The exported text encoder; see `backbones.torch.clip`.
        folder: The checkpoint, for its tokenizer.
        names: The texts that are put into PROMPT. The features of one that the text encoder cannot read are 0.
        max_tokens: The most tokens that the text encoder reads.
    """
    config = Checkpoint.open(folder.name, folder).config
    tokenizer = TextTokenizer(folder, max_tokens, embedded=embedded(config.get("text_config") or {}))
    prepared = tokenizer.many([PROMPT.format(name) for name in names])
    readable = [row for row, it in enumerate(prepared) if isinstance(it, Prepared)]
    ids = [it.item for it in prepared if isinstance(it, Prepared)] or [tokenizer(PROMPT.format("")).item]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    features, scale = [], 1.0
    for start in range(0, len(ids), _AT_ONCE):
        found, scaled = session.run(None, collate(ids[start : start + _AT_ONCE]))
        features.append(found)
        scale = float(scaled)
    every = np.zeros((len(names), features[0].shape[1]), np.float32)
    every[readable] = np.concatenate(features)[: len(readable)]
    return Named(every, scale)


def collate(texts: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """The graph's input: each text padded with its own end mark, which nothing before it sees."""
    ids = np.empty((len(texts), max(len(text) for text in texts)), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], ids[row, len(text) :] = text, text[-1]
    return {"input_ids": ids}
