"""A version's report as one HTML page that stands alone.

It loads nothing and runs nothing (its own content security policy forbids both), so that it can be mailed,
attached and printed. Whatever comes from examples, labels and ids above all, is escaped. Parts that a report
does not have are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from graft._records.records import Version
from graft._records.reports import (
    Candidate,
    ClassReport,
    DuplicateGroup,
    LabelError,
    MapPoint,
    MultiLabelFigures,
    RegressionFigures,
    Report,
)
from graft._report import charts, words
from graft._version import __version__

_MAX_MATRIX: Final = 16
"""Classes in the confusion matrix; with more of them its labels are too small to read."""
_SHOWN_CONFUSIONS: Final = 10
_ROOM: Final = 44
"""Characters of a label in a list beside a chart."""
_FARTHEST: Final = 5
"""Values that are listed as farthest off."""
_SHOWN_ROWS: Final = 10
"""Of a list of findings; the rest is folded away."""
_MAX_COLOURED: Final = 16
"""Classes that each have a mark of their own on the map; of more, the worst are coloured."""

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: #f6f6f4; --card: #ffffff; --well: #f2f3f1; --ink: #16181d; --soft: #5b616b; --faint: #a4a9b1;
  --line: #e4e5e2; --accent: #2a6fdb; --alarm: #d9572b; --note: #fdf4dd; --note-line: #e5b84b;
  --hue0: #2a78d6; --hue1: #eb6834; --hue2: #1baf7a; --hue3: #eda100;
  --hue4: #e87ba4; --hue5: #008300; --hue6: #4a3aa7; --hue7: #e34948;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #131417; --card: #1c1e22; --well: #25282d; --ink: #eceef1; --soft: #a5abb5; --faint: #6d737d;
    --line: #32363c; --accent: #5594f2; --alarm: #e2673c; --note: #2e281a; --note-line: #a8832c;
    --hue0: #4a93ee; --hue1: #e0662f; --hue2: #1fa677; --hue3: #cf9210;
    --hue4: #dd6190; --hue5: #2f9e2f; --hue6: #9c92ee; --hue7: #ea6f6f;
  }
}
.hue0 { fill: var(--hue0) } .hue1 { fill: var(--hue1) } .hue2 { fill: var(--hue2) } .hue3 { fill: var(--hue3) }
.step0 { fill: #5b3fd0 } .step1 { fill: #8a3fd1 } .step2 { fill: #b5409f } .step3 { fill: #d9576b }
.step4 { fill: #ee7d3e } .step5 { fill: #f0a32c } .step6 { fill: #e3c11e }
.hue4 { fill: var(--hue4) } .hue5 { fill: var(--hue5) } .hue6 { fill: var(--hue6) } .hue7 { fill: var(--hue7) }
* { box-sizing: border-box }
body {
  margin: 0; padding: 40px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
main { max-width: 1160px; margin: 0 auto }
h1 { margin: 0; font-size: 30px; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere }
h2 { margin: 0 0 4px; font-size: 18px; letter-spacing: -.005em }
h3 { margin: 22px 0 6px; font-size: 15px }
p { margin: 0 0 12px; max-width: 76ch }
.soft, .by, figcaption { color: var(--soft) }
.by { margin: 4px 0 0 }
.lead { margin: 18px 0 22px; font-size: 18px; line-height: 1.45 }
.tag {
  display: inline-block; padding: 1px 9px; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: var(--soft); font-size: 13px; vertical-align: 5px; font-weight: 500;
}
.tag.live { border-color: var(--accent); color: var(--accent) }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; margin-bottom: 16px }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px }
.tile { padding: 14px 16px; margin: 0 }
.tile dt { color: var(--soft); font-size: 13px }
.tile dd { margin: 2px 0 0; font-size: 26px; font-weight: 650; letter-spacing: -.02em; line-height: 1.2 }
.tile dd + dd { font-size: 12.5px; font-weight: 400; letter-spacing: 0; color: var(--soft); margin-top: 4px }
.tile.first dd:first-of-type { color: var(--accent) }
section { padding: 22px 24px; margin-bottom: 16px; min-width: 0 }
section > p { color: var(--soft); font-size: 14px }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 16px }
.pair section:only-child { grid-column: 1 / -1 }
.pair section:only-child figure { max-width: 640px }
figure { margin: 14px 0 0 }
figcaption { font-size: 13px; margin-top: 10px }
.scroll { overflow-x: auto; margin: 0 -4px; padding: 0 4px }
.scroll svg { max-width: none }
.split { display: flex; flex-wrap: wrap; gap: 20px 36px; align-items: flex-start }
.split > figure { flex: 0 1 auto; min-width: 0; max-width: 100% }
.split > figure.wide { flex: 1 1 480px }
.split > div { flex: 1 1 270px; min-width: 0 }
.notes { background: var(--note); border-color: var(--note-line) }
ul { margin: 8px 0 0; padding-left: 20px }
li { margin: 3px 0 }
.plain { list-style: none; padding: 0; margin: 6px 0 0 }
.plain li { margin: 0; padding: 7px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere }
.plain li:first-child { border-top: 0 }
.worth { display: flex; gap: 12px; justify-content: space-between; align-items: baseline }
.worth span:last-child { white-space: nowrap }
.worth b { color: var(--ink) }
.legend { font-size: 13.5px }
.legend li { border: 0; padding: 3px 0; display: flex; align-items: baseline }
svg.swatch { flex: none; width: 12px; height: 12px; margin-right: 8px; align-self: center }
.key { flex: 0 1 220px !important }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line) }

th:last-child, td:last-child { padding-right: 0 !important }
td { vertical-align: top; overflow-wrap: anywhere }
td.n, th.n { text-align: right; overflow-wrap: normal; padding-right: 28px }
td.n { white-space: nowrap }
tr:last-child td { border-bottom: 0 }
tr.chosen td { font-weight: 650 }
td.meter { width: 17%; min-width: 96px; white-space: nowrap }
.meter i {
  display: inline-block; vertical-align: 1px; width: calc(100% - 62px); height: 7px; border-radius: 4px;
  margin-right: 8px; background: linear-gradient(var(--accent), var(--accent)) 0 / var(--share) no-repeat var(--well);
}
details { margin-top: 6px }
summary { cursor: pointer; color: var(--accent); font-size: 14px; padding: 6px 0 }
.counts { display: flex; flex-wrap: wrap; gap: 8px 32px; margin: 12px 0 0 }
.counts div { display: flex; flex-direction: column-reverse }
.counts dt { color: var(--soft); font-size: 13px }
.counts dd { margin: 0; font-size: 22px; font-weight: 650 }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; overflow-wrap: anywhere }
@media screen and (max-width: 900px) {
  .tiles { grid-template-columns: repeat(3, 1fr) }
  .pair { grid-template-columns: minmax(0, 1fr) }
}
@media screen and (max-width: 560px) {
  body { padding: 22px 12px 40px }
  h1 { font-size: 24px }
  .lead { font-size: 16px }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px }
  section { padding: 16px 14px }
  .extra { display: none }
  th, td, td.n, th.n { padding-right: 10px }
  td.meter { min-width: 0; width: auto; text-align: right }
  th.meter { text-align: right }
  .meter i { display: none }
  svg text { font-size: 16px }
  .scroll svg text { font-size: 12px }
}
@media print {
  @page { margin: 14mm }
  :root { color-scheme: light; --paper: #ffffff }
  body { padding: 0; font-size: 12px }
  section, .tile { break-inside: avoid }
  section.long { break-inside: auto }
  section { padding: 14px 16px; margin-bottom: 10px }
  .tiles, .pair { gap: 0 10px; margin-bottom: 10px }
  .tile { padding: 10px 12px }
  .tile dd { font-size: 20px }
  .tile dd + dd { font-size: 10.5px }
  h3 { margin-top: 12px }
  .lead { font-size: 15px; margin: 10px 0 14px }
  p, section > p, figcaption, table, th, .legend { font-size: 11px }
  .plain li, th, td { padding-top: 3px; padding-bottom: 3px }
  .split { gap: 8px 20px }
  .split > figure.wide { flex-basis: 420px }
  .key { flex-basis: 150px !important }
  td.meter { width: 13%; min-width: 0; text-align: right }
  .meter i { display: none }
  th.meter { text-align: right }
  tr, li { break-inside: avoid }
  thead { display: table-header-group }
  .scroll { overflow: visible }
  .scroll svg { max-width: 100% }
  summary { display: none }
  details::details-content { content-visibility: visible; height: auto }
}
"""


def page(version: Version) -> str:
    """The report of a version, as HTML text."""
    report = version.report
    name = f"{version.model}, version {version.version}"
    numbers = report.regression is not None  # they have no classes: the head fills the place beside the curve
    parts = [
        _header(version),
        _tiles(report),
        _warnings(report.warnings),
        _pair(_predictions(report), _residuals(report)),
        _pair(_curve(report), _reliability(report), _head(report) if numbers else ""),
        _confusions(report),
        _map(report),
        _data(report),
        _classes(report),
        "" if numbers else _head(report),
        _footer(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(name)}</title>\n<style>{charts.STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{''.join(part for part in parts if part)}</main>\n</body>\n</html>\n"
    )


def _header(version: Version) -> str:
    report = version.report
    tags = "".join(
        f' <span class="tag{" live" if alias == "live" else ""}">{escape(alias)}</span>'
        for alias in version.aliases
    )
    trained = f"Trained {report.trained_time:%d %B %Y, %H:%M} UTC" if report.trained_time else "Trained"
    by = (
        f"{trained} in {report.training_duration_s:.1f} s on the backbone {report.backbone} ({report.method})"
    )
    return (
        f'<header><h1>{_name(version.model)} <span class="soft">version {version.version}</span>{tags}</h1>'
        f'<p class="by">{escape(by)}</p><p class="lead">{_lead(report)}</p></header>\n'
    )


def _lead(report: Report) -> str:
    if not report.evaluation:
        return "There were too few examples to measure how good this version is."
    said = f"{_in_short(report)}, measured "
    if report.evaluation == "held_out":
        said += f"on {words.plural(report.evaluated_examples, 'example')} held out from training."
    else:
        said += f"on {report.evaluated_examples:,} examples by cross-validation in {report.evaluation_folds} folds."
    forecasts = report.learning_curve.forecasts if report.learning_curve else ()
    ahead = next((point for point in forecasts if point.examples >= 2 * report.examples), None)
    if ahead is None:
        return said
    if ahead.accuracy < words.figure(report) + words.LEAST_GAIN:
        return f"{said} More examples of the same kind are not expected to change that much."
    twice = {
        "single_label": "twice the examples of every class",
        "multi_label": "twice the examples of every label",
        "regression": "twice the examples",
    }[report.task]
    return f"{said} With {twice}, expect {escape(words.forecast(ahead))}."


def _in_short(report: Report) -> str:
    if report.regression is not None:
        numbers = report.regression
        return (
            f"It explains <strong>{words.percent(numbers.r2)}</strong> of the values' variance and is off by "
            f"{words.number(numbers.mae)} on average"
        )
    if report.multi_label is not None:
        return (
            f"Its decisions about labels have a micro-F1 of <strong>{words.percent(report.multi_label.micro_f1)}"
            "</strong>"
        )
    return f"<strong>{words.percent(report.accuracy)}</strong> of its answers are right"


def _tiles(report: Report) -> str:
    """The figures that the task is measured by, the first of them first."""
    if report.regression is not None:
        return _row_of_tiles(_number_tiles(report, report.regression))
    if report.multi_label is not None:
        return _row_of_tiles(_set_tiles(report, report.multi_label))
    return _row_of_tiles(_label_tiles(report))


def _number_tiles(report: Report, numbers: RegressionFigures) -> list[tuple[str, str, str]]:
    known = bool(report.evaluation)
    width = f"{words.number(numbers.interval_width)} wide on average; meant to hold {numbers.confidence:.0%}"
    return [
        ("Explained", words.percent(numbers.r2) if known else "–", "of the variance (R²)"),
        ("Mean error", words.number(numbers.mae) if known else "–", "absolute"),
        ("RMSE", words.number(numbers.rmse) if known else "–", "root mean square error"),
        ("Intervals hold", words.percent(numbers.coverage) if known else "–", width),
        ("Values", words.number(numbers.mean), f"mean; standard deviation {words.number(numbers.deviation)}"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
    ]


def _set_tiles(report: Report, labels: MultiLabelFigures) -> list[tuple[str, str, str]]:
    known = bool(report.evaluation)
    each = f"{labels.labels_per_example:.2f} an example, {labels.selected_per_example:.2f} selected"
    return [
        ("Micro-F1", words.percent(labels.micro_f1) if known else "–", "every decision counts the same"),
        ("Macro-F1", words.percent(report.macro_f1) if known else "–", "every label counts the same"),
        ("Sets right", words.percent(report.accuracy) if known else "–", "exactly the right labels"),
        ("Calibration error", words.percent(report.calibration_error) if known else "–", "lower is better"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
        ("Labels", f"{report.classes:,}", each),
    ]


def _held_out(report: Report) -> str:
    return f"and {report.validation_examples:,} held out" if report.validation_examples else "trained on"


def _label_tiles(report: Report) -> list[tuple[str, str, str]]:
    known = bool(report.evaluation)
    counts = [entry.examples for entry in report.per_class]
    each = f"{min(counts):,} to {max(counts):,} examples each" if counts else ""
    if counts and min(counts) == max(counts):
        each = f"{words.plural(counts[0], 'example')} each"
    return [
        ("Accuracy", words.percent(report.accuracy) if known else "–", "of answers are right"),
        ("Macro-F1", words.percent(report.macro_f1) if known else "–", "every class counts the same"),
        ("Calibration error", words.percent(report.calibration_error) if known else "–", "lower is better"),
        ("Log-loss", f"{report.log_loss:.3f}" if known else "–", "nats; lower is better"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
        ("Classes", f"{report.classes:,}", each),
    ]


def _row_of_tiles(tiles: Sequence[tuple[str, str, str]]) -> str:
    cells = "".join(
        f'<dl class="tile{" first" if name == tiles[0][0] else ""}"><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></dl>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>\n'


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return _section("Before you rely on it", f"<ul>{items}</ul>", kind="notes") if items else ""


def _pair(*sections: str) -> str:
    kept = "".join(sections)
    return f'<div class="pair">{kept}</div>\n' if kept else ""


def _predictions(report: Report) -> str:
    if not report.predicted_values:
        return ""
    shown = len(report.predicted_values)
    sample = f" A sample of {shown:,}." if shown < report.evaluated_examples else ""
    caption = (
        "On the dotted line predictions are exact. Whiskers: the interval that each answer comes with; where it "
        f"misses the true value, both are red.{sample}"
    )
    chart = charts.predictions(report.predicted_values)
    return _section(
        "Predicted and true values",
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>{_abstaining(report)}",
    )


def _residuals(report: Report) -> str:
    if not report.predicted_values:
        return ""
    far = sorted(
        (one for one in report.predicted_values if not one.low <= one.value <= one.high),
        key=lambda one: -max(one.low - one.value, one.value - one.high),
    )
    rows = [
        [_name(one.id), words.number(one.value), f"<strong>{words.number(one.predicted)}</strong>"]
        for one in far[:_FARTHEST]
    ]
    table = _table(("Example", "Value", "Predicted"), rows, ("", "n", "n")) if rows else ""
    worth = (
        f'<h3>Worth a second look</h3><p class="soft">Farthest outside of their intervals.</p>{table}'
        if rows
        else ""
    )
    caption = "To the right of the line are values that were predicted too low, to its left too high."
    return _section(
        "How far off it is",
        f"<figure>{charts.residuals(report.predicted_values)}<figcaption>{caption}</figcaption></figure>{worth}",
    )


def _curve(report: Report) -> str:
    curve = report.learning_curve
    if curve is None or not (curve.points or curve.forecasts):
        return ""
    # Forecasts go on from the cross-validated accuracy; a held-out set's need not lie on the same curve.
    measure = words.measure(report)
    now = (report.examples, words.figure(report)) if report.evaluation == "cross_validation" else None
    advice, short = words.useful_advice(report), _shortened(report)
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
    return _section(
        "What more examples would bring",
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"
        f"{worth if report.regression is None else ''}",
    )


def _reliability(report: Report) -> str:
    if not any(one.examples for one in report.reliability):
        shown = report.novelty is None or report.predicted_values  # beside the values there is room for it
        return "" if shown else _section("When it abstains", f"<p>{_novelty(report)}</p>")
    what = "answers given with 80% are right 80% of the time; below it the version is too sure"
    if report.multi_label is not None:
        what = "labels given 80% apply 80% of the time; below it the version is too sure of them"
    bars = " Bars: the logarithm of how many." if report.multi_label is not None else ""
    caption = f"On the dotted line, {what}. Whiskers: 80% intervals.{bars}"
    chart = charts.reliability(report.reliability, sets=report.multi_label is not None)
    return _section(
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


def _confusions(report: Report) -> str:
    if not report.per_class or not report.evaluation or report.task != "single_label":
        return ""
    grid, short = confusion_grid(report), _shortened(report)
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
    return _section("What it confuses", f'<p>{said}</p><div class="split">{matrix}{pairs}</div>')


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
        right=tuple(entries[label].recall for label in labels),
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


def _map(report: Report) -> str:
    points = report.feature_map
    if not points:
        return ""
    shown = f" A sample of {len(points):,} of {report.examples:,}." if len(points) < report.examples else ""
    drawn, legend = _map_of_values(points) if report.regression is not None else _map_of_classes(report)
    said = "Each point is a training example: the nearer, the more alike. Point at one for what it is."
    return _section(
        "How the examples lie",
        f'<p>{said}{shown}</p><div class="split"><figure class="wide">{drawn}</figure>'
        f'<div class="key">{legend}</div></div>',
    )


def _map_of_classes(report: Report) -> tuple[str, str]:
    """The map and its legend: the classes with the most errors, or the most frequent sets of labels, are coloured."""
    points = report.feature_map
    on_map, short = Counter(point.label for point in points), _shortened(report)
    errors = {entry.label: (1 - entry.recall) * entry.support for entry in report.per_class}
    if report.multi_label is not None:
        errors = {label: float(count) for label, count in on_map.items()}
    coloured = sorted(on_map, key=lambda label: (-errors.get(label, 0.0), label))
    title = "Labels" if report.multi_label is not None else "Classes"
    if len(coloured) > _MAX_COLOURED:
        coloured = coloured[: charts.HUES]
        title = "Most frequent" if report.multi_label is not None else "Most errors"
    items = "".join(f"<li>{charts.swatch(index)}{short(label)}</li>" for index, label in enumerate(coloured))
    rest = len(on_map) - len(coloured)
    one, many = ("other set", "") if report.multi_label is not None else ("other class", "other classes")
    others = f'<li class="soft">grey: {words.plural(rest, one, many)}</li>'
    legend = f'<h3>{title}</h3><ul class="plain legend">{items}{others if rest else ""}</ul>'
    return charts.feature_map(points, coloured), legend


def _map_of_values(points: Sequence[MapPoint]) -> tuple[str, str]:
    """The map and its legend: equally many points have each colour, from small values to large ones."""
    values = [float(point.label) for point in points]
    ordered = sorted(values)
    edges = sorted({ordered[len(ordered) * step // charts.STEPS] for step in range(1, charts.STEPS)})
    steps = [sum(value >= edge for edge in edges) for value in values]
    items = []
    for step in sorted(set(steps)):
        inside = [value for value, place in zip(values, steps, strict=True) if place == step]
        low, high = words.number(min(inside)), words.number(max(inside))
        items.append(f"<li>{charts.swatch(step, step=True)}{low if low == high else f'{low} to {high}'}</li>")
    legend = f'<h3>Values</h3><ul class="plain legend">{"".join(items)}</ul>'
    return charts.feature_map(points, [], steps=steps), legend


def _data(report: Report) -> str:
    data = report.data
    if data is None:
        return ""
    conflicting = f"inputs {words.CONFLICTS[report.task]}"
    counts = {
        "probable label errors": f"{data.probable_label_errors:,}",
        conflicting: f"{data.conflicting_inputs:,}",
        "exact duplicates": f"{data.exact_duplicates:,}",
        "near duplicates": f"{data.near_duplicates:,}",
    }
    if report.regression is not None:
        del counts["probable label errors"]
    if not any((data.label_errors, data.conflicting_inputs, data.exact_duplicates, data.near_duplicates)):
        errors = "" if report.regression is not None else ", no probable label errors"
        return _section("What the data shows", f"<p>No duplicates, no contradictions{errors}.</p>")
    tiles = "".join(f"<div><dt>{name}</dt><dd>{count}</dd></div>" for name, count in counts.items())
    heads = ("Example", "Has the label", "Its probability", "Probably is", "Its probability")
    if report.multi_label is not None:
        heads = ("Example", "Carries", "Probability", "Probably carries", "Probability")
    errors = _folded(heads, [_error(one) for one in data.label_errors], numbers=(2, 4), extra=(2,))
    kind = "Values" if report.regression is not None else "Labels"
    findings = [
        ("Probable label errors", "Worth a second look, the most probable first.", errors),
        (
            conflicting.capitalize(),
            f"The same input, with {'values' if report.regression else 'labels'} that contradict each other.",
            _groups(data.conflicts, kind),
        ),
        ("Exact duplicates", "The same input several times.", _groups(data.duplicate_groups, kind)),
        (
            "Near duplicates",
            "Different inputs that the backbone can hardly tell apart.",
            _groups(data.near_duplicate_pairs, kind),
        ),
    ]
    lists = "".join(
        f'<h3>{title}</h3><p class="soft">{note}</p>{rows}' for title, note, rows in findings if rows
    )
    return _section("What the data shows", f'<dl class="counts">{tiles}</dl>{lists}', kind="long")


def _error(one: LabelError) -> list[str]:
    return [
        _name(words.reference(one.example)),
        _label(one.example.label),
        _probability(one.probability),
        f"<strong>{_label(one.suggested)}</strong>",
        _probability(one.suggested_probability),
    ]


def _probability(value: float) -> str:
    return words.percent(value) if value >= 0.001 else "&lt;0.1%"


def _groups(groups: Sequence[DuplicateGroup], kind: str) -> str:
    rows = []
    for group in groups:
        labels = Counter(example.label for example in group.examples)
        names = ", ".join(
            _label(label) + (f" × {count}" if count > 1 else "") for label, count in labels.items()
        )
        rows.append([_name(words.references(group)), names, f"{group.similarity:.3f}"])
    return _folded(("Examples", kind, "Similarity"), rows, numbers=(2,))


def _classes(report: Report) -> str:
    sets = report.multi_label is not None
    rows = []
    for entry in _worst(report.per_class):
        figures = [_meter(entry.f1), _meter(entry.precision), _meter(entry.recall)]
        if not entry.support:
            figures = ['<span class="soft">not evaluated</span>', "", ""]
        threshold = [f"{entry.threshold:.2f}"] if sets else []
        rows.append([_name(entry.label), f"{entry.examples:,}", f"{entry.support:,}", *threshold, *figures])
    if not rows:
        return ""
    named = "Label" if sets else "Class"
    heads = [
        named,
        "Examples",
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
    kinds = ["", "n extra", "n extra", *(["n extra"] if sets else []), "meter", "meter", "meter"]
    return _section(f"{named} by {named.lower()}", f"<p>{said}</p>{_table(heads, rows, kinds)}", kind="long")


def _worst(classes: Iterable[ClassReport]) -> list[ClassReport]:
    """Classes by rising F1, those that were not evaluated last."""
    return sorted(classes, key=lambda entry: (not entry.support, entry.f1, entry.label))


def _meter(share: float) -> str:
    return f'<i style="--share:{share:.1%}"></i>{words.percent(share)}'


def _head(report: Report) -> str:
    head = report.head
    if not head.kind:
        return ""
    rows = [
        [
            _sum(one.kind),
            _sum(one.view),
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
    table = _table(heads, rows, ("", "extra", "", "n", "n"), chosen) if rows else ""
    return _section("The head", said + table)


_MEASURES: Final = {
    "single_label": ("Log-loss", "Accuracy"),
    "multi_label": ("Log-loss", "Micro-F1"),
    "regression": ("RMSE", "Of the deviation"),
}
"""What heads that were tried are compared by."""


def _measures(report: Report, one: Candidate) -> tuple[str, str]:
    if report.regression is not None:
        deviation = report.regression.deviation or 1.0
        return f"{one.rmse:.4g}", words.percent(one.rmse / deviation)
    share = one.micro_f1 if report.multi_label is not None else one.accuracy
    return f"{one.log_loss:.3f}", words.percent(share)


def _footer(report: Report) -> str:
    return (
        f"<footer>Measured by {escape(words.measured(report))}. Seed {report.seed}. "
        f"Encoder {escape(report.encoder_id)}. Written by graft {escape(__version__)}.</footer>\n"
    )


def _section(title: str, content: str, *, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{title}</h2>{content}</section>\n'


def _folded(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int], extra: Sequence[int] = ()
) -> str:
    """A table of the first rows, and one of the rest that opens on demand."""
    if not rows:
        return ""
    kinds = [
        ("n" if column in numbers else "") + (" extra" if column in extra else "")
        for column in range(len(heads))
    ]
    table = _table(heads, rows[:_SHOWN_ROWS], kinds)
    if len(rows) > _SHOWN_ROWS:
        rest = _table(heads, rows[_SHOWN_ROWS:], kinds)
        table += f"<details><summary>{len(rows) - _SHOWN_ROWS:,} more</summary>{rest}</details>"
    return table


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], chosen: int | None = None
) -> str:
    """A table of cells that are markup already; `kinds` are the columns' classes."""
    top = "".join(f'<th class="{kind}">{head}</th>' for head, kind in zip(heads, kinds, strict=True))
    body = "".join(
        f"<tr{' class=chosen' if index == chosen else ''}>"
        + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _shortened(report: Report) -> Callable[[str], str]:
    """Labels as markup where there is little room: the whole of each is in the table of all."""
    labels = [entry.label for entry in report.per_class]
    short = dict(zip(labels, charts.without_common_start(labels), strict=True))
    return lambda label: _label(charts.cut(short.get(label, label), _ROOM))


def _label(text: str) -> str:
    """A label, or several; of none at all that there is none."""
    return _name(text) if text else f'<span class="soft">{charts.NO_LABEL}</span>'


def _sum(text: str) -> str:
    """Names joined by "+", broken after it at best."""
    return escape(text).replace("+", "+<wbr>")


def _name(text: str) -> str:
    """A name from outside: escaped, broken at _ and / at best, and kept from turning its surroundings around."""
    breakable = escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>")
    return f"<bdi>{breakable}</bdi>"
