"""A small BERT with random weights, made as a user would make one, and what torch says of some texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

TEXTS = ["the lock is stuck", "my bill is wrong", "a", "lock " * 40]


@dataclass
class TinyBackbone:
    """A checkpoint in Hugging Face format, and torch's own features of TEXTS, unit-norm."""

    folder: Path
    texts: list[str]
    cls: NDArray[np.float32]
    mean: NDArray[np.float32]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBackbone:
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' and torch's own
        cls, mean = _make(folder, TEXTS).transpose(1, 0, 2)
    return TinyBackbone(folder, TEXTS, cls, mean)


def _make(folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Saves the checkpoint, and returns the features of texts, shape (texts, 2, d): of the first token and the mean."""
    import torch  # noqa: PLC0415 (torch only where it is needed)
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    words = sorted({word for text in texts for word in text.split()} | set("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=200, max_position_embeddings=64, **sizes)).eval()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    features = []
    with torch.no_grad():
        for text in texts:
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
            both = torch.stack([hidden[0], hidden.mean(0)])
            features.append(torch.nn.functional.normalize(both, dim=-1).numpy())
    return np.stack(features)
