"""Texts to token ids, without torch: the tokenizer's own file, read by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from graft_server.errors import BackboneError

CHARACTERS_PER_TOKEN = 64
"""Texts are cut to this many characters per token of the maximum length before they are tokenized: 1 MB of text
takes 0.65 s, of which all but the first kilobytes would be thrown away. Real text has 4 to 5; a word of more
than 100 characters is one unknown token to a WordPiece tokenizer."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """What the encoder reads of one text."""

    ids: NDArray[np.int64]
    """shape (tokens,): special tokens included."""
    truncated: bool
    """Whether the text's end was cut off."""


class TextTokenizer:
    """Turns texts into token ids. Safe to use from several threads."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise BackboneError(
                f"The tokenizer file {path.name} cannot be read: {error}", reason="BACKBONE_FILE_INVALID"
            ) from error
        # The file's own padding and truncation would pad and cut every text to 128 tokens.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer
        self._max_characters = CHARACTERS_PER_TOKEN * max_tokens

    def __call__(self, text: str) -> TokenizedText:
        """Tokenizes one text: about 30 µs for a sentence."""
        cut = len(text) > self._max_characters
        encoding = self._tokenizer.encode(text[: self._max_characters] if cut else text)
        return TokenizedText(np.asarray(encoding.ids, np.int64), cut or bool(encoding.overflowing))

    def many(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenizes several texts, on all cores."""
        heads = [text[: self._max_characters] for text in texts]
        return [
            TokenizedText(
                np.asarray(encoding.ids, np.int64), len(head) < len(text) or bool(encoding.overflowing)
            )
            for text, head, encoding in zip(
                texts, heads, self._tokenizer.encode_batch_fast(heads), strict=True
            )
        ]

    def to_json(self) -> str:
        """The tokenizer as it is used here, in the format of tokenizer.json."""
        return str(self._tokenizer.to_str())
