"""A version's report as one HTML page that stands alone.

It loads nothing and runs nothing (its own content security policy forbids both), so that it can be mailed,
attached and printed. Whatever comes from examples, labels and ids above all, is escaped. Parts that a report
does not have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from graft._records.records import Version
from graft._records.reports import Report
from graft._report import markup, quality, summary, training_data, words
from graft._version import __version__


def _resource(name: str) -> str:
    return files("graft._report").joinpath(name).read_text(encoding="utf-8")


_TEMPLATE = Template(_resource("page.html"))


def page(version: Version) -> str:
    """The report of a version, as HTML text."""
    report = version.report
    name = f"{version.model}, version {version.version}"
    numbers = report.regression is not None  # they have no classes: the head fills the place beside the curve
    parts = [
        summary.header(version),
        summary.tiles(report),
        _warnings(report.warnings),
        _pair(quality.predictions(report), quality.residuals(report)),
        _pair(
            quality.learning_curve(report),
            quality.reliability(report),
            quality.head(report) if numbers else "",
        ),
        quality.confusions(report),
        training_data.feature_map(report),
        training_data.look_alikes(report),
        training_data.findings(report),
        quality.classes(report),
        "" if numbers else quality.head(report),
        _footer(report),
    ]
    return _TEMPLATE.substitute(
        title=escape(name),
        style=_resource("charts.css") + _resource("page.css"),
        content="".join(part for part in parts if part),
    )


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return markup.section("Before you rely on it", f"<ul>{items}</ul>", kind="notes") if items else ""


def _pair(*sections: str) -> str:
    kept = "".join(sections)
    return f'<div class="pair">{kept}</div>\n' if kept else ""


def _footer(report: Report) -> str:
    return (
        f"<footer>Measured by {escape(words.measured(report))}. Seed {report.seed}. "
        f"Encoder {escape(report.encoder_id)}. Written by graft {escape(__version__)}.</footer>\n"
    )
