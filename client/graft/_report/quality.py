"""How good a version is, as sections of the report page. A section without figures is empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Final

from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.reports import Candidate, ClassReport, Report
from graft._report import charts, markup, words

_MAX_MATRIX: Final = 16
"""Classes in the confusion matrix; with more of them its labels are too small to read."""
_SHOWN_CONFUSIONS: Final = 10
_FARTHEST: Final = 5
"""Values that are listed as farthest off."""


def predictions(report: Report) -> str:
    """Predicted and true values of a regression."""
    if not report.predicted_values:
        return ""
    shown = len(report.predicted_values)
    sample = f" A sample of {shown:,}." if shown < report.evaluated_examples else ""
    caption = (
        "On the dotted line predictions are exact. Whiskers: the interval that each answer comes with; where it "
        f"misses the true value, both are red.{sample}"
    )
    chart = charts.predictions(report.predicted_values)
    return markup.section(
        "Predicted and true values",
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>{_abstaining(report)}",
    )


def residuals(report: Report) -> str:
    """How far off a regression is, and its farthest values."""
    if not report.predicted_values:
        return ""
    far = sorted(
        (one for one in report.predicted_values if not one.low <= one.value <= one.high),
        key=lambda one: -max(one.low - one.value, one.value - one.high),
    )
    rows = [
        [markup.name(one.id), words.number(one.value), f"<strong>{words.number(one.predicted)}</strong>"]
        for one in far[:_FARTHEST]
    ]
    table = markup.table(("Example", "Value", "Predicted"), rows, ("", "n", "n")) if rows else ""
    worth = (
        f'<h3>Worth a second look</h3><p class="soft">Farthest outside of their intervals.</p>{table}'
        if rows
        else ""
    )
    caption = "To the right of the line are values that were predicted too low, to its left too high."
    return markup.section(
        "How far off it is",
        f"<figure>{charts.residuals(report.predicted_values)}<figcaption>{caption}</figcaption></figure>{worth}",
    )


def learning_curve(report: Report) -> str:
    """What more examples would bring."""
    curve = report.learning_curve
    if curve is None or not (curve.points or curve.forecasts):
        return ""
    # Forecasts go on from the cross-validated accuracy; a held-out set's need not lie on the same curve.
    measure = words.measure(report)
    figure = words.figure(report) if report.evaluation == "cross_validation" else None
    now = None if figure is None else (report.examples, figure)
    advice, short = words.useful_advice(report), markup.shortened(report)
    items = "".join(
        f'<li class="worth"><span>{words.plural(one.more_examples, "more example")} of {short(one.label)}</span>'
        f'<span class="soft"><b>+{100 * one.gain:.0f}</b> ({100 * one.low:.0f} to {100 * one.high:.0f})</span></li>'
        for one in advice
    )
    one = "label" if report.multi_label is not None else "class"
    worth = f'<p class="soft">More examples of any single {one} are expected to gain little.</p>'
    unit = (
        f"<figcaption>Points of the {one}'s own recall, 80% intervals. {measure[0].upper()}{measure[1:]} over all "
        "gains from more examples of all of them.</figcaption>"
    )
    if items:
        worth = f'<ul class="plain">{items}</ul>{unit}'
    worth = f"<h3>Most worth labelling next</h3>{worth}"
    chart = charts.learning_curve(curve.points, now, curve.forecasts, measure)
    plain = "ridge" if report.regression is not None else "logistic"
    caption = (
        f"Line: a plain {plain} regression on parts of the examples, measured on some of the folds, so that it "
        "need not meet the version's own figure. Dashes: forecast for this version. Bands: 80% intervals."
    )
    return markup.section(
        "What more examples would bring",
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"
        f"{worth if report.regression is None else ''}",
    )


def reliability(report: Report) -> str:
    """How far to trust the probabilities, and when the version abstains."""
    if not any(one.examples for one in report.reliability):
        shown = report.novelty is None or report.predicted_values  # beside the values there is room for it
        return "" if shown else markup.section("When it abstains", f"<p>{_novelty(report)}</p>")
    what = "answers given with 80% are right 80% of the time; below it the version is too sure"
    if report.multi_label is not None:
        what = "labels given 80% apply 80% of the time; below it the version is too sure of them"
    bars = " Bars: the logarithm of how many." if report.multi_label is not None else ""
    caption = f"On the dotted line, {what}. Whiskers: 80% intervals.{bars}"
    chart = charts.reliability(report.reliability, sets=report.multi_label is not None)
    return markup.section(
        "How far to trust its probabilities",
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>{_abstaining(report)}",
    )


def _abstaining(report: Report) -> str:
    return f'<h3>When it abstains</h3><p class="soft">{_novelty(report)}</p>' if report.novelty else ""


def _novelty(report: Report) -> str:
    if report.novelty is None:
        return ""
    return (
        f"An input is marked as abstained when its novelty is above {report.novelty.threshold:.2f}. "
        f"That is expected of {report.novelty.false_alarm_rate:.0%} of inputs like the training examples, "
        "and of most inputs unlike them."
    )


def confusions(report: Report) -> str:
    """Which classes are confused with each other."""
    if not report.per_class or not report.evaluation or report.task != "single_label":
        return ""
    grid, short = confusion_grid(report), markup.shortened(report)
    if len(grid.labels) < report.classes:
        said = f"The {len(grid.labels)} of {report.classes:,} classes that are confused most often."
    else:
        said = "All classes, those that are confused with each other side by side."
    said += " Each row is a class, and how its examples were answered, in %. Point at a cell for counts."
    matrix = f'<figure><div class="scroll">{charts.confusion_matrix(grid)}</div></figure>'
    support = {entry.label: entry.support for entry in report.per_class}
    items = "".join(
        f'<li class="worth"><span>{short(one.label)} <span class="soft">answered with</span> {short(one.predicted)}'
        f'</span><span class="soft"><b>{one.count:,}</b> of {support.get(one.label, 0):,}</span></li>'
        for one in report.confusions[:_SHOWN_CONFUSIONS]
    )
    pairs = f'<div><h3>Most frequent confusions</h3><ul class="plain">{items}</ul></div>' if items else ""
    return markup.section("What it confuses", f'<p>{said}</p><div class="split">{matrix}{pairs}</div>')


def confusion_grid(report: Report) -> charts.Grid:
    """The classes of the report's most frequent confusions, or all where these are few, the confused ones adjacent."""
    entries = {entry.label: entry for entry in report.per_class}
    chosen: dict[str, None] = {}
    for one in report.confusions:
        for label in (one.label, one.predicted):
            if label in entries and (len(chosen) < _MAX_MATRIX or label in chosen):
                chosen[label] = None
    if len(entries) <= _MAX_MATRIX:
        chosen.update(dict.fromkeys(entries))
    elif len(chosen) < 2:
        chosen.update(dict.fromkeys(entry.label for entry in _worst(report.per_class)[:_MAX_MATRIX]))
    labels = _side_by_side(tuple(chosen), report)
    place = {label: index for index, label in enumerate(labels)}
    return charts.Grid(
        labels=labels,
        right=tuple(entries[label].recall or 0.0 for label in labels),
        wrong={
            (place[one.label], place[one.predicted]): one.count
            for one in report.confusions
            if one.label in place and one.predicted in place
        },
        support=tuple(entries[label].support for label in labels),
    )


def _side_by_side(labels: tuple[str, ...], report: Report) -> tuple[str, ...]:
    """The labels in an order that goes from each to the one that it is confused with most, of those left."""
    links: Counter[frozenset[str]] = Counter()
    for one in report.confusions:
        links[frozenset((one.label, one.predicted))] += one.count
    left = list(labels)
    order: list[str] = []
    while left:
        best = left[0]
        if order:
            best = max(
                left, key=lambda label: [links[frozenset((label, done))] for done in reversed(order[-3:])]
            )
        order.append(best)
        left.remove(best)
    return tuple(order)


def classes(report: Report | EvaluationResult, most: int | None = None) -> str:
    """A table of the classes or labels, worst first; where there are more than `most`, the others are counted."""
    sets = report.multi_label is not None and isinstance(report, Report)
    cut = isinstance(report, Report) and report.truncated_examples > 0
    rows = []
    for entry in _worst(report.per_class):
        figures = [_meter(entry.f1), _meter(entry.precision), _meter(entry.recall)]
        if not entry.support:
            figures = [f'<span class="soft">{words.NOT_MEASURED}</span>', "", ""]
        threshold = [f"{entry.threshold:.2f}"] if sets else []
        truncated = [f"{entry.truncated:,}"] if cut else []
        counts = [f"{entry.examples:,}", *truncated, f"{entry.support:,}"]
        rows.append([markup.name(entry.label), *counts, *threshold, *figures])
    if not rows:
        return ""
    named = "Label" if report.multi_label is not None else "Class"
    heads = [
        named,
        "Examples",
        *(["Cut off"] if cut else []),
        "Evaluated",
        *(["Selected from"] if sets else []),
        "F1",
        "Precision",
        "Recall",
    ]
    said = "Worst first. Precision: how often this answer is right. Recall: how much of the class is found."
    if sets:
        said = (
            "Worst first. Precision: how often the label applies where it is selected. Recall: how much of what "
            "carries it is found. Each label is selected from a probability of its own, chosen out of fold."
        )
    if cut:
        said += " Cut off: examples that are longer than the backbone reads."
    counts = ["n extra"] * (2 + cut + sets)
    kinds = ["", *counts, "meter", "meter", "meter"]
    table = markup.table(heads, rows[:most], kinds)
    if most is not None and len(rows) > most:
        table += f'<p class="soft">and {len(rows) - most:,} more, which are better or were not evaluated.</p>'
    return markup.section(f"{named} by {named.lower()}", f"<p>{said}</p>{table}", kind="long")


def _worst(classes: Iterable[ClassReport]) -> list[ClassReport]:
    """Classes by rising F1, those that were not evaluated last."""
    return sorted(classes, key=lambda entry: (not entry.support, entry.f1 or 0.0, entry.label))


def _meter(share: float | None) -> str:
    return f'<i style="--share:{share or 0.0:.1%}"></i>{words.percent(share)}'


def head(report: Report) -> str:
    """The chosen head, and what it was chosen from."""
    head = report.head
    if not head.kind:
        return ""
    rows = [
        [
            markup.joined_names(one.kind),
            markup.joined_names(one.view),
            escape(words.values(one.settings)),
            *_measures(report, one),
        ]
        for one in head.candidates
    ]
    chosen = next(
        (
            index
            for index, one in enumerate(head.candidates)
            if (one.kind, one.view, one.settings) == (head.kind, head.view, head.settings)
        ),
        None,
    )
    said = f"<p>Chosen: <strong>{escape(words.head(head.kind, head.view, head.settings))}</strong>"
    if report.task == "single_label":
        said += f", its logits divided by a temperature of {head.temperature:.3f}"
    by = "log-loss" if report.regression is None else "error"
    which = (
        "The simplest that is surely as good as the best"
        if report.task == "single_label"
        else "The simplest of the best"
    )
    said += f". {which} by cross-validated {by}.</p>" if rows else ".</p>"
    heads = ("Tried", "Reads", "Settings", *_MEASURES[report.task])
    table = markup.table(heads, rows, ("", "extra", "", "n", "n"), chosen) if rows else ""
    return markup.section("The head", said + table)


_MEASURES: Final = {
    "single_label": ("Log-loss", "Accuracy"),
    "multi_label": ("Log-loss", "Micro-F1"),
    "regression": ("RMSE", "Of the deviation"),
}
"""What heads that were tried are compared by."""


def _measures(report: Report, one: Candidate) -> tuple[str, str]:
    if report.regression is not None:
        deviation = report.regression.deviation
        share = one.rmse / deviation if deviation and one.rmse is not None else None
        return words.figure_as(".4g", one.rmse), "" if share is None else words.percent(share)
    share = one.micro_f1 if report.multi_label is not None else one.accuracy
    return words.figure_as(".3f", one.log_loss), words.percent(share)
