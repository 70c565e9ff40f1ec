"""What would make a version better, and what was tried for it, as sections of the report page."""

from __future__ import annotations

from html import escape
from typing import Final

from graft._records.evaluation.reports import Report
from graft._report import markup, words

_GIVE: Final = {"labels": "More labels", "time": "More time", "backbone": "Another backbone"}
"""What advice is to give, by its kind."""


def advice(report: Report) -> str:
    """What would help, most worth doing first; empty if nothing is known to."""
    items = "".join(
        f"<li><strong>{escape(_GIVE.get(one.kind, one.kind))}.</strong> {markup.text(one.text)}</li>"
        for one in report.advice
    )
    return markup.section("What would make it better", f"<ul>{items}</ul>") if items else ""


def tunings(report: Report) -> str:
    """A table of the tunings that were tried; empty if none was."""
    tried = words.tunings(report)
    if not tried:
        return ""
    heads = [head[0].upper() + head[1:] for head in words.TUNING_COLUMNS]
    rows = [[escape(cell) for cell in words.tuning(it)] for it in tried]
    kept = next((place for place, it in reversed(list(enumerate(tried))) if it.kept), None)
    said = (
        "Figures go from the head on the frozen backbone to the tuned version, on the same examples, which it was not "
        "tuned on. In brackets: the standard error of the difference. What is not better beyond noise is dropped."
    )
    kinds = ("", "extra", "", "", "", "")
    table = markup.table(heads, rows, kinds, kept)
    return markup.section("Tunings tried", f"<p>{said}</p>{table}", kind="long")


def unlabelled(report: Report) -> str:
    """What examples without a target brought; empty where there are none."""
    if report.unlabelled is None or not report.unlabelled.examples:
        return ""
    return markup.section("Unlabelled examples", f"<p>{escape(words.unlabelled(report.unlabelled))}.</p>")
