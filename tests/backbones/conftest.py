"""A small BERT with random weights, made as a user would make one, and what torch says of some texts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

TEXTS = ["the lock is stuck", "my bill is wrong", "a", "lock " * 40]
MAKE = """
import json, sys
from pathlib import Path
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

folder, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
words = sorted({word for text in texts for word in text.split()} | set("abcdefghijklmnopqrstuvwxyz"))
vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
torch.manual_seed(0)
model = BertModel(BertConfig(
    vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=64,
)).eval()
model.save_pretrained(folder)
tokenizer.save(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(64)
features = []
with torch.no_grad():
    for text in texts:
        hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        features.append([torch.nn.functional.normalize(it, dim=-1).tolist() for it in (hidden[0], hidden.mean(0))])
print(json.dumps(features))
"""


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
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MAKE, str(folder), json.dumps(TEXTS)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    cls, mean = np.array(json.loads(made.stdout.splitlines()[-1]), np.float32).transpose(1, 0, 2)
    return TinyBackbone(folder, TEXTS, cls, mean)
