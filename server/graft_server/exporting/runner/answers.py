"""What a bundle's model says of one input, by its task; every sample runner has this inside. Needs NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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


class LabelsPrediction(NamedTuple):
    """What a model says of one input that gives each any number of labels."""

    labels: list[str]
    """The labels that apply, best first."""
    scores: list[tuple[str, float]]
    """Every label with its probability, best first."""
    novelty: float
    abstained: bool


class ValuePrediction(NamedTuple):
    """What a model says of one input that answers with a number."""

    value: float
    low: float
    """The lower end of the interval that the truth is in, as often as the report says."""
    high: float
    novelty: float
    abstained: bool


Answer = Prediction | LabelsPrediction | ValuePrediction
Outputs = dict[str, NDArray[Any]]


def answers_of(outputs: Outputs, labels: Sequence[str], settings: dict[str, Any]) -> list[Answer]:
    """The answers that a batch's outputs are, in its order."""
    by_row = [name for name in settings["outputs"] if name != "thresholds"]  # one row for all inputs
    rows = range(len(outputs["novelty"]))
    return [_answer({name: outputs[name][row] for name in by_row}, labels, settings) for row in rows]


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


def shown(answer: Answer) -> str:
    """An answer as two columns."""
    if isinstance(answer, ValuePrediction):
        return f"{answer.value:.6g}\t{answer.low:.6g} to {answer.high:.6g}"
    if isinstance(answer, LabelsPrediction):
        probability = dict(answer.scores)
        return cell_of(answer.labels) + "\t" + ",".join(f"{probability[it]:.4f}" for it in answer.labels)
    return f"{answer.label}\t{answer.probability:.4f}"


def cell_of(names: Sequence[str]) -> str:
    """Labels joined by commas where that can be taken apart again; else, and of no labels, a list in JSON."""
    if names and all(_is_plain(name) for name in names):
        return ",".join(names)
    return json.dumps(list(names), ensure_ascii=False)


def _is_plain(name: str) -> bool:
    bare = name == name.strip() and name.isprintable() and name[:1] not in ("[", "{", "(")
    return bare and bool(name) and "," not in name and '"' not in name
