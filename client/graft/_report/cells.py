"""What results show of themselves in a notebook's cell: the report page's sections, shorter, and a style of their own.

A cell lies in a page that is not ours, beside other cells: every rule of its style is for `.graft-cell` alone, and a
browser that takes the style away still shows tables. It follows the notebook's dark theme, by the marks that Jupyter,
VS Code and Colab set, and has a ground of its own, so that it can be read on any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html import escape
from typing import Final

from graft._records.adapting.told import AdaptResult, CheckResult
from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.reports import Report
from graft._records.predicting.predictions import Prediction, Predictions
from graft._records.records import Version
from graft._report import improving, markup, quality, summary, training_data, words
from graft.errors import Rejection

_CLASSES: Final = 15
"""The most classes that a cell lists."""
_ROWS: Final = 10
"""The most rows of other lists."""
_PREDICTIONS: Final = 20
_DARK: Final = ('[data-jp-theme-light="false"]', ".vscode-dark", ".vscode-high-contrast", "html[theme=dark]")
"""What is above a cell in a notebook with a dark theme: JupyterLab, VS Code, Colab."""


def cell(of: object) -> str:
    """The content of a cell that shows a result."""
    match of:
        case Report():
            content = _report(of)
        case Version():
            content = _report(_named(of), of.aliases)
        case AdaptResult():
            content = _adapted(of)
        case CheckResult():
            content = _checked(of)
        case EvaluationResult():
            content = _evaluated(of)
        case Predictions():
            content = _predicted(of)
        case _:
            raise TypeError(f"a {type(of).__name__} has no cell")
    return f'<div class="graft-cell"><style>{_style()}</style>\n{content}</div>'


def _report(report: Report, aliases: Sequence[str] = ()) -> str:
    parts = (
        summary.header(report, aliases),
        summary.tiles(report),
        markup.warnings(report.warnings),
        improving.advice(report),
        improving.tunings(report),
        markup.pair(quality.predictions(report), quality.residuals(report)),
        markup.pair(quality.learning_curve(report), quality.reliability(report)),
        quality.confusions(report),
        training_data.findings(report),
        quality.classes(report, _CLASSES),
        f"<footer>{_further(report)}</footer>",
    )
    return "".join(parts)


def _named(of: Version | AdaptResult) -> Report:
    return replace(of.report, model=of.model, version=of.version)


def _further(report: Report) -> str:
    whole = "The whole report: <code>report.save('report.html')</code>."
    if report.quotes is None and report.model and report.data is not None and report.data.label_errors:
        return f"{whole} With the examples' texts: <code>client.report({escape(repr(report.model))})</code>."
    return whole


def _adapted(result: AdaptResult) -> str:
    told = [*result.notices]
    if result.rejected_count:
        told.append(f"{words.plural(result.rejected_count, 'example')} refused")
    notes = markup.warnings(told, "Of the examples")
    return notes + _rejected(result.rejected, result.rejected_count) + _report(_named(result))


def _checked(result: CheckResult) -> str:
    rows = f"<p>{escape(result.rows.said())}.</p>" if result.rows is not None else ""
    counts = [
        ("Examples", f"{result.examples:,}", "checked; nothing was stored"),
        ("Refused", f"{result.rejected_count:,}", "would be"),
        ("Unlabelled", f"{result.unlabelled:,}", "would not be trained on"),
        ("Task", escape(result.task.replace("_", "-") or "not known"), ""),
    ]
    return (
        f'<header><h1>{markup.name(result.model)} <span class="soft">check</span></h1></header>'
        f"{summary.row_of_tiles(counts)}{rows}{markup.warnings(result.notices, 'What was noticed')}"
        f"{_rejected(result.rejected, result.rejected_count)}"
    )


def _rejected(rejected: Sequence[Rejection], count: int) -> str:
    if not rejected:
        return ""
    rows = [
        [markup.name(it.origin or f"example {it.sequence}"), escape(it.reason), markup.name(it.detail)]
        for it in rejected[:_ROWS]
    ]
    more = f'<p class="soft">and {count - len(rows):,} more.</p>' if count > len(rows) else ""
    table = markup.table(("Where", "Reason", "What is wrong"), rows, ("", "", ""))
    return markup.section("Refused", table + more, kind="long")


def _evaluated(result: EvaluationResult) -> str:
    notes = []
    if result.rejected_count:
        notes.append(f"{words.plural(result.rejected_count, 'example')} could not be evaluated.")
    if result.trained_on_count:
        left_out = words.plural(result.trained_on_count, "example")
        notes.append(f"{left_out} left out: the version was trained on them, or on copies of them.")
    if result.unknown_label_count:
        notes.append(
            f"{words.plural(result.unknown_label_count, 'example')} with a label that the version does not know: "
            "they count as wrong."
        )
    heads = ("Is", "Was answered with", "Examples")
    confused = [
        [markup.label(it.label), markup.label(it.predicted), f"{it.count:,}"]
        for it in result.confusions[:_ROWS]
    ]
    table = markup.table(heads, confused, ("", "", "n")) if confused else ""
    title = f"<h1>{summary.named(result.model, result.version)}</h1>"
    by = f'<p class="by">measured on {words.plural(result.examples, "example")}</p>'
    return "".join(
        (
            f"<header>{title}{by}</header>",
            summary.evaluated(result),
            markup.warnings(notes, "Of the examples"),
            markup.section("Confused most often", table) if table else "",
            quality.classes(result, _CLASSES),
        )
    )


def _predicted(predictions: Predictions) -> str:
    shown = predictions[:_PREDICTIONS]
    rows = [[str(place), *_answer(it)] for place, it in enumerate(shown)]
    kinds = ("n", "", "n", "")
    table = markup.table(("", "Answer", "Probability", ""), rows, kinds) if rows else "<p>No inputs.</p>"
    rest = len(predictions) - len(shown)
    more = f'<p class="soft">and {rest:,} more.</p>' if rest else ""
    return f"<header><h1>{summary.named(predictions.model, predictions.version)}</h1></header>{table}{more}"


def _answer(it: Prediction) -> tuple[str, str, str]:
    if it.error is not None:
        return f'<span class="soft">{escape(it.error.message)}</span>', "", "error"
    marks = ", ".join(
        what for what, holds in (("abstained", it.abstained), ("cut off", it.truncated)) if holds
    )
    if it.value is not None:
        return (
            words.number(it.value),
            f"{words.number(it.low or 0.0)} to {words.number(it.high or 0.0)}",
            marks,
        )
    labels = ", ".join(markup.label(label) for label in it.labels) or markup.label("")
    return labels, "" if it.probability is None else words.percent(it.probability), marks


@cache
def _style() -> str:
    """The page's style, for cells alone."""
    sheet = markup.resource("charts.css") + markup.resource("page.css")
    return scoped(sheet) + markup.resource("cell.css")


_RULE: Final = re.compile(r"\s*([^{}]+?)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.DOTALL)


def scoped(sheet: str) -> str:
    """A style sheet whose rules are for `.graft-cell` alone.

    What depends on the page's width depends on the cell's, what depends on the system's theme on the notebook's; rules
    for printing are left out.
    """
    rules = []
    for heads, body in _RULE.findall(sheet):
        if not heads.startswith("@"):
            rules.append(f"{_within(heads)} {{{body}}}")
        elif "prefers-color-scheme" in heads:
            rules += [f"{_below_dark()} {{{inner}}}" for _, inner in _RULE.findall(body)]
        elif (width := re.search(r"\(max-width: \d+px\)", heads)) is not None:
            inner = "".join(f"{_within(names)} {{{of}}}" for names, of in _RULE.findall(body))
            rules.append(f"@container {width[0]} {{{inner}}}")
    return "\n".join(rules) + "\n"


def _within(heads: str) -> str:
    """Selectors within a cell: the document, its body and its main part are the cell itself."""
    return ", ".join(
        ".graft-cell" if it in (":root", "body", "main") else f".graft-cell {it}"
        for it in map(str.strip, heads.split(","))
    )


def _below_dark() -> str:
    return ", ".join(f"{mark} .graft-cell" for mark in _DARK)
