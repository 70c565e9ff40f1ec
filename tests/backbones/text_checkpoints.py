"""Makes small checkpoints of every text architecture, as a user would: python text_checkpoints.py FOLDER CACHE.

Random weights, but the same each time, so that what is exported of them is found in the cache; see `checkpoints`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from checkpoints import export, unalike
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    DebertaConfig,
    DebertaModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaModel,
)

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = ["the", "lock", "is", "stuck", "my", "bill", "wrong", *"abcdefghijklmnopqrstuvwxyz0123456789"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "vocab_size": 300}
PLACES = {"max_position_embeddings": 66}
GROUPED = {"num_key_value_heads": 2}
LAST = {"pooling_mode_lasttoken": True}
CLS = {"pooling_mode_cls_token": True}


def wordpiece() -> Tokenizer:
    """As BERT's: [CLS] text [SEP], with the kind of each token of a pair."""
    vocabulary = {word: n for n, word in enumerate(["[CLS]", "[PAD]", "[SEP]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
    return tokenizer


def strange() -> Tokenizer:
    """Puts no token into every text, and has one, [CUSTOMER], that was added after the embedding was made."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.add_special_tokens(["[CUSTOMER]"])
    return tokenizer


def byte_level(*, marks: bool) -> Tokenizer:
    """Bytes, as GPT-2's; with marks <s> text </s> and between the texts of a pair, as RoBERTa's."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *sorted(letters)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if marks:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def unigram() -> Tokenizer:
    """Pieces, as T5's: text </s>."""
    pieces = (
        [(it, 0.0) for it in SPECIAL]
        + [(f"▁{it}", -2.0) for it in WORDS]
        + [(it, -3.0) for it in "▁" + "".join(WORDS[7:])]
    )
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def architectures() -> dict[str, tuple[Any, Tokenizer, dict[str, bool]]]:
    """Name to model, tokenizer, and sentence-transformers' pooling settings, empty for none."""
    marked, plain = byte_level(marks=True), byte_level(marks=False)
    bert = {**SMALL, **TOKENS, **PLACES}
    # DeBERTa's. As transformers begins its weights (0.02), what it reads of two texts differs by a thousandth: so
    # little that a head which tells them apart turns the last bit of a feature into 5e-4 of a probability. So it is
    # with the first token of BERT and of XLM-RoBERTa.
    disentangled = {
        "initializer_range": 0.2,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
        "position_biased_input": False,
    }
    return {
        "bert": (BertModel(BertConfig(**bert)), wordpiece(), {}),
        "strange": (BertModel(BertConfig(**bert | {"vocab_size": 4 + len(WORDS)})), strange(), {}),
        "bert-cls": (BertModel(BertConfig(**bert, initializer_range=0.2)), wordpiece(), CLS),
        "electra": (ElectraModel(ElectraConfig(**bert, embedding_size=16)), wordpiece(), {}),
        "roberta": (RobertaModel(RobertaConfig(**bert)), marked, {}),
        "xlm-roberta": (XLMRobertaModel(XLMRobertaConfig(**bert, initializer_range=0.2)), marked, CLS),
        "camembert": (CamembertModel(CamembertConfig(**bert)), marked, {}),
        "distilbert": (
            DistilBertModel(DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **TOKENS, **PLACES)),
            marked,
            {},
        ),
        "mpnet": (MPNetModel(MPNetConfig(**bert)), marked, {}),
        "deberta-v2": (
            DebertaV2Model(
                DebertaV2Config(
                    **bert, **disentangled, position_buckets=16, share_att_key=True, norm_rel_ebd="layer_norm",
                )
            ),
            marked,
            CLS,
        ),
        "t5": (
            T5ForConditionalGeneration(T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **TOKENS)),
            unigram(),
            {},
        ),
        "clip-text": (
            CLIPTextModelWithProjection(CLIPTextConfig(**SMALL, **TOKENS, **PLACES, projection_dim=24)),
            marked,
            {},
        ),
        "gpt2": (GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **TOKENS)), plain, {}),
        "llama": (LlamaModel(LlamaConfig(**SMALL, **TOKENS, **PLACES, **GROUPED)), plain, {}),
        "mistral": (MistralModel(MistralConfig(**SMALL, **TOKENS, **PLACES, **GROUPED)), plain, {}),
        "qwen2": (Qwen2Model(Qwen2Config(**SMALL, **TOKENS, **PLACES, **GROUPED)), plain, LAST),
        "qwen3": (Qwen3Model(Qwen3Config(**SMALL, **TOKENS, **PLACES, **GROUPED, head_dim=8)), plain, LAST),
        "deberta": (DebertaModel(DebertaConfig(**bert, **disentangled)), marked, {}),
    }  # fmt: skip


def make(folder: Path) -> None:
    """Saves them all, each in a folder of its name."""
    torch.manual_seed(0)
    for name, (model, tokenizer, pooling) in architectures().items():
        unalike(model)
        place = folder / name
        shards = {"max_shard_size": "20KB"} if name == "bert-cls" else {}
        model.eval().save_pretrained(place, **shards)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place)
        if pooling:
            (place / "1_Pooling").mkdir()
            (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
    export(Path(sys.argv[1]), Path(sys.argv[2]))
