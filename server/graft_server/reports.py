"""What is known about a version: the plain form of `report.proto`, kept with the version as JSON.

Every figure is measured on examples that the measured head was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_CONFUSIONS = 50
"""A report lists at most so many pairs, so that it stays small with many classes."""


class EvaluationMethod(StrEnum):
    """A way to measure a model on examples that it was not trained on."""

    NONE = "none"
    """Not evaluated: too few examples."""
    CROSS_VALIDATION = "cross_validation"
    """Every example was predicted by a head trained without its fold."""
    HELD_OUT = "held_out"
    """The validation examples were predicted by the final head."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Which examples the figures of a report were measured on."""

    method: EvaluationMethod
    folds: int = 0
    """Folds of the cross-validation; 0 for a held-out set."""
    examples: int = 0
    """How many examples were evaluated."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One head that selection tried."""

    kind: str
    view: str
    settings: Mapping[str, float]
    log_loss: float
    """Cross-validated, after calibration, in nats."""
    accuracy: float
    """Cross-validated, 0 to 1."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that selection settled on, and what it was chosen from."""

    kind: str
    view: str
    settings: Mapping[str, float]
    temperature: float
    """What the logits are divided by, chosen on out-of-fold predictions."""
    candidates: tuple[Candidate, ...] = ()
    """Best first."""


@dataclass(frozen=True, slots=True)
class ClassReport:
    """How well one class is recognised."""

    label: str
    examples: int
    """Training examples."""
    support: int
    """Evaluated examples that carry the label."""
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many evaluated examples of one label were answered with another."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class Report:
    """One version: what it was trained on, what was chosen, and how good it is.

    Selection fills in everything but the identity at the end, which its caller adds.
    """

    examples: int
    """How many examples the version was trained on."""
    validation_examples: int
    classes: int
    accuracy: float
    """0 to 1, weighted by example weight."""
    macro_f1: float
    """The mean of F1 over the evaluated classes, 0 to 1."""
    log_loss: float
    """In nats."""
    calibration_error: float
    """Over 15 equally wide bins of confidence, 0 to 1."""
    evaluation: Evaluation
    head: HeadChoice
    per_class: tuple[ClassReport, ...]
    """In output order."""
    confusions: tuple[Confusion, ...] = ()
    """Most frequent first, at most MAX_CONFUSIONS."""
    warnings: tuple[str, ...] = field(default=())
    seed: int = 0
    method: str = "frozen"
    backbone: str = ""
    encoder_id: str = ""
    trained_time_s: float = 0.0
    """Seconds since the epoch."""
    training_duration_s: float = 0.0
