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
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

BATCH = 32


class Prediction(NamedTuple):
    """What a model says of one text that gives each one label."""

    label: str
    probability: float
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    """0 to 1: how many of the training examples are less strange to the model."""
    abstained: bool
    """Whether the text is so strange that the label should not be trusted."""


class LabelsPrediction(NamedTuple):
    """What a model says of one text that gives each any number of labels."""

    labels: list[str]
    """The labels that apply, best first."""
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    abstained: bool


class ValuePrediction(NamedTuple):
    """What a model says of one text that answers with a number."""

    value: float
    low: float
    """The lower end of the interval that the truth is in, as often as the report says."""
    high: float
    novelty: float
    abstained: bool


Text = str | tuple[str, str]
"""A text, or the two of a pair."""
Answer = Prediction | LabelsPrediction | ValuePrediction
Outputs = dict[str, NDArray[Any]]


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
            outputs = self.run([ids[i] for i in batch])
            for row, i in enumerate(batch):
                predictions[i] = self._prediction({name: outputs[name][row] for name in self._by_row})
        return [predictions[i] for i in range(len(ids))]

    def tokenize(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids of each text or pair, cut at the model's maximum.

        Where the model is told the texts of a pair apart, -1 - id is a token of the second.
        """
        most = self.settings["max_characters"]
        if not self.settings["pairs"] and not all(isinstance(it, str) for it in texts):
            raise ValueError("this model reads texts, not pairs of them")
        cut = [it[:most] if isinstance(it, str) else (it[0][:most], it[1][:most]) for it in texts]
        encodings = self._tokenizer.encode_batch(cut)
        if not self.settings["pairs_told_apart"]:
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

    @property
    def _by_row(self) -> list[str]:
        return [name for name in self.settings["outputs"] if name != "thresholds"]

    def _prediction(self, row: Outputs) -> Answer:
        novelty = float(row["novelty"])
        abstained = novelty > self.settings["abstain_above"]
        if self.settings["task"] == "regression":
            value, low, high = (float(row[name]) for name in ("value", "low", "high"))
            return ValuePrediction(value, low, high, novelty, abstained)
        order = np.argsort(-row["probabilities"], kind="stable")
        scores = [(self.labels[i], float(row["probabilities"][i])) for i in order]
        if self.settings["task"] == "multi_label":
            labels = [self.labels[i] for i in order if row["selected"][i]]
            return LabelsPrediction(labels, scores, novelty, abstained)
        return Prediction(*scores[0], scores, novelty, abstained)


@cache
def load() -> Classifier:
    """The model beside this file."""
    return Classifier(Path(__file__).resolve().parent)


def predict(texts: Sequence[Text]) -> list[Answer]:
    """Answers for texts or pairs with the model beside this file."""
    return load().predict(texts)


def shown(answer: Answer) -> str:
    """An answer as two columns."""
    if isinstance(answer, ValuePrediction):
        return f"{answer.value:.6g}\t{answer.low:.6g} to {answer.high:.6g}"
    if isinstance(answer, LabelsPrediction):
        probability = dict(answer.scores)
        return ",".join(answer.labels) + "\t" + ",".join(f"{probability[it]:.4f}" for it in answer.labels)
    return f"{answer.label}\t{answer.probability:.4f}"


def main() -> None:
    """Prints a line for each text on the command line."""
    if len(sys.argv) < 2:
        sys.exit('usage: python predict.py "some text" ["another text" ...]')
    for text, prediction in zip(sys.argv[1:], predict(sys.argv[1:]), strict=True):
        print(f"{shown(prediction)}\t{text}")


if __name__ == "__main__":
    main()
