"""Answers for images or clips with the model in this folder.

Needs onnxruntime and numpy, and Pillow for images, soundfile and soxr for clips; nothing else.

    python predict.py FILE [FILE ...]

prints a line a file: label, probability, file; of several labels those that apply, joined by commas, and their
probabilities; of a number, the number, and its interval. Or, from Python 3.11 on, `from predict import predict`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from graft_server.exporting.runner.answers import Answer, Outputs, answers_of, shown

BATCH = 8


class Classifier:
    """A bundle, loaded."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.settings = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self._recipe = _recipe(self.settings)
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=list(providers))

    def predict(self, files: Sequence[bytes | str | Path]) -> list[Answer]:
        """Answers for n files, given as paths or as what they hold, in their order."""
        items = [self.prepare(it if isinstance(it, bytes) else Path(it).read_bytes()) for it in files]
        predictions: list[Answer] = []
        for start in range(0, len(items), BATCH):
            outputs = self.run(items[start : start + BATCH])
            predictions += answers_of(outputs, self.labels, self.settings)
        return predictions

    def prepare(self, data: bytes) -> Any:
        """What the model reads of one file's content; raises ValueError if it cannot be read."""
        return self._recipe.item(data)

    def run(self, items: Sequence[Any]) -> Outputs:
        """The model's outputs by name, for n prepared items in one batch."""
        names = self.settings["outputs"]
        return dict(zip(names, self._session.run(names, self._recipe.collate(items)), strict=True))


def _recipe(settings: dict[str, Any]) -> Any:
    # Only what the model reads needs its libraries.
    if settings["modality"] == "image":
        from graft_server.backbones.decoding import images  # noqa: PLC0415

        return images.recipe_of_settings(settings["recipe"])
    from graft_server.backbones.decoding import audio  # noqa: PLC0415

    return audio.recipe_of_settings(settings["recipe"])


@cache
def load() -> Classifier:
    """The model beside this file."""
    return Classifier(Path(__file__).resolve().parent)


def predict(files: Sequence[bytes | str | Path]) -> list[Answer]:
    """Answers for files with the model beside this file."""
    return load().predict(files)


def main() -> None:
    """Prints a line for each file on the command line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python predict.py FILE [FILE ...]")
    for file, prediction in zip(sys.argv[1:], predict(sys.argv[1:]), strict=True):
        print(f"{shown(prediction)}\t{file}")


if __name__ == "__main__":
    main()
