"""Answers for texts, or pairs of texts, with the model in this folder.

Needs onnxruntime, tokenizers and numpy, nothing else.

    python predict.py "some text" ["another text" ...]

prints a line a text: label, probability, text; of several labels those that apply, joined by commas, and their
probabilities; of a number, the number, and its interval. Or, from Python 3.10 on, `from predict import predict`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from graft_server.exporting.runner.answers import Answer, Outputs, answers_of, shown

BATCH = 32

Text = str | tuple[str, str]
"""A text, or the two of a pair."""


class Classifier:
    """A bundle, loaded."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.settings = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=list(providers))

    def predict(self, texts: Sequence[Text]) -> list[Answer]:
        """Answers for n texts or pairs, in their order."""
        ids = self.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # so that batches need little padding
        predictions: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            answers = answers_of(self.run([ids[i] for i in batch]), self.labels, self.settings)
            predictions |= zip(batch, answers, strict=True)
        return [predictions[i] for i in range(len(ids))]

    def tokenize(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids of each text or pair, cut at the model's maximum.

        Where the model takes token types, -1 - id is a token of the second text.
        """
        most = self.settings["max_characters"]
        if not self.settings["pairs"] and not all(isinstance(it, str) for it in texts):
            raise ValueError("this model reads texts, not pairs of them")
        cut = [it[:most] if isinstance(it, str) else (it[0][:most], it[1][:most]) for it in texts]
        encodings = self._tokenizer.encode_batch(cut)
        if not self.settings["token_type_ids"]:
            return [encoding.ids for encoding in encodings]
        return [
            [-1 - token if second else token for token, second in zip(it.ids, it.type_ids, strict=True)]
            for it in encodings
        ]

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


def predict(texts: Sequence[Text]) -> list[Answer]:
    """Answers for texts or pairs with the model beside this file."""
    return load().predict(texts)


def main() -> None:
    """Prints a line for each text on the command line."""
    if len(sys.argv) < 2:
        sys.exit('usage: python predict.py "some text" ["another text" ...]')
    for text, prediction in zip(sys.argv[1:], predict(sys.argv[1:]), strict=True):
        print(f"{shown(prediction)}\t{text}")


if __name__ == "__main__":
    main()
