"""How good a version is on a caller's examples, as plain data: mirrors EvaluateModelResponse."""

from __future__ import annotations

from dataclasses import dataclass, field

from graft._records.evaluation.reports import ClassReport, Confusion, MultiLabelFigures, RegressionFigures
from graft._records.evaluation.shown import Shown


@dataclass(frozen=True, slots=True)
class EvaluationRejection:
    """Why one example could not be evaluated."""

    index: int
    """Its place among the examples, from 0."""
    reason: str
    """UPPER_SNAKE_CASE, for programs."""
    detail: str
    """What was wrong and what would be right."""
    origin: str = ""
    """Where it is in the table that was given: "row 17"; "" where examples were no table."""


@dataclass(frozen=True, slots=True)
class UnknownLabel:
    """A label in the examples that the version cannot answer with."""

    label: str
    """The label."""
    examples: int
    """How many examples carry it."""
    indices: tuple[int, ...]
    """Their places among the examples, from 0, at most 10."""
    similar: str = ""
    """The version's label that was probably meant; empty if none is similar."""


@dataclass(frozen=True, slots=True)
class EvaluationResult(Shown):
    """How good a version is on a caller's labelled examples. Without an evaluated example, every figure is None."""

    model: str
    """The model's name."""
    version: int
    """The version that was evaluated."""
    examples: int
    """How many examples were evaluated; where it is 0, nothing was measured."""
    accuracy: float | None
    """The share whose best label is right, 0 to 1, weighted; None: not measured."""
    macro_f1: float | None
    """The mean over the classes in the examples of F1, 0 to 1; None: not measured."""
    log_loss: float | None
    """The mean of -log(probability of the right label), in nats; None: not measured."""
    calibration_error: float | None
    """Expected calibration error over 15 bins of confidence, 0 to 1; None: not measured."""
    per_class: tuple[ClassReport, ...] = field(repr=False)
    """One entry a class in the examples, sorted by label."""
    confusions: tuple[Confusion, ...] = field(repr=False)
    """The most frequent confusions, most frequent first."""
    rejected: tuple[EvaluationRejection, ...] = field(repr=False)
    """Examples that could not be evaluated, at most 100."""
    rejected_count: int
    """How many examples could not be evaluated."""
    task: str = "single_label"
    """The version's task."""
    multi_label: MultiLabelFigures | None = None
    """Further figures of a multi-label version."""
    regression: RegressionFigures | None = None
    """The figures of a regression; accuracy and the other figures of labels are None."""
    accuracy_low: float | None = None
    """The lower end of the 95% interval of the accuracy, 0 to 1; None: unknown."""
    accuracy_high: float | None = None
    """The upper end of the 95% interval of the accuracy, 0 to 1; None: unknown."""
    trained_on_count: int = 0
    """How many examples were left out of the figures because the version was trained on them, or on copies of them."""
    trained_on: tuple[int, ...] = field(default=(), repr=False)
    """The places of such examples among the examples, from 0: at most 100, or with `all_places` all."""
    unknown_labels: tuple[UnknownLabel, ...] = field(default=(), repr=False)
    """Labels that the version does not know, most frequent first, at most 50. Their examples count as wrong."""
    unknown_label_count: int = 0
    """How many examples carry a label that the version does not know."""
    training_examples_missing: bool = False
    """Whether some of the examples that the version was trained on can no longer be read, as erased ones, so that
    examples that equal them are not left out."""
