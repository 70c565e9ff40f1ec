"""Classifies texts with the model in this folder. Needs onnxruntime, tokenizers and numpy, nothing else.

    python predict.py "some text" ["another text" ...]

prints a line a text: label, probability, text. Or, from Python 3.10 on, `from predict import predict`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

BATCH = 32
OUTPUTS = ["probabilities", "novelty", "features"]


class Prediction(NamedTuple):
    """What the model says of one text."""

    label: str
    probability: float
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    """0 to 1: how many of the training examples are less strange to the model."""
    abstained: bool
    """Whether the text is so strange that the label should not be trusted."""


class Classifier:
    """A bundle, loaded."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.settings = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=list(providers))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classifies n texts; the answers have their order."""
        ids = self.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # so that batches need little padding
        predictions: dict[int, Prediction] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            probabilities, novelty, _ = self.run([ids[i] for i in batch])
            for row, i in enumerate(batch):
                predictions[i] = self._prediction(probabilities[row], float(novelty[row]))
        return [predictions[i] for i in range(len(ids))]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at the model's maximum."""
        cut = [text[: self.settings["max_characters"]] for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(cut)]

    def run(self, ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], ...]:
        """Probabilities (n, classes), novelty (n,) and features (n, d) of n token sequences, in one batch."""
        shape = len(ids), max(len(row) for row in ids)
        input_ids = np.full(shape, self.settings["pad_id"], np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for i, row in enumerate(ids):
            input_ids[i, : len(row)] = row
            attention_mask[i, : len(row)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return tuple(self._session.run(OUTPUTS, inputs))

    def _prediction(self, probabilities: NDArray[np.float32], novelty: float) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        scores = [(self.labels[i], float(probabilities[i])) for i in order]
        abstained = novelty > self.settings["abstain_above"]
        return Prediction(*scores[0], scores, novelty, abstained)


@cache
def load() -> Classifier:
    """The model beside this file."""
    return Classifier(Path(__file__).resolve().parent)


def predict(texts: Sequence[str]) -> list[Prediction]:
    """Classifies texts with the model beside this file."""
    return load().predict(texts)


def main() -> None:
    """Prints a line for each text on the command line."""
    if len(sys.argv) < 2:
        sys.exit('usage: python predict.py "some text" ["another text" ...]')
    for text, prediction in zip(sys.argv[1:], predict(sys.argv[1:]), strict=True):
        print(f"{prediction.label}\t{prediction.probability:.4f}\t{text}")


if __name__ == "__main__":
    main()
