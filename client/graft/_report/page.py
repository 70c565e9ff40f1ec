"""A version's report as one HTML page that stands alone.

It loads nothing and runs nothing (its own content security policy forbids both), so that it can be mailed,
attached and printed. Whatever comes from examples, labels and ids above all, is escaped. Parts that a report
does not have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from string import Template

from graft._records.adapting.told import AdaptResult
from graft._records.evaluation.reports import Report
from graft._records.records import Version
from graft._report import improving, markup, quality, summary, training_data, words
from graft._version import __version__

_TEMPLATE = Template(markup.resource("page.html"))


def page(of: Report | Version | AdaptResult) -> str:
    """The report of a version, as HTML text."""
    if isinstance(of, Report):
        return _page(of)
    report = replace(of.report, model=of.model, version=of.version)
    return _page(report, of.aliases if isinstance(of, Version) else ())


def _page(report: Report, aliases: Sequence[str] = ()) -> str:
    name = f"{report.model}, version {report.version}" if report.model else "Report"
    numbers = report.regression is not None  # they have no classes: the head fills the place beside the curve
    parts = [
        summary.header(report, aliases),
        summary.tiles(report),
        markup.warnings(report.warnings),
        improving.advice(report),
        improving.tunings(report),
        markup.pair(quality.predictions(report), quality.residuals(report)),
        markup.pair(
            quality.learning_curve(report),
            quality.reliability(report),
            quality.head(report) if numbers else "",
        ),
        quality.confusions(report),
        training_data.feature_map(report),
        training_data.look_alikes(report),
        training_data.findings(report),
        improving.unlabelled(report),
        quality.classes(report),
        "" if numbers else quality.head(report),
        _footer(report),
    ]
    return _TEMPLATE.substitute(
        title=escape(name),
        style=markup.resource("charts.css") + markup.resource("page.css"),
        content="".join(part for part in parts if part),
    )


def _footer(report: Report) -> str:
    return (
        f"<footer>Measured by {escape(words.measured(report))}. Seed {report.seed}. "
        f"Encoder {escape(report.encoder_id)}. Written by graft {escape(__version__)}.</footer>\n"
    )
