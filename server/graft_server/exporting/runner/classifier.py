"""A bundle's model, loaded; every sample runner has this inside. Needs onnxruntime and NumPy alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graft_server.exporting.runner.answers import Answer, Outputs, answers_of, line
from graft_server.exporting.runner.inputs import Given, Refused, given, refused, several
from graft_server.onnx_runtime import onnxruntime


class Bundle:
    """A bundle, loaded.

    Attributes:
        labels: What the columns of labels mean.
        settings: What preprocessing.json says.
    """

    paths = False
    """Whether a str is the path of a file, not a text."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.settings = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self._folder = folder
        self._providers = list(providers)
        self._session = self._opened("model.onnx")

    def predict(self, inputs: Any) -> list[Answer | Refused]:
        """Answers for n inputs, in their order; one that the model cannot answer is refused alone.

        Args:
            inputs: An input, or several in their order, as a list, a generator, an array or a Series of texts. See
                `given` for what an input is.

        Raises:
            TypeError: What was given is no input, or iterating it gives something else than inputs in their order.
            ValueError: A text is not valid Unicode, or a file is neither an image nor a clip.
        """
        return self.answers([self.read(value, number) for number, value in enumerate(several(inputs))])

    def read(self, value: Any, number: int) -> Given:
        """Returns one input as what it is, or raises TypeError or ValueError; `number` is its place."""
        return given(value, number, paths=self.paths)

    def answers(self, asked: Sequence[Given | Refused]) -> list[Answer | Refused]:
        """Answers for n inputs, in their order; those that were refused stay so."""
        found: dict[int, Answer | Refused] = {}
        places: dict[bool, list[int]] = {True: [], False: []}
        for number, it in enumerate(asked):
            why = it if isinstance(it, Refused) else refused(it, number, self.settings)
            if why is not None:
                found[number] = why
            elif isinstance(it, Given):
                places[it.kind == "features"].append(number)
        for of_features, numbers in places.items():
            values = [asked[number][1] for number in numbers]
            answered = self._of_features(values) if of_features else self._of_inputs(values)
            found |= zip(numbers, answered, strict=True)
        return [found[number] for number in range(len(asked))]

    def _of_inputs(self, values: Sequence[Any]) -> Sequence[Answer | Refused]:
        """Answers for n texts, pairs or files that the model reads, in their order."""
        raise NotImplementedError

    def _of_features(self, vectors: Sequence[Any]) -> list[Answer]:
        """Answers for n vectors of the backbone's features, each of shape (d,), in their order."""
        if not vectors:
            return []
        rows = np.stack(vectors).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        names = [it.name for it in self._head.get_outputs()]
        outputs = self._head.run(names, {"features": rows.astype(np.float32)})
        found: Outputs = dict(zip(names, outputs, strict=True))
        return answers_of(found, self.labels, self.settings, [False] * len(rows))

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return self._opened("head.onnx")

    def _opened(self, name: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(self._folder / name), providers=self._providers)


def answer_arguments(load: Callable[[], Bundle], usage: str) -> None:
    """Prints a line for each argument of the command line; the exit code is 1 where one could not be answered."""
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(f"usage: {usage}")
    bundle = load()
    asked: list[Given | Refused] = []
    for number, it in enumerate(arguments):
        try:
            asked.append(bundle.read(it, number))
        except ValueError as error:
            asked.append(Refused("INPUT_UNREADABLE", str(error)))
    answers = bundle.answers(asked)
    for it, answer in zip(arguments, answers, strict=True):
        print(line(answer, it.encode(errors="replace").decode()))
    if failed := sum(isinstance(it, Refused) for it in answers):
        sys.exit(f"{failed} of {len(answers)} inputs could not be answered")
