"""Texts to tokens: what is read, what is cut, and that nothing is padded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from graft_server.backbones.preprocessing import Prepared
from graft_server.backbones.text.packing import pack
from graft_server.backbones.text.preprocessor import TextPreprocessor, TextTokenizer
from graft_server.domain.errors import BackboneError, InvalidError
from graft_server.domain.examples import Input
from graft_server.encoding.preparing import Preparer
from graft_server.sharing.threads import Threads


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


@pytest.fixture
def made(tmp_path) -> Callable[..., TextTokenizer]:
    """Makes the tokenizer of a checkpoint whose embedding has so many tokens."""

    def make(embedded: int, *added: str, marks: bool = True) -> TextTokenizer:
        words = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "lock", "bill"]
        tokenizer = Tokenizer(models.WordPiece({it: n for n, it in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106 - a token of text
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if marks:
            tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
        tokenizer.add_special_tokens(list(added))
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return TextTokenizer(tmp_path, 16, embedded=embedded)

    return make


def test_a_text_with_a_token_that_the_embedding_lacks_is_refused_alone(made):
    tokenizer = made(6, "[CUSTOMER]")
    fine, bad = tokenizer.many(["the lock", "the [CUSTOMER] lock"])
    assert fine.item.tolist() == tokenizer("the lock").item.tolist()
    with pytest.raises(InvalidError) as raised:
        tokenizer("the [CUSTOMER] lock")
    with pytest.raises(InvalidError) as of_pair:
        tokenizer.pair("bill", "[CUSTOMER]")
    for error, field in ((bad, "text"), (raised.value, "text"), (of_pair.value, "text_pair")):
        assert (error.reason, error.field) == ("TOKEN_NOT_EMBEDDED", field)
        assert error.metadata == {"token": "[CUSTOMER]", "id": "6", "embedded": "6"}
        assert "embedding of 6 tokens" in error.message
        assert "resize_token_embeddings" in error.message


def test_a_tokenizer_with_more_tokens_than_the_embedding_says_so(made):
    tokenizer = made(6, "[ONE]", "[TWO]", "[THREE]", "[FOUR]")
    (warning,) = tokenizer.warnings
    assert "has 4 tokens" in warning
    assert "[ONE]" in warning
    assert "[FOUR]" not in warning
    assert not tokenizer.always_reads
    assert made(10, "[ONE]", "[TWO]", "[THREE]", "[FOUR]").warnings == ()
    assert made(300).always_reads
    assert made(0).warnings == (), "the configuration does not say how many there are"


def test_tokens_that_are_made_up_are_in_the_embedding(made):
    preprocessor = TextPreprocessor(made(6, *(f"[{n}]" for n in range(1_000))), 8)
    generator = np.random.default_rng(0)
    assert max(int(preprocessor.made_up(generator, 16).max()) for _ in range(50)) < 6


def test_a_tokenizer_that_puts_such_a_token_into_every_text_is_refused(made):
    with pytest.raises(BackboneError) as raised:
        made(2)
    assert raised.value.reason == "BACKBONE_TOKENIZER_MISMATCH"
    assert "[SEP]" in raised.value.message


def test_a_text_of_which_no_token_is_left_is_refused_alone(made):
    tokenizer = made(6, marks=False)
    nothing, fine = tokenizer.many(["\u200b\u0000", "lock"])
    assert fine.item.tolist() == [4]
    assert (nothing.reason, nothing.field) == ("INPUT_EMPTY", "text")
    assert not tokenizer.always_reads


def test_an_input_that_a_library_cannot_bear_is_refused_alone(made, monkeypatch):
    preprocessor = TextPreprocessor(made(6), 8)

    def broken(value: Input) -> Prepared:
        if value.text == "bill":
            raise MemoryError
        return preprocessor.tokenizer(value.text)

    monkeypatch.setattr(preprocessor, "prepare", broken)

    async def scenario() -> None:
        preparer = Preparer(preprocessor, 8, Threads("preparing", 1))
        bad, fine = await preparer.prepare_all([Input("bill"), Input("lock")])
        assert isinstance(fine, Prepared)
        assert (bad.reason, bad.field) == ("INPUT_UNREADABLE", "text")

    asyncio.run(scenario())
