"""Answers for images or clips with the model in this folder.

Needs onnxruntime and numpy, and Pillow for images, soundfile and soxr for clips; nothing else.

    python predict.py FILE [FILE ...]

prints a line a file: label, probability, file; of several labels those that apply, joined by commas (or a list in
JSON, where commas would not tell them apart), and their probabilities; of a number, the number, and its interval.
Behind it, what is to be minded: "abstained: ...", "truncated: ...", or "error: ..." where there is no answer. Or, from
Python 3.11 on, `from predict import predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from graft_server.exporting.runner.answers import Answer, Outputs, answers_of
from graft_server.exporting.runner.classifier import Bundle, answer_arguments
from graft_server.exporting.runner.inputs import Refused

BATCH = 8


class Classifier(Bundle):
    """A bundle that reads files, loaded."""

    paths = True

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        super().__init__(folder, providers)
        self._recipe = _recipe(self.settings)

    def _of_inputs(self, values: Sequence[bytes]) -> list[Answer | Refused]:
        answers: list[Answer | Refused] = []
        for start in range(0, len(values), BATCH):
            answers += self._of_batch(values[start : start + BATCH])
        return answers

    def _of_batch(self, values: Sequence[bytes]) -> list[Answer | Refused]:
        prepared = [self._prepared(it) for it in values]
        items = [it for it in prepared if not isinstance(it, Refused)]
        if not items:
            return [it for it in prepared if isinstance(it, Refused)]
        truncated = [bool(getattr(it, "truncated", False)) for it in items]
        answers = iter(answers_of(self.run(items), self.labels, self.settings, truncated))
        return [it if isinstance(it, Refused) else next(answers) for it in prepared]

    def _prepared(self, data: bytes) -> Any:
        try:
            return self.prepare(data)
        except ValueError as error:
            return Refused(getattr(error, "reason", "INPUT_UNREADABLE"), str(error))

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


def predict(files: Any) -> list[Answer | Refused]:
    """Answers for files, given by their paths or contents, with the model beside this file; see `Bundle.predict`."""
    return load().predict(files)


if __name__ == "__main__":
    answer_arguments(load, "python predict.py FILE [FILE ...]")
