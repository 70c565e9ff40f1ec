"""What is known about how good a version is, as plain data: mirrors report.proto."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from graft.v1 import model_pb2, report_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class ClassReport:
    """How well one class is recognised, on the evaluated examples."""

    label: str
    """The class."""
    examples: int
    """How many training examples it has."""
    support: int
    """How many evaluated examples carry it."""
    precision: float
    """Of the examples answered with this label, the share that carries it, 0 to 1."""
    recall: float
    """Of the examples that carry this label, the share answered with it, 0 to 1."""
    f1: float
    """The harmonic mean of precision and recall, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often examples of one label were answered with another."""

    label: str
    """What the examples carry."""
    predicted: str
    """What they were answered with."""
    count: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One head that selection tried."""

    kind: str
    """The kind of head, for example "logistic"."""
    view: str
    """The features that it reads, for example "pooled"."""
    settings: Mapping[str, float]
    """Its settings by name."""
    log_loss: float
    """Cross-validated, after calibration, in nats."""
    accuracy: float
    """Cross-validated, 0 to 1."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that selection settled on, and what it was chosen from."""

    kind: str
    """The kind of head, for example "logistic"."""
    view: str
    """The features that it reads, for example "pooled"."""
    settings: Mapping[str, float]
    """The chosen settings by name, for example {"C": 10}."""
    temperature: float
    """What the logits are divided by."""
    candidates: tuple[Candidate, ...]
    """What was tried, best first."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a version was trained on, and how good it is on examples that it was not trained on."""

    examples: int
    """How many examples it was trained on (validation examples not counted)."""
    validation_examples: int
    """How many examples were held out."""
    classes: int
    """How many classes it knows."""
    accuracy: float
    """The share of evaluated examples whose best label is right, 0 to 1, weighted."""
    macro_f1: float
    """The mean over the evaluated classes of F1, 0 to 1."""
    log_loss: float
    """The mean of -log(probability of the right label), in nats; lower is better."""
    calibration_error: float
    """Expected calibration error over 15 bins of confidence, 0 to 1; lower is better."""
    evaluation: str
    """Where the figures come from: "cross_validation", "held_out", or "" (too few examples)."""
    evaluation_folds: int
    """Folds of the cross-validation; 0 for a held-out set."""
    evaluated_examples: int
    """How many examples the figures were measured on."""
    method: str
    """The method used, for example "frozen"."""
    head: HeadChoice
    """The head that was chosen."""
    per_class: tuple[ClassReport, ...]
    """One entry a class, in output order. Empty in lists of versions."""
    confusions: tuple[Confusion, ...]
    """The most frequent confusions, most frequent first."""
    warnings: tuple[str, ...]
    """What to know before trusting the version, in sentences."""
    backbone: str
    """The backbone's name on the server that trained the version."""
    encoder_id: str
    """The digest that identifies the encoder."""
    seed: int
    """What every random choice was derived from."""
    trained_time: dt.datetime | None
    """When the version was trained, in UTC."""
    training_duration_s: float
    """How long choosing and fitting the head took, in seconds."""


@dataclass(frozen=True, slots=True)
class EvaluationRejection:
    """Why one example could not be evaluated."""

    index: int
    """Its place among the examples, from 0."""
    reason: str
    """UPPER_SNAKE_CASE, for programs."""
    detail: str
    """What was wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How good a version is on a caller's labelled examples."""

    model: str
    """The model's name."""
    version: int
    """The version that was evaluated."""
    examples: int
    """How many examples were evaluated."""
    accuracy: float
    """The share whose best label is right, 0 to 1, weighted."""
    macro_f1: float
    """The mean over the classes in the examples of F1, 0 to 1."""
    log_loss: float
    """The mean of -log(probability of the right label), in nats."""
    calibration_error: float
    """Expected calibration error over 15 bins of confidence, 0 to 1."""
    per_class: tuple[ClassReport, ...] = field(repr=False)
    """One entry a class in the examples, sorted by label."""
    confusions: tuple[Confusion, ...] = field(repr=False)
    """The most frequent confusions, most frequent first."""
    rejected: tuple[EvaluationRejection, ...] = field(repr=False)
    """Examples that could not be evaluated, at most 100."""
    rejected_count: int
    """How many examples could not be evaluated."""


def report_of(message: report_pb2.Report) -> Report:
    """The report that a message carries."""
    return Report(
        examples=message.examples,
        validation_examples=message.validation_examples,
        classes=message.classes,
        accuracy=message.accuracy,
        macro_f1=message.macro_f1,
        log_loss=message.log_loss,
        calibration_error=message.calibration_error,
        evaluation=enum_text(report_pb2.EvaluationMethod, message.evaluation.method, "EVALUATION_METHOD_"),
        evaluation_folds=message.evaluation.folds,
        evaluated_examples=message.evaluation.examples,
        method=enum_text(types_pb2.Method, message.method, "METHOD_"),
        head=_head_of(message.head),
        per_class=_classes_of(message.per_class),
        confusions=_confusions_of(message.confusions),
        warnings=tuple(message.warnings),
        backbone=message.backbone,
        encoder_id=message.encoder_id,
        seed=message.seed,
        trained_time=time_of(message.trained_time),
        training_duration_s=seconds_of(message.training_duration),
    )


def evaluation_of(message: model_pb2.EvaluateModelResponse) -> EvaluationResult:
    """The evaluation that a message carries."""
    return EvaluationResult(
        model=message.model,
        version=message.version,
        examples=message.examples,
        accuracy=message.accuracy,
        macro_f1=message.macro_f1,
        log_loss=message.log_loss,
        calibration_error=message.calibration_error,
        per_class=_classes_of(message.per_class),
        confusions=_confusions_of(message.confusions),
        rejected=tuple(EvaluationRejection(r.index, r.reason, r.detail) for r in message.rejected),
        rejected_count=message.rejected_count,
    )


def time_of(message: Timestamp) -> dt.datetime | None:
    """The time in UTC, or None where the field is unset."""
    return message.ToDatetime(tzinfo=dt.UTC) if message.seconds or message.nanos else None


def seconds_of(message: Duration) -> float:
    """The duration in seconds."""
    return message.seconds + message.nanos / 1e9


def enum_text(enum: type, value: int, prefix: str) -> str:
    """An enum's value in lower case without its prefix; "" for unspecified, the number if it is not known."""
    try:
        name: str = enum.Name(value)  # type: ignore[attr-defined]
    except ValueError:
        return str(value)
    text = name.removeprefix(prefix).lower()
    return "" if text == "unspecified" else text


def _head_of(message: report_pb2.HeadChoice) -> HeadChoice:
    return HeadChoice(
        kind=message.kind,
        view=message.view,
        settings=dict(message.settings),
        temperature=message.temperature,
        candidates=tuple(
            Candidate(c.kind, c.view, dict(c.settings), c.log_loss, c.accuracy) for c in message.candidates
        ),
    )


def _classes_of(messages: Iterable[report_pb2.ClassReport]) -> tuple[ClassReport, ...]:
    return tuple(
        ClassReport(
            label=message.label,
            examples=message.examples,
            support=message.support,
            precision=message.precision,
            recall=message.recall,
            f1=message.f1,
        )
        for message in messages
    )


def _confusions_of(messages: Iterable[report_pb2.Confusion]) -> tuple[Confusion, ...]:
    return tuple(Confusion(message.label, message.predicted, message.count) for message in messages)
