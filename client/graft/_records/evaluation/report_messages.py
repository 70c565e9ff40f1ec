"""Reports and evaluations from their protobuf forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from graft._records.evaluation.evaluations import EvaluationRejection, EvaluationResult, UnknownLabel
from graft._records.evaluation.reports import (
    Advice,
    Candidate,
    ClassAdvice,
    ClassReport,
    Confusion,
    CurvePoint,
    DataReport,
    DuplicateGroup,
    ExampleRef,
    HeadChoice,
    LabelCount,
    LabelError,
    LearningCurve,
    LookAlikes,
    MapPoint,
    MultiLabelFigures,
    NoveltyReport,
    PredictedValue,
    RegressionFigures,
    ReliabilityBin,
    Renewal,
    Report,
    SimilarLabels,
    TuningPoint,
    TuningReport,
    UnlabelledReport,
)
from graft._records.fields import enum_text, seconds_of, time_of
from graft.v1 import model_pb2, report_pb2, types_pb2

T = TypeVar("T")


def report_of(message: report_pb2.Report) -> Report:
    """The report that a message carries."""
    measured = _is_measured(message)
    task = _task_of(message, measured=measured)
    return Report(
        examples=message.examples,
        validation_examples=message.validation_examples,
        classes=message.classes,
        **_figures_of(message, measured=measured),
        evaluation=enum_text(report_pb2.EvaluationMethod, message.evaluation.method, "EVALUATION_METHOD_"),
        evaluation_folds=message.evaluation.folds,
        evaluated_examples=message.evaluation.examples,
        method=enum_text(types_pb2.Method, message.method, "METHOD_"),
        head=_head_of(message.head, task["task"], measured=measured),
        per_class=_classes_of(message.per_class),
        confusions=_confusions_of(message.confusions),
        warnings=tuple(message.warnings),
        backbone=message.backbone,
        encoder_id=message.encoder_id,
        seed=message.seed,
        trained_time=time_of(message.trained_time),
        training_duration_s=seconds_of(message.training_duration),
        reliability=tuple(map(_bin_of, message.reliability)),
        novelty=(
            NoveltyReport(message.novelty.threshold, message.novelty.false_alarm_rate)
            if message.HasField("novelty")
            else None
        ),
        data=_data_of(message.data) if message.HasField("data") else None,
        learning_curve=_curve_of(message.learning_curve) if message.HasField("learning_curve") else None,
        feature_map=tuple(MapPoint(p.x, p.y, p.label, p.id) for p in message.feature_map),
        tuning=_tuning_of(message.tuning) if message.HasField("tuning") else None,
        other_tunings=tuple(map(_tuning_of, message.other_tunings)),
        predicted_values=tuple(
            PredictedValue(v.value, v.predicted, v.low, v.high, v.id) for v in message.predicted_values
        ),
        evaluation_digest=message.evaluation_digest,
        renewal=Renewal(message.renewal.version, message.renewal.encoder_id)
        if message.HasField("renewal")
        else None,
        look_alikes=_look_alikes_of(message.look_alikes) if message.HasField("look_alikes") else None,
        truncated_examples=message.truncated_examples,
        unlabelled=_unlabelled_of(message.unlabelled) if message.HasField("unlabelled") else None,
        advice=tuple(map(_advice_of, message.advice)),
        **task,
    )


def _is_measured(message: report_pb2.Report) -> bool:
    """Whether figures were measured. Lists of versions of old servers do not name the method."""
    method = message.evaluation.method
    if method in (report_pb2.EVALUATION_METHOD_CROSS_VALIDATION, report_pb2.EVALUATION_METHOD_HELD_OUT):
        return True
    return bool(message.accuracy or message.multi_label.micro_f1 or message.regression.rmse)


def _figures_of(
    message: report_pb2.Report | model_pb2.EvaluateModelResponse, *, measured: bool
) -> dict[str, Any]:
    """The figures of labels: the wire has 0 for those that were not measured."""
    applies = measured and not message.HasField("regression")
    figures: dict[str, Any] = {
        name: _measured(getattr(message, name), applies=applies)
        for name in ("accuracy", "macro_f1", "log_loss", "calibration_error")
    }
    known = message.accuracy_high > 0
    figures["accuracy_low"] = message.accuracy_low if known else None
    figures["accuracy_high"] = message.accuracy_high if known else None
    return figures


def _measured(value: float, *, applies: bool) -> float | None:
    """A figure; None for the 0 that stands where it was not measured, or does not apply."""
    return value if value or applies else None


def _bin_of(message: report_pb2.ReliabilityBin) -> ReliabilityBin:
    if not message.examples:
        return ReliabilityBin(0, None, None)
    return ReliabilityBin(message.examples, message.confidence, message.accuracy)


def _look_alikes_of(message: report_pb2.LookAlikes) -> LookAlikes:
    return LookAlikes(
        groups=message.groups,
        examples=message.examples,
        accuracy=message.accuracy,
        low=message.low,
        high=message.high,
        largest=_groups_of(message.largest),
    )


_OF_THE_DATA: Final = frozenset({"labels_per_example", "confidence", "mean", "deviation"})
"""What figures say of the examples and the settings, and not of how good a version is."""


def _task_of(
    message: report_pb2.Report | model_pb2.EvaluateModelResponse, *, measured: bool
) -> dict[str, Any]:
    """The task and its own figures."""

    def figures(kind: type[T], found: Any) -> T:
        names = kind.__dataclass_fields__  # type: ignore[attr-defined]
        return kind(*(_measured(getattr(found, it), applies=measured or it in _OF_THE_DATA) for it in names))

    return {
        "task": enum_text(types_pb2.Task, message.task, "TASK_") or "single_label",
        "multi_label": (
            figures(MultiLabelFigures, message.multi_label) if message.HasField("multi_label") else None
        ),
        "regression": (
            figures(RegressionFigures, message.regression) if message.HasField("regression") else None
        ),
    }


def evaluation_of(message: model_pb2.EvaluateModelResponse) -> EvaluationResult:
    """The evaluation that a message carries."""
    measured = message.examples > 0
    return EvaluationResult(
        model=message.model,
        version=message.version,
        examples=message.examples,
        **_figures_of(message, measured=measured),
        per_class=_classes_of(message.per_class),
        confusions=_confusions_of(message.confusions),
        rejected=tuple(EvaluationRejection(r.index, r.reason, r.detail) for r in message.rejected),
        rejected_count=message.total_rejected,
        trained_on_count=message.total_trained_on,
        trained_on=tuple(message.trained_on),
        unknown_labels=tuple(
            UnknownLabel(it.label, it.examples, tuple(it.indices), it.similar)
            for it in message.unknown_labels
        ),
        unknown_label_count=message.total_with_unknown_label,
        training_examples_missing=message.training_examples_missing,
        **(
            _task_of(message, measured=True) | ({} if measured else {"multi_label": None, "regression": None})
        ),
    )


def _head_of(message: report_pb2.HeadChoice, task: str, *, measured: bool) -> HeadChoice:
    def candidate(it: report_pb2.Candidate) -> Candidate:
        return Candidate(
            it.kind,
            it.view,
            dict(it.settings),
            log_loss=_measured(it.log_loss, applies=task != "regression"),
            accuracy=_measured(it.accuracy, applies=measured and task == "single_label"),
            micro_f1=_measured(it.micro_f1, applies=measured and task == "multi_label"),
            rmse=_measured(it.rmse, applies=measured and task == "regression"),
        )

    return HeadChoice(
        kind=message.kind,
        view=message.view,
        settings=dict(message.settings),
        temperature=message.temperature,
        candidates=tuple(map(candidate, message.candidates)),
    )


def _classes_of(messages: Iterable[report_pb2.ClassReport]) -> tuple[ClassReport, ...]:
    return tuple(
        ClassReport(
            label=message.label,
            examples=message.examples,
            support=message.support,
            precision=_measured(message.precision, applies=message.support > 0),
            recall=_measured(message.recall, applies=message.support > 0),
            f1=_measured(message.f1, applies=message.support > 0),
            threshold=message.threshold,
            truncated=message.truncated,
        )
        for message in messages
    )


def _confusions_of(messages: Iterable[report_pb2.Confusion]) -> tuple[Confusion, ...]:
    return tuple(Confusion(message.label, message.predicted, message.count) for message in messages)


def _data_of(message: report_pb2.DataReport) -> DataReport:
    return DataReport(
        exact_duplicates=message.exact_duplicates,
        near_duplicates=message.near_duplicates,
        conflicting_inputs=message.conflicting_inputs,
        duplicate_groups=_groups_of(message.duplicate_groups),
        near_duplicate_pairs=_groups_of(message.near_duplicate_pairs),
        conflicts=_groups_of(message.conflicts),
        probable_label_errors=max(message.probable_label_errors, len(message.label_errors)),
        label_errors=tuple(
            LabelError(_reference_of(e.example), e.suggested, e.probability, e.suggested_probability)
            for e in message.label_errors
        ),
        read_alike=message.read_alike,
        bound_examples=message.bound_examples,
        validation_copies=message.validation_copies,
        validation_copy_pairs=_groups_of(message.validation_copy_pairs),
        similar_labels=tuple(
            SimilarLabels(tuple(LabelCount(it.label, it.examples) for it in several.labels))
            for several in message.similar_labels
        ),
        unlabelled_examples=message.unlabelled_examples,
        confirmed_examples=message.confirmed_examples,
    )


def _groups_of(messages: Iterable[report_pb2.DuplicateGroup]) -> tuple[DuplicateGroup, ...]:
    return tuple(
        DuplicateGroup(tuple(_reference_of(one) for one in m.examples), m.count, m.similarity)
        for m in messages
    )


def _reference_of(message: report_pb2.ExampleRef) -> ExampleRef:
    return ExampleRef(message.id, message.writer_id, message.sequence, message.label)


def _curve_of(message: report_pb2.LearningCurve) -> LearningCurve:
    return LearningCurve(
        points=_points_of(message.points),
        forecasts=_points_of(message.forecasts),
        advice=tuple(ClassAdvice(a.label, a.more_examples, a.gain, a.low, a.high) for a in message.advice),
    )


def _points_of(messages: Iterable[report_pb2.CurvePoint]) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(m.examples, m.accuracy, m.low, m.high) for m in messages)


def _tuning_of(message: report_pb2.TuningReport) -> TuningReport:
    return TuningReport(
        method=enum_text(types_pb2.Method, message.method, "METHOD_"),
        kept=message.kept,
        ended=message.ended,
        unfrozen_layers=message.unfrozen_layers,
        layers=message.layers,
        parameters=message.parameters,
        measured=message.measured,
        frozen_log_loss=_measured(message.frozen_log_loss, applies=message.measured > 0),
        tuned_log_loss=_measured(message.tuned_log_loss, applies=message.measured > 0),
        gain_error=_measured(message.gain_error, applies=message.measured > 0),
        frozen_accuracy=_measured(message.frozen_accuracy, applies=message.measured > 0),
        tuned_accuracy=_measured(message.tuned_accuracy, applies=message.measured > 0),
        learning_rate=message.learning_rate,
        diverged=message.diverged,
        seconds=message.seconds,
        examples_per_second=message.examples_per_second,
        own_share=message.own_share,
        bytes=message.bytes,
        history=tuple(
            TuningPoint(it.epoch, it.train_loss, it.log_loss, it.accuracy, it.seconds)
            for it in message.history
        ),
        objective=enum_text(report_pb2.TuningObjective, message.objective, "TUNING_OBJECTIVE_")
        or "cross_entropy",
        label_names=message.label_names,
        folds=message.folds,
        tuned_share=message.tuned_share or None,
        rank=message.rank,
        full_bytes=message.full_bytes,
        accuracy_gain_error=message.accuracy_gain_error or None,
    )


def _unlabelled_of(message: report_pb2.UnlabelledReport) -> UnlabelledReport:
    return UnlabelledReport(
        examples=message.examples,
        used=message.used,
        kept=message.kept,
        weight=message.weight,
        log_loss_before=_measured(message.log_loss_before, applies=message.used > 0),
        log_loss_after=_measured(message.log_loss_after, applies=message.used > 0),
        gain_error=_measured(message.gain_error, applies=message.used > 0),
        novel_share=message.novel_share,
        drift=message.drift,
    )


def _advice_of(message: report_pb2.Advice) -> Advice:
    low, high = message.expected_gain_low, message.expected_gain_high
    known = bool(message.expected_gain or low or high)
    return Advice(
        kind=enum_text(report_pb2.AdviceKind, message.kind, "ADVICE_KIND_"),
        text=message.text,
        expected_gain=_measured(message.expected_gain, applies=known),
        expected_gain_low=_measured(low, applies=known),
        expected_gain_high=_measured(high, applies=known),
        cost_seconds=message.cost_seconds,
        cost_examples=message.cost_examples,
    )
