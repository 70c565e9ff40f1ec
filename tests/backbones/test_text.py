"""Texts to tokens: what is read, what is cut, and that nothing is padded."""

from __future__ import annotations

import numpy as np
import pytest

from graft_server.backbones.text.packing import pack
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.domain.errors import BackboneError


def test_a_short_text_is_read_whole_and_not_padded(tokenizer):
    tokenized = tokenizer("the lock is stuck")
    assert len(tokenized.item) == 6
    assert not tokenized.truncated


@pytest.mark.parametrize(
    ("words", "tokens", "truncated"), [(253, 255, False), (254, 256, False), (255, 256, True)]
)
def test_a_text_is_cut_at_256_tokens_with_the_special_ones(tokenizer, words, tokens, truncated):
    text = " ".join(["lock"] * words)
    for tokenized in (tokenizer(text), *tokenizer.many([text, text])):
        assert (len(tokenized.item), tokenized.truncated) == (tokens, truncated)
        assert tokenized.item[-1] == tokenizer("lock").item[-1], "the end mark stays"


def test_one_and_many_give_the_same(tokenizer):
    texts = [
        "",
        "a",
        "ÄÖÜ ß 漢字 🚲",
        "word " * 1000,
        "x" * 20_000,
        "a\u0301 " * 400,
        "\u200b",
        "[SEP] [CLS]",
    ]
    for text, tokenized in zip(texts, tokenizer.many(texts), strict=True):
        alone = tokenizer(text)
        assert alone.item.tolist() == tokenized.item.tolist()
        assert alone.truncated == tokenized.truncated


def test_a_long_text_is_cut_before_it_is_tokenized_and_says_so(tokenizer):
    word = "x" * (1 << 20)
    assert tokenizer(word).truncated
    assert len(tokenizer(word).item) == 3


def test_a_tokenizer_file_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError) as raised:
        TextTokenizer(tmp_path, 256)
    assert raised.value.reason == "BACKBONE_FILE_INVALID"


def test_packing_puts_each_token_in_its_place():
    packed = pack([np.array([5, 6, 7]), np.array([8]), np.array([9, 10])])
    assert packed["input_ids"].tolist() == [5, 6, 7, 8, 9, 10]
    assert packed["position_ids"].tolist() == [0, 1, 2, 0, 0, 1]
    assert packed["rows"].tolist() == [[0, 1, 2], [3, -1, -1], [4, 5, -1]]
    assert packed["cells"].tolist() == [0, 1, 2, 3, 6, 7]
