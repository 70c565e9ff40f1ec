"""What results show of themselves in a notebook's cell, and the page that a report is saved as."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from tests.client.test_report_page import Reader, report, sets_report, values_report

import graft
from graft._records.evaluation.report_messages import report_of
from graft._records.predicting.predictions import Predictions
from graft._report.cells import scoped
from graft.errors import InvalidArgumentError
from graft.v1 import report_pb2

EVIL = '</style></div><script>alert(1)</script><b onload="x">'


def known(classes: int = 12, **facts: Any) -> graft.Report:
    return dataclasses.replace(report(classes), model="banking", version=3, **facts)


def adapted(model: str = "banking") -> graft.AdaptResult:
    rejected = tuple(
        graft.Rejection(n, "INPUT_EMPTY", "", f"no text {n}", "", row=n, origin=f"row {n}") for n in range(12)
    )
    return graft.AdaptResult(
        model=model, version=3, adaptation_id="a", commit_id="c", report=known(), rejected=rejected,
        rejected_count=40, notices=("task: single-label, guessed",),
    )  # fmt: skip


def evaluated(**facts: Any) -> graft.EvaluationResult:
    made = report(20)
    return graft.EvaluationResult(
        model="banking", version=3, examples=90, accuracy=0.8, macro_f1=0.7, log_loss=0.5, calibration_error=0.1,
        per_class=made.per_class, confusions=made.confusions, rejected=(), rejected_count=2, trained_on_count=1,
        unknown_label_count=4, **facts,
    )  # fmt: skip


def answers(count: int = 25, label: str = "card") -> Predictions:
    one = graft.Prediction(
        scores=(graft.Score(label, 0.75),), abstained=True, novelty=0.99, truncated=False, features=(), error=None,
        version=3,
    )  # fmt: skip
    wrong = dataclasses.replace(one, scores=(), error=InvalidArgumentError("the text is empty"))
    return Predictions([wrong, *[one] * (count - 1)], "banking", 3, graft.Timings(0.0, 0.0, 0.0, 0.0))


def checked() -> graft.CheckResult:
    return graft.CheckResult(
        "banking", 1_200, (), 7, task="single_label", unlabelled=3, notices=("a notice",)
    )


def shown(of: Any) -> Reader:
    html = of._repr_html_()
    read = Reader(html)
    assert html.startswith('<div class="graft-cell">')
    assert html.endswith("</div>")
    assert not {"script", "iframe", "link", "body", "html", "object"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "id")]
    assert "http" not in html.replace("http://www.w3.org/", "")
    return read


def test_a_report_shows_its_figures_its_findings_and_how_to_get_the_rest() -> None:
    text = shown(known()).text
    for part in (
        "banking version 3",
        "81.4%",
        "Class by class",
        "Labels worth a second look",
        "save('report.html')",
    ):
        assert part in text
    assert "client.report('banking')" in text
    assert "class_11" in text


def test_long_lists_are_capped_with_a_word() -> None:
    text = shown(known(77)).text
    assert "and 62 more, which are better or were not evaluated" in text
    assert len(known(77)._repr_html_()) < 100_000
    assert "and 30 more." in shown(adapted()).text
    assert "and 5 more." in shown(answers()).text
    assert "more." not in shown(answers(20)).text


def test_every_result_shows_itself() -> None:
    text = shown(adapted()).text
    for part in (
        "task: single-label, guessed",
        "40 examples refused",
        "row 7",
        "no text 7",
        "banking version 3",
    ):
        assert part in text
    text = shown(evaluated()).text
    for part in (
        "measured on 90 examples",
        "80.0%",
        "2 examples could not",
        "1 example left out",
        "4 examples with a",
    ):
        assert part in text
    text = shown(checked()).text
    for part in ("1,200", "single-label", "a notice"):
        assert part in text
    text = shown(answers()).text
    for part in ("the text is empty", "card", "75.0%", "abstained"):
        assert part in text
    nothing = Predictions([], "banking", 3, graft.Timings(0.0, 0.0, 0.0, 0.0))
    assert "No inputs." in shown(nothing).text
    assert "R²" in shown(values_report(40)).text
    assert "Label by label" in shown(sets_report()).text
    assert "too few examples" in shown(report_of(report_pb2.Report(examples=3, classes=2))).text
    nothing_known = dict.fromkeys(("accuracy", "macro_f1", "log_loss", "calibration_error"))
    assert "not measured" in shown(dataclasses.replace(evaluated(), examples=0, **nothing_known)).text


@pytest.mark.parametrize(
    "of",
    [
        known(warnings=(EVIL,)),
        dataclasses.replace(known(), model=EVIL),
        adapted(EVIL),
        dataclasses.replace(adapted(), notices=(EVIL,)),
        answers(3, EVIL),
        dataclasses.replace(checked(), notices=(EVIL,), model=EVIL),
    ],
    ids=lambda it: type(it).__name__,
)
def test_nothing_breaks_out_of_a_cell(of: Any) -> None:
    read = shown(of)
    assert "alert(1)" in read.text


def test_the_style_of_a_cell_is_for_cells_alone() -> None:
    (sheet,) = re.findall(r"<style>(.*?)</style>", known()._repr_html_(), re.DOTALL)
    flat = re.sub(r"@container[^{]*\{((?:[^{}]*\{[^{}]*\})*)\}", r"\1", sheet)
    assert "@" not in flat
    selectors = [it.strip() for heads in re.findall(r"([^{}]+)\{", flat) for it in split_outside(heads)]
    assert len(selectors) > 100
    assert [it for it in selectors if ".graft-cell" not in it] == []
    assert any(it.startswith('[data-jp-theme-light="false"]') for it in selectors)
    assert "@container (max-width: 900px)" in sheet
    assert scoped("a, b { c: d }\n@media print { a { e: f } }") == ".graft-cell a, .graft-cell b { c: d }\n"


def split_outside(heads: str) -> list[str]:
    """Selectors at the commas that stand outside of brackets."""
    return re.split(r",(?![^(]*\))", heads)


def test_a_report_is_saved_as_one_page(tmp_path: Path) -> None:
    for of in (known(), adapted()):
        path = of.save(tmp_path / "report.html")
        text = path.read_text("utf-8")
        assert text.startswith("<!doctype html>")
        assert "banking, version 3" in text
        assert "How the examples lie" in text
    assert "<title>Report</title>" in report().save(str(tmp_path / "other.HTML")).read_text("utf-8")
    with pytest.raises(ValueError, match=r"'report.pdf' must end in \.html"):
        known().save("report.pdf")
    with pytest.raises(FileNotFoundError):
        known().save(tmp_path / "none" / "report.html")
