"""What would make a version better, and what tunings were tried for it: on a terminal, on the page, in a cell."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.client.test_report_page import Reader, report, version

import graft
from graft._records.evaluation.report_messages import report_of
from graft._report import words
from graft._report.cells import cell
from graft._report.page import page
from graft.cli.showing.reports import show_report
from graft.cli.showing.terminal import Terminal
from graft.v1 import report_pb2, types_pb2

TITLES = ("What would make it better", "Tunings tried", "Unlabelled examples")


def tuned() -> graft.Report:
    """A report on a version whose contrastive tuning was kept, after others that were not."""
    message = report_pb2.Report(method=types_pb2.METHOD_FULL)
    for method, kept, ended in (
        ("PARTIAL", False, "done"),
        ("FULL", False, "no_time"),
        ("FULL", True, "done"),
    ):
        it = message.tuning if kept else message.other_tunings.add()
        it.method, it.kept, it.ended = types_pb2.Method.Value(f"METHOD_{method}"), kept, ended
        it.unfrozen_layers, it.layers, it.seconds = 6 if method == "FULL" else 2, 6, 43.4
        if ended == "done":
            it.measured, it.bytes = 96, 43_000_000
            it.frozen_log_loss, it.tuned_log_loss, it.gain_error = 1.021, 0.612 if kept else 1.03, 0.07
            it.frozen_accuracy, it.tuned_accuracy = 0.59, 0.82 if kept else 0.58
    it = message.tuning
    it.objective, it.label_names = report_pb2.TUNING_OBJECTIVE_CONTRASTIVE, True
    it.folds, it.accuracy_gain_error, it.tuned_share = 4, 0.041, 0.5
    it.rank, it.bytes, it.full_bytes = 8, 1_200_000, 43_000_000
    unlabelled = message.unlabelled
    unlabelled.examples, unlabelled.used, unlabelled.kept, unlabelled.weight = 2_000, 1_500, True, 0.25
    unlabelled.log_loss_before, unlabelled.log_loss_after, unlabelled.gain_error = 0.92, 0.88, 0.012
    unlabelled.novel_share, unlabelled.drift = 0.12, 0.08
    for kind, text, gain in (
        ("TIME", "A time_budget of 60 seconds may bring points <i>, as of 9 sets.", 0.081),
        ("LABELS", "Twice the examples (96 more) are forecast to bring 3.1 points.", 0.031),
        ("BACKBONE", "Try another backbone.", 0.0),
    ):
        advice = message.advice.add(
            kind=report_pb2.AdviceKind.Value(f"ADVICE_KIND_{kind}"), text=text, expected_gain=gain
        )
        advice.expected_gain_low, advice.expected_gain_high = gain / 2, 2 * gain
        advice.cost_seconds, advice.cost_examples = 60 * (kind == "TIME"), 96 * (kind == "LABELS")
    found = report_of(message)
    return dataclasses.replace(
        report(), tuning=found.tuning, other_tunings=found.other_tunings, unlabelled=found.unlabelled,
        advice=found.advice,
    )  # fmt: skip


def shown(width: int | None, value: graft.Report, *, brief: bool = False) -> list[str]:
    """What a terminal of a width shows of a report; None: what a file holds."""
    terminal, output = Terminal(), io.StringIO()
    terminal.out = Console(
        file=output, width=width, force_terminal=width is not None, no_color=True, soft_wrap=True, color_system=None,
        highlight=False,
    )  # fmt: skip
    show_report(terminal, "m", 1, value, brief=brief)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_each_tuning_is_a_row_with_its_gain_its_outcome_and_its_cost() -> None:
    lines = shown(None, tuned())
    start = next(i for i, line in enumerate(lines) if line.startswith("tuning tried"))
    partial, untried, kept = lines[start + 1 : start + 4]
    assert partial.startswith("partial, cross entropy, 2 of 6 layers")
    for told in (
        "96 held out",
        "59.0% to 58.0% ",
        "1.021 to 1.030 (0.070)",
        "dropped: no better beyond noise",
        "43 s",
    ):
        assert told in partial
    assert "(0.0)" not in partial  # of an old report, whose error of the accuracy is not known
    assert "not tried: the time budget is too short" in untried
    assert "%" not in untried
    assert kept.startswith("full, contrastive with label names, all 6 layers, rank 8")
    for told in ("4 folds, 96", "59.0% to 82.0% (4.1)", "1.021 to 0.612 (0.070)", "kept, blended: 50% tuned"):
        assert told in kept
    assert kept.endswith("  43 s, 1.2 MB (43.0 MB as whole layers)")


@pytest.mark.parametrize(
    ("ended", "kept", "measured", "said"),
    [
        ("too_few", False, 0, "not tried: too few examples"),
        ("failed", False, 0, "failed: the server's log says why"),
        ("time", True, 9, "kept; the time budget ended it"),
        ("time", False, 0, "dropped: nothing gained; the time budget ended it"),
        ("no_gain", False, 0, "dropped: nothing gained"),
        ("of a later server", False, 9, "dropped: no better beyond noise"),
    ],
)
def test_why_a_tuning_was_kept_or_dropped_is_said(ended: str, kept: bool, measured: int, said: str) -> None:
    message = report_pb2.Report()
    message.tuning.ended, message.tuning.kept, message.tuning.measured = ended, kept, measured
    (tuning,) = words.tunings(report_of(message))
    assert words.outcome(tuning) == said


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("brief", [False, True])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int, brief: bool) -> None:
    lines = shown(width, tuned(), brief=brief)
    start = next(i for i, line in enumerate(lines) if line.startswith("tuning"))  # "tried" may be below it
    assert max(map(cell_len, lines[start:])) <= width
    whole = " ".join(" ".join(lines[start:]).split())
    assert "rank" in whole
    assert "contrastive" in whole


def test_in_brief_advice_is_a_line_each_and_in_full_it_has_its_reasons() -> None:
    brief = [line for line in shown(None, tuned(), brief=True) if line.startswith("advice:")]
    assert brief == [
        "advice: a --time-budget of 60 s for tuning may bring +8.1 points (4.0 to 16.2) of accuracy",
        "advice: 96 more examples may bring +3.1 points (1.6 to 6.2) of accuracy",
        "advice: Try another backbone.",
    ]
    full = [line for line in shown(None, tuned()) if line.startswith("advice:")]
    assert full[0] == "advice: A --time-budget of 60 seconds may bring points <i>, as of 9 sets."
    assert full[3].startswith("advice: about 40 more examples of class_1 would gain")


def test_what_unlabelled_examples_brought_is_a_fact() -> None:
    (line,) = [line for line in shown(None, tuned()) if line.startswith("unlabelled")]
    assert line.split(maxsplit=1)[1] == (
        "2,000, 1,500 tried in training: trained with, each counting 0.25; log-loss 0.920 to 0.880 (0.012); 12% are "
        "novel, and 8% more of the newer half"
    )
    untried = dataclasses.replace(tuned(), unlabelled=report_of(_unlabelled()).unlabelled)
    (line,) = [line for line in shown(None, untried) if line.startswith("unlabelled")]
    assert line.split() == ["unlabelled", "7"]


def _unlabelled() -> report_pb2.Report:
    message = report_pb2.Report()
    message.unlabelled.examples = 7
    return message


def test_the_page_and_the_cell_have_the_advice_and_the_tunings() -> None:
    value = tuned()
    read = Reader(page(version(value)))
    for title in TITLES:
        assert title in read.text
    for told in (
        "More time. A time_budget of 60 seconds may bring points <i>",
        "kept, blended: 50% tuned",
        "4 folds, 96",
    ):
        assert told in read.text
    assert "i" not in read.tags or "<i>," not in page(version(value))  # what the server says is escaped
    of_cell = Reader(cell(dataclasses.replace(value, model="m", version=1))).text
    assert TITLES[0] in of_cell
    assert TITLES[1] in of_cell
    plain = Reader(page(version(report()))).text
    assert not [title for title in TITLES if title in plain]
