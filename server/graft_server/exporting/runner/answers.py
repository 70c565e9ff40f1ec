"""What a bundle's model says of one input, by its task; every sample runner has this inside. Needs NumPy alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graft_server.exporting.runner.inputs import Refused

SEPARATORS = re.compile("[\\\\\t-\r\x1c-\x1e\x85\u2028\u2029\0]")
"""What ends a line or a cell, for some program, and the character that escapes it."""
ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}

PLACE = re.compile(r"\binputs\[\d+\](?:\.((?:text_pair\.)?\w+))?")
WORDS = {
    "text_pair.first": "the first text",
    "text_pair.second": "the second text",
    "text": "the text",
    "image": "the image",
    "audio": "the clip",
    "features": "the vector",
}
"""For people: the part of the input that an error names by its field."""


class Prediction(NamedTuple):
    """What a model says of one input that gives each one label."""

    label: str
    probability: float
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    """0 to 1: how many of the training examples are less strange to the model."""
    abstained: bool
    """Whether the input is so strange that the label should not be trusted."""
    truncated: bool = False
    """Whether the input is longer than the model reads, so that its end was cut off."""


class LabelsPrediction(NamedTuple):
    """What a model says of one input that gives each any number of labels."""

    labels: list[str]
    """The labels that apply, best first."""
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    abstained: bool
    truncated: bool = False


class ValuePrediction(NamedTuple):
    """What a model says of one input that answers with a number."""

    value: float
    low: float
    """The lower end of the interval that the truth is in, as often as the report says."""
    high: float
    novelty: float
    abstained: bool
    truncated: bool = False


Answer = Prediction | LabelsPrediction | ValuePrediction
Outputs = dict[str, NDArray[Any]]


def answers_of(
    outputs: Outputs, labels: Sequence[str], settings: dict[str, Any], truncated: Sequence[bool]
) -> list[Answer]:
    """The answers that a batch's outputs are, in its order; `truncated` says which inputs were cut off."""
    by_row = [
        name for name in settings["outputs"] if name in outputs and name != "thresholds"
    ]  # one row for all
    return [
        _answer({name: outputs[name][row] for name in by_row}, labels, settings)._replace(truncated=cut)
        for row, cut in enumerate(truncated)
    ]


def _answer(row: Outputs, labels: Sequence[str], settings: dict[str, Any]) -> Answer:
    novelty = float(row["novelty"])
    abstained = novelty > settings["abstain_above"]
    if settings["task"] == "regression":
        value, low, high = (float(row[name]) for name in ("value", "low", "high"))
        return ValuePrediction(value, low, high, novelty, abstained)
    order = np.argsort(-row["probabilities"], kind="stable")
    scores = [(labels[i], float(row["probabilities"][i])) for i in order]
    if settings["task"] == "multi_label":
        return LabelsPrediction([labels[i] for i in order if row["selected"][i]], scores, novelty, abstained)
    return Prediction(*scores[0], scores, novelty, abstained)


def line(answer: Answer | Refused, asked: str) -> str:
    """An answer as columns: label, probability, input, and what is to be minded, if there is anything."""
    if isinstance(answer, Refused):
        said = PLACE.sub(lambda it: WORDS.get(it[1] or "", "the input"), answer.error)
        cells = ["", "", asked, f"error: {said}"]
    else:
        remarks = []
        if answer.abstained:
            remarks.append(f"abstained: unlike the training data (novelty {answer.novelty:.3f})")
        if answer.truncated:
            remarks.append("truncated: the end was cut off")
        cells = [*shown(answer), asked, *([", ".join(remarks)] if remarks else [])]
    return "\t".join(SEPARATORS.sub(_escape, cell) for cell in cells)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return ESCAPES.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def shown(answer: Answer) -> tuple[str, str]:
    """An answer as two columns."""
    if isinstance(answer, ValuePrediction):
        return f"{answer.value:.6g}", f"{answer.low:.6g} to {answer.high:.6g}"
    if isinstance(answer, LabelsPrediction):
        probability = dict(answer.scores)
        return cell_of(answer.labels), ",".join(f"{probability[it]:.4f}" for it in answer.labels)
    return answer.label, f"{answer.probability:.4f}"


def cell_of(names: Sequence[str]) -> str:
    """Labels joined by commas where that can be taken apart again; else, and of no labels, a list in JSON."""
    if names and all(_is_plain(name) for name in names):
        return ",".join(names)
    return json.dumps(list(names), ensure_ascii=False)


def _is_plain(name: str) -> bool:
    bare = name == name.strip() and name.isprintable() and name[:1] not in ("[", "{", "(")
    return bare and bool(name) and "," not in name and '"' not in name
