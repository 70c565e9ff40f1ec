"""Classifies images or clips with the model in this folder.

Needs onnxruntime and numpy, and Pillow for images, soundfile and soxr for clips; nothing else.

    python predict.py FILE [FILE ...]

prints a line a file: label, probability, file. Or, from Python 3.11 on, `from predict import predict`.
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

BATCH = 8
OUTPUTS = ["probabilities", "novelty", "features"]


class Prediction(NamedTuple):
    """What the model says of one file."""

    label: str
    probability: float
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    """0 to 1: how many of the training examples are less strange to the model."""
    abstained: bool
    """Whether the input is so strange that the label should not be trusted."""


class Classifier:
    """A bundle, loaded."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.settings = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self._recipe = _recipe(self.settings)
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=list(providers))

    def predict(self, files: Sequence[bytes | str | Path]) -> list[Prediction]:
        """Classifies n files, given as paths or as what they hold; the answers have their order."""
        items = [self.prepare(it if isinstance(it, bytes) else Path(it).read_bytes()) for it in files]
        predictions: list[Prediction] = []
        for start in range(0, len(items), BATCH):
            probabilities, novelty, _ = self.run(items[start : start + BATCH])
            pairs = zip(probabilities, novelty, strict=True)
            predictions += [self._prediction(row, float(strange)) for row, strange in pairs]
        return predictions

    def prepare(self, data: bytes) -> Any:
        """What the model reads of one file's content; raises ValueError if it cannot be read."""
        return self._recipe.item(data)

    def run(self, items: Sequence[Any]) -> tuple[NDArray[np.float32], ...]:
        """Probabilities (n, classes), novelty (n,) and features (n, d) of n prepared items, in one batch."""
        return tuple(self._session.run(OUTPUTS, self._recipe.collate(items)))

    def _prediction(self, probabilities: NDArray[np.float32], novelty: float) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        scores = [(self.labels[i], float(probabilities[i])) for i in order]
        abstained = novelty > self.settings["abstain_above"]
        return Prediction(*scores[0], scores, novelty, abstained)


def _recipe(settings: dict[str, Any]) -> Any:
    # Only what the model reads needs its libraries.
    if settings["modality"] == "image":
        from graft_server.backbones import images  # noqa: PLC0415

        return images.recipe_of_settings(settings["recipe"])
    from graft_server.backbones import audio  # noqa: PLC0415

    return audio.recipe_of_settings(settings["recipe"])


@cache
def load() -> Classifier:
    """The model beside this file."""
    return Classifier(Path(__file__).resolve().parent)


def predict(files: Sequence[bytes | str | Path]) -> list[Prediction]:
    """Classifies files with the model beside this file."""
    return load().predict(files)


def main() -> None:
    """Prints a line for each file on the command line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python predict.py FILE [FILE ...]")
    for file, prediction in zip(sys.argv[1:], predict(sys.argv[1:]), strict=True):
        print(f"{prediction.label}\t{prediction.probability:.4f}\t{file}")


if __name__ == "__main__":
    main()
