"""Answers for texts, or pairs of texts, with the model in this folder.

Needs onnxruntime, tokenizers and numpy, nothing else.

    python predict.py "some text" ["another text" ...]

prints a line a text: label, probability, text; of several labels those that apply, joined by commas (or a list in
JSON, where commas would not tell them apart), and their probabilities; of a number, the number, and its interval.
Behind it, what is to be minded: "abstained: ...", "truncated: ...", or "error: ..." where there is no answer. Or, from
Python 3.10 on, `from predict import predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from graft_server.exporting.runner.answers import Answer, Outputs, answers_of
from graft_server.exporting.runner.classifier import Bundle, answer_arguments
from graft_server.exporting.runner.inputs import Refused

BATCH = 32

Text = str | tuple[str, str]
"""A text, or the two of a pair."""


class Classifier(Bundle):
    """A bundle that reads texts, loaded."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        super().__init__(folder, providers)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def _of_inputs(self, values: Sequence[Text]) -> list[Answer | Refused]:
        encodings, truncated = self._encoded(values)
        ids = [self._ids(it) for it in encodings]
        found: dict[int, Answer | Refused] = {}
        for number, it in enumerate(encodings):
            why = self._refused(it)
            if why is not None:
                found[number] = why
        order = [i for i in range(len(ids)) if i not in found]
        order.sort(key=lambda i: len(ids[i]))  # so that batches need little padding
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            outputs = self.run([ids[i] for i in batch])
            answers = answers_of(outputs, self.labels, self.settings, [truncated[i] for i in batch])
            found |= zip(batch, answers, strict=True)
        return [found[i] for i in range(len(ids))]

    def tokenize(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids of each text or pair, cut at the model's maximum.

        Where the model takes token types, -1 - id is a token of the second text.
        """
        return [self._ids(it) for it in self._encoded(texts)[0]]

    def _encoded(self, texts: Sequence[Text]) -> tuple[list[Encoding], list[bool]]:
        """The tokens of each text or pair, and whether its end was cut off."""
        most = self.settings["max_characters"]
        cut = [it[:most] if isinstance(it, str) else (it[0][:most], it[1][:most]) for it in texts]
        encodings = self._tokenizer.encode_batch(cut)
        return encodings, [
            bool(encoding.overflowing) or head != text
            for encoding, head, text in zip(encodings, cut, texts, strict=True)
        ]

    def _refused(self, encoding: Encoding) -> Refused | None:
        """Why the model cannot read the tokens of a text; None if it can."""
        if not encoding.ids:
            return Refused(
                "INPUT_EMPTY",
                "The tokenizer leaves no token of the text, which may have invisible characters only: give a text with "
                "something in it.",
            )
        embedded = self.settings["embedded_tokens"]
        strange = next((it for it in encoding.ids if it >= embedded), None)
        if strange is None:
            return None
        return Refused(
            "TOKEN_NOT_EMBEDDED",
            f"The text has the token {self._tokenizer.id_to_token(strange)!r} (id {strange:,}), which the model's "
            f"embedding of {embedded:,} tokens lacks: its tokenizer and its weights do not match. Without that token "
            "the text can be read.",
        )

    def _ids(self, encoding: Encoding) -> list[int]:
        if not self.settings["token_type_ids"]:
            ids: list[int] = encoding.ids
            return ids
        types = zip(encoding.ids, encoding.type_ids, strict=True)
        return [-1 - token if second else token for token, second in types]

    def run(self, ids: Sequence[Sequence[int]]) -> Outputs:
        """The model's outputs by name, for n token sequences in one batch."""
        shape = len(ids), max(len(row) for row in ids)
        input_ids = np.full(shape, self.settings["pad_id"], np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for i, row in enumerate(ids):
            input_ids[i, : len(row)] = row
            attention_mask[i, : len(row)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        names = self.settings["outputs"]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


@cache
def load() -> Classifier:
    """The model beside this file."""
    return Classifier(Path(__file__).resolve().parent)


def predict(texts: Any) -> list[Answer | Refused]:
    """Answers for texts or pairs with the model beside this file; see `Bundle.predict`."""
    return load().predict(texts)


if __name__ == "__main__":
    answer_arguments(load, 'python predict.py "some text" ["another text" ...]')
