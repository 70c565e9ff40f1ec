"""What would make a version better: more labels, time to tune the backbone in, or another backbone.

Each piece rests on something that is known, and says what. More labels: the learning curve of the version's own
examples. Time: what tuning gained on the sets that it was measured on, those about as hard as these examples; whether
it gains anything here, only trying tells. Another backbone: neither of both helps. Nothing is computed for it but
percentiles of what the curve has drawn already, so that it costs no time worth measuring.
"""

from __future__ import annotations

import dataclasses
import math

from graft_server.domain.method import Method
from graft_server.domain.report import (
    Advice,
    AdviceKind,
    EvaluationMethod,
    Report,
    TuningObjective,
    TuningReport,
)
from graft_server.domain.tasks.table import TASKS
from graft_server.training.reporting.learning_curve import LEAST_EXAMPLES, Law
from graft_server.training.reporting.tuning_gains import (
    BUDGET_S,
    FULL_EXAMPLES,
    LIKE,
    MEASURED_WITH,
    SETS_LEAST,
    gains_like,
)

LEAST_GAIN = 0.01
"""What gains less than a point is not worth an advice."""
LEAST_SHARE = 0.05
"""Nor are more labels if twice as many remove less than this share of the errors: where labels are chance, the curve
of 300 examples still forecasts a gain of two points."""
LEAST_WRONG = 0.03
"""Where fewer answers are wrong, nothing is advised that has no estimate."""
A_HUNDRED = 100
"""More labels that are told beside twice the examples, where they are fewer than these."""
OF_FROZEN = " This is the forecast of the head on the frozen backbone."


def labels_advice(law: Law | None, examples: int, figure: str, of_each: str = "") -> tuple[Advice, ...]:
    """Returns what the learning curve forecasts for twice the examples, however little; nothing without one.

    Args:
        law: The fall of errors with more examples; None: too few examples to tell.
        examples: How many the version was trained on.
        figure: What the curve is of, in words: "accuracy".
        of_each: What there are to be twice as many examples of, in words: "every class"; "": nothing in particular.
    """
    if law is None:
        return ()
    gain, low, high = law.gain(2.0)
    whose = f" of {of_each}" if of_each else ""
    text = (
        f"Twice the examples{whose} ({examples:,} more) are forecast to bring {_points(gain)} of {figure} "
        f"({_range(low, high)}, from the learning curve)"
    )
    if examples > A_HUNDRED:
        text += f", a hundred more {_points(law.gain(1 + A_HUNDRED / examples)[0])}"
    text += ". SuggestExamples says which of the unlabelled ones to begin with."
    return (Advice(AdviceKind.LABELS, text, gain, low, high, cost_examples=examples),)


def advised(
    report: Report, *, tunable: bool = False, follows: bool = False, tried: TuningReport | None = None
) -> Report:
    """Returns a report with what would make its version better, most worth doing first.

    Args:
        report: The report; the only advice that it has may be that of `labels_advice`, or of this function before a
            tuning.
        tunable: Whether a tuning could be tried that was not: the task, the inputs and the number of examples allow it.
        follows: Whether one is about to be: then only the labels are known of.
        tried: The last tuning that was tried; None: none.
    """
    labels = next((it for it in report.advice if it.kind is AdviceKind.LABELS), None)
    wrong = 1 - TASKS[report.task].figure(report)[1]
    worth = max(LEAST_GAIN, LEAST_SHARE * wrong)
    flat = report.learning_curve is not None and (labels is None or labels.expected_gain < worth)
    advice: list[Advice] = []
    if labels is not None and not flat:
        advice.append(_of_frozen(labels) if report.method is not Method.FROZEN else labels)
    measured = report.evaluation.method is not EvaluationMethod.NONE
    if labels is None and not flat and report.examples < LEAST_EXAMPLES:
        advice.append(_more_to_tell(report.examples))
    if tried is not None:
        advice += _after(tried, others=any(it.measured for it in _tunings(report)))
    elif tunable and not follows and measured and wrong > LEAST_WRONG:
        advice.append(_time(report, wrong))
    known = not (tunable or follows or _unfinished(tried))
    if flat and known and wrong > LEAST_WRONG and not _kept(report):
        advice.append(_backbone(labels, tried))
    ordered = sorted(advice, key=lambda it: -it.expected_gain)
    return dataclasses.replace(report, advice=tuple(ordered))


def _kept(report: Report) -> bool:
    return any(it.kept for it in _tunings(report))


def _tunings(report: Report) -> list[TuningReport]:
    return [*report.other_tunings, *([report.tuning] if report.tuning is not None else [])]


def _unfinished(tried: TuningReport | None) -> bool:
    """Whether a tuning says nothing about what tuning would gain."""
    return tried is not None and not tried.measured and tried.ended != "no_gain"


def _of_frozen(labels: Advice) -> Advice:
    forecast = labels.expected_gain_high > labels.expected_gain_low
    if not forecast or labels.text.endswith(OF_FROZEN):
        return labels
    return dataclasses.replace(labels, text=labels.text + OF_FROZEN)


def _more_to_tell(examples: int) -> Advice:
    text = (
        f"Label more examples: from {LEAST_EXAMPLES} on, the report forecasts what others would bring, and figures "
        "say more."
    )
    return Advice(AdviceKind.LABELS, text, cost_examples=LEAST_EXAMPLES - examples)


def _time(report: Report, wrong: float) -> Advice:
    """What a time budget may bring, by the sets on which that was measured."""
    a_class = report.examples / max(report.classes, 1)
    gains, seconds = gains_like(a_class, 1 - wrong), _budget(report.examples)
    if len(gains) < SETS_LEAST:
        text = (
            f"With a time_budget of {seconds:.0f} seconds or more the method auto tunes the backbone, too, and keeps "
            "what gains: that pays where meaning is not topic (kinds of questions, feelings, tone)."
        )
        return Advice(AdviceKind.TIME, text, cost_seconds=seconds)
    low, high = min(it.gain for it in gains), max(it.gain for it in gains)
    mean = sum(it.gain for it in gains) / len(gains)
    gained = sum(it.gain >= LEAST_GAIN for it in gains)
    text = (
        f"A time_budget of {seconds:.0f} seconds, in which the method auto tunes the backbone, may bring "
        f"{_points(mean)} of accuracy ({_range(low, high, '')}): {gained} of {len(gains)} measurements of sets about "
        f"as hard (a frozen accuracy within {100 * LIKE:.0f} points of this one's), with {MEASURED_WITH}, gained a "
        "point or more. What gains nothing beyond noise is not kept."
    )
    return Advice(AdviceKind.TIME, text, mean, low, high, cost_seconds=seconds)


def _budget(examples: int) -> float:
    """The time budget for a tuning of so many examples, in seconds: in whole minutes."""
    return 60.0 * math.ceil(BUDGET_S * max(1.0, examples / FULL_EXAMPLES) / 60)


def _after(tried: TuningReport, *, others: bool) -> list[Advice]:
    """What a tuning says about time; where others were measured, one that was not tried is no loss to speak of."""
    if tried.ended == "no_time" and not others:
        what = "all layers" if tried.method is Method.FULL else f"{tried.unfrozen_layers} layers"
        fewer = (
            " or fewer unfrozen_layers" if tried.method is Method.PARTIAL else " or try the method partial"
        )
        text = (
            f"time_budget is too short for tuning {what}, so this was not tried. Give a longer one,{fewer}."
        )
        return [Advice(AdviceKind.TIME, text)]
    seconds = max(2 * tried.seconds, BUDGET_S)
    if tried.ended == "time" and tried.objective is TuningObjective.CONTRASTIVE and not tried.kept:
        text = "time_budget ended before the training on all examples, and nothing came of it. Give a longer one."
        return [Advice(AdviceKind.TIME, text, cost_seconds=seconds)]
    if tried.ended == "time" and (tried.kept or not tried.measured):
        text = (
            f"The time_budget ended the tuning of {tried.unfrozen_layers} of {tried.layers} layers before it was done: "
            "a longer one may bring more."
        )
        return [Advice(AdviceKind.TIME, text, cost_seconds=seconds)]
    return []


def _backbone(labels: Advice | None, tried: TuningReport | None) -> Advice:
    """What is left where neither labels nor tuning help."""
    of_labels = "More examples like these are forecast to bring little"
    if labels is not None:
        of_labels = (
            f"Twice the examples are forecast to bring {_points(labels.expected_gain)} "
            f"({_range(labels.expected_gain_low, labels.expected_gain_high)})"
        )
    tuned = "" if tried is None else ", and tuning gained nothing beyond noise"
    text = (
        f"{of_labels}{tuned}: try another backbone, larger or trained on inputs like these, or check whether the "
        "labels can be told from the inputs at all."
    )
    return Advice(AdviceKind.BACKBONE, text)


def _points(share: float) -> str:
    points = f"{100 * share:.1f}"
    return f"{points} point{'' if points == '1.0' else 's'}"


def _range(low: float, high: float, what: str = "80% interval ") -> str:
    return f"{what}{100 * low:.1f} to {100 * high:.1f}"
