"""What a report says in sentences and figures, the same on a terminal and on a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final

from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.reports import (
    Advice,
    ClassAdvice,
    CurvePoint,
    DataReport,
    DuplicateGroup,
    ExampleRef,
    LookAlikes,
    NoveltyReport,
    Report,
    TuningReport,
    UnlabelledReport,
)

_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that set the direction in which what follows is written, beyond the end of the text that has them."""
LEAST_GAIN: Final = 0.0005
"""Of accuracy: what rounds to less than 0.1 points is no gain."""
LEAST_RECALL: Final = 0.01
"""What is advised gains so much of a class's recall."""

LEAST_EXAMPLES: Final = 8
"""A share of fewer examples is not shown."""
NOT_MEASURED: Final = "not measured"
NOT_STATED: Final = f"{NOT_MEASURED}: too few examples"


def percent(share: float | None) -> str:
    """A share, 0 to 1, with one decimal."""
    return NOT_MEASURED if share is None else f"{share:.1%}"


def figure_as(form: str, value: float | None) -> str:
    """A figure in a format as of `format`, for example ".3f"."""
    return NOT_MEASURED if value is None else format(value, form)


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of a share, 0 to 1."""
    return NOT_MEASURED if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def accuracy(of: Report | EvaluationResult) -> str:
    """The accuracy with its 95% interval, where it is known."""
    if not stated(of):
        return NOT_STATED
    known = of.accuracy_high is not None
    return percent(of.accuracy) + (f" ({interval(of.accuracy_low, of.accuracy_high)})" if known else "")


def stated(of: Report | EvaluationResult) -> bool:
    """Whether there were enough examples for figures."""
    return (of.accuracy if of.regression is None else of.regression.rmse) is not None


def look_alikes(found: LookAlikes) -> str:
    """The figure with whole groups of look-alikes held out, with its 95% interval."""
    groups = f"{plural(found.examples, 'example')} in {plural(found.groups, 'group')}"
    return f"{percent(found.accuracy)} ({interval(found.low, found.high)}); {groups}"


def score(report: Report, *, interval: bool = False) -> str:
    """The figure of the task in short, for a table of several; with its 95% interval if that is wanted and known."""
    if not stated(report):
        return NOT_MEASURED
    if report.regression is not None:
        return f"R² {percent(report.regression.r2)}"
    low, high = report.accuracy_low, report.accuracy_high
    if not interval or low is None or high is None:
        return percent(report.accuracy)
    return f"{percent(report.accuracy)} ({100 * low:.0f}-{100 * high:.0f})"


def printable(text: str) -> str:
    """A text from outside, without what would move a terminal's cursor, change its colours or turn its lines round."""
    return "".join(
        it if it in "\n\t" or (unicodedata.category(it) != "Cc" and it not in _TURNING) else "\ufffd"
        for it in text
    )


def in_short(report: Report) -> str:
    """The figure of the task, with its name and what is known of its uncertainty."""
    if not stated(report):
        return f"accuracy {NOT_STATED}"
    if report.regression is not None:
        return f"R² {percent(report.regression.r2)}"
    return f"accuracy {accuracy(report)}"


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def truncated(report: Report) -> str:
    """How many examples are longer than the backbone reads."""
    share = report.truncated_examples / max(report.examples, 1)
    return f"the end of {plural(report.truncated_examples, 'example')} ({percent(share)})"


def measured(report: Report) -> str:
    """How the figures were measured, and on what."""
    if not report.evaluation:
        return "nothing: too few examples"
    how = report.evaluation.replace("_", "-")
    folds = f", {report.evaluation_folds} folds" if report.evaluation_folds else ""
    return f"{how}{folds}, {report.evaluated_examples:,} examples"


def head(kind: str, view: str, settings: Mapping[str, float]) -> str:
    """A head in one line."""
    named = values(settings)
    return f"{kind} on {view}" + (f" ({named})" if named else "")


def values(settings: Mapping[str, float]) -> str:
    """A head's settings in one line."""
    return ", ".join(f"{name}={value:g}" for name, value in sorted(settings.items()))


def measure(report: Report) -> str:
    """The name of the figure that the task is measured by."""
    if report.regression is not None:
        return "variance explained"
    return "micro-F1" if report.multi_label is not None else "accuracy"


def figure(report: Report) -> float | None:
    """That figure, at most 1; None: not measured."""
    if report.regression is not None:
        return report.regression.r2
    return report.multi_label.micro_f1 if report.multi_label is not None else report.accuracy


def number(value: float | None) -> str:
    """A number with about four digits, without an exponent where it can be read without."""
    if value is None:
        return NOT_MEASURED
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def forecast(point: CurvePoint) -> str:
    """The figure to expect, with its uncertainty."""
    return f"{percent(point.accuracy)} (80% interval {100 * point.low:.1f} to {100 * point.high:.1f})"


def useful_advice(report: Report) -> tuple[ClassAdvice, ...]:
    """The advice that would gain enough to be worth a sentence."""
    advice = report.learning_curve.advice if report.learning_curve else ()
    return tuple(one for one in advice if one.gain >= LEAST_RECALL)


def gain(advice: ClassAdvice) -> str:
    """What more examples of a class would gain, with its uncertainty."""
    low, high = 100 * advice.low, 100 * advice.high
    points = f"{100 * advice.gain:.0f}"
    return f"{points} point{'s' * (points != '1')} of its recall (80% interval {low:.0f} to {high:.0f})"


def advice(one: ClassAdvice) -> str:
    """What more examples of a class would bring, as a sentence without its end."""
    return f"about {plural(one.more_examples, 'more example')} of {one.label} would gain {gain(one)}"


def novelty(value: NoveltyReport) -> str:
    """When the version abstains."""
    return (
        f"above a novelty of {value.threshold:.2f}: "
        f"about {value.false_alarm_rate:.0%} of inputs like the training examples"
    )


def tunings(report: Report) -> tuple[TuningReport, ...]:
    """The tunings that were tried: the one that the report is of comes last."""
    return (*report.other_tunings, *([] if report.tuning is None else [report.tuning]))


TUNING_COLUMNS: Final = (
    "tuning tried", "measured on", "accuracy (error)", "log-loss (error)", "outcome", "cost",
)  # fmt: skip
"""What is told of each tuning."""


def tuning(value: TuningReport) -> tuple[str, ...]:
    """A tuning in the order of `TUNING_COLUMNS`: figures go from the frozen head's to the tuned version's."""
    some = f"{value.unfrozen_layers} of {value.layers} layers"
    what = ", ".join(
        (
            value.method,
            value.objective.replace("_", " ") + (" with label names" if value.label_names else ""),
            f"all {value.layers} layers" if value.unfrozen_layers == value.layers else some,
            *([f"rank {value.rank}"] if value.rank else []),
        )
    )
    cost = f"{value.seconds:.0f} s"
    cost += f", {megabytes(value.bytes)}" if value.bytes else ""
    cost += f" ({megabytes(value.full_bytes)} as whole layers)" if value.bytes and value.full_bytes else ""
    if not value.measured:
        return what, "", "", "", outcome(value), cost
    error = value.accuracy_gain_error
    return (
        what,
        f"{value.folds} folds, {value.measured:,}" if value.folds else f"{value.measured:,} held out",
        (
            f"{percent(value.frozen_accuracy)} to {percent(value.tuned_accuracy)}"
            f"{'' if error is None else f' ({100 * error:.1f})'}"
        ),
        (
            f"{figure_as('.3f', value.frozen_log_loss)} to {figure_as('.3f', value.tuned_log_loss)} "
            f"({figure_as('.3f', value.gain_error)})"
        ),
        outcome(value),
        cost,
    )


_UNTRIED: Final = {
    "too_few": "not tried: too few examples",
    "features": "not tried: some examples are features already",
    "no_time": "not tried: the time budget is too short",
    "failed": "failed: the server's log says why",
}
"""Why nothing came of a tuning, by how it ended."""


def outcome(value: TuningReport) -> str:
    """Whether a tuning was kept or dropped, and why."""
    if value.ended in _UNTRIED:
        return _UNTRIED[value.ended]
    if value.kept:
        share = value.tuned_share
        blended = "" if share is None or share >= 1 else f", blended: {share:.0%} tuned"
        return f"kept{blended}{_ENDED.get(value.ended, '')}"
    if value.measured:
        return f"dropped: no better beyond noise{_ENDED.get(value.ended, '')}"
    return f"dropped: nothing gained{_ENDED.get(value.ended, '')}"


_ENDED: Final = {"time": "; the time budget ended it", "diverged": "; it diverged"}
"""What ended a tuning early."""


def megabytes(count: int) -> str:
    """A number of bytes in megabytes."""
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


def unlabelled(value: UnlabelledReport) -> str:
    """What examples without a target brought, and how far they are like those with one."""
    said = f"{value.examples:,}"
    if value.used:
        kept = (
            f"trained with, each counting {value.weight:.2g}"
            if value.kept
            else "dropped: no better beyond noise"
        )
        said += (
            f", {value.used:,} tried in training: {kept}; log-loss {figure_as('.3f', value.log_loss_before)} to "
            f"{figure_as('.3f', value.log_loss_after)} ({figure_as('.3f', value.gain_error)})"
        )
    if value.novel_share:
        said += f"; {value.novel_share:.0%} are novel"
    if value.drift:
        said += f", and {abs(value.drift):.0%} {'more' if value.drift > 0 else 'less'} of the newer half"
    return said


def expected(one: Advice) -> str:
    """What an advice is expected to gain, in points; empty where that is not estimated."""
    if one.expected_gain is None or one.expected_gain_low is None or one.expected_gain_high is None:
        return ""
    low, high = 100 * one.expected_gain_low, 100 * one.expected_gain_high
    return f"+{100 * one.expected_gain:.1f} points ({low:.1f} to {high:.1f})"


def in_brief(one: Advice, measure: str = "accuracy") -> str:
    """An advice in a line, in the contract's words; the whole text where it has no estimate."""
    if not (gained := expected(one)):
        return one.text
    what = {
        "labels": plural(one.cost_examples, "more example"),
        "time": f"a time_budget of {one.cost_seconds:.0f} s for tuning",
    }.get(one.kind)
    return f"{what} may bring {gained} of {measure}" if what else one.text


def reference(example: ExampleRef) -> str:
    """Which example is meant: its id, and its writer and sequence where the id does not say them."""
    place = f"{example.writer_id}/{example.sequence}" if example.writer_id else str(example.sequence)
    return example.id if example.id == place else f"{example.id} ({place})".lstrip()


def references(group: DuplicateGroup) -> str:
    """Which examples a group has."""
    more = f" and {group.count - len(group.examples):,} more" if group.count > len(group.examples) else ""
    return ", ".join(reference(example) for example in group.examples) + more


CONFLICTS: Final = {
    "single_label": "under several labels",
    "multi_label": "under different labels",
    "regression": "with different values",
}
"""How targets contradict each other, by the task."""


def findings(data: DataReport, task: str = "single_label") -> str:
    """What was found among the training examples, in counts."""
    counts = (
        (data.exact_duplicates, "exact duplicate", ""),
        (data.near_duplicates, "near duplicate", ""),
        (data.bound_examples, "example held out with its copies", "examples held out with their copies"),
        (
            data.validation_copies,
            "held-out copy of a training example",
            "held-out copies of training examples",
        ),
        (data.conflicting_inputs, f"input {CONFLICTS[task]}", f"inputs {CONFLICTS[task]}"),
        (data.probable_label_errors, "label worth a second look", "labels worth a second look"),
        (len(data.similar_labels), "group of similar labels", "groups of similar labels"),
        (data.confirmed_examples, "confirmed label", ""),
        (data.unlabelled_examples, "unlabelled example", ""),
    )
    return ", ".join(plural(*count) for count in counts if count[0]) or "nothing to look at"
