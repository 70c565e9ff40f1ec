"""How far work is: in words, on a line whose clock runs, in a log, and in a notebook."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

import graft
from graft._progress import display, words
from graft._progress.adapting import shown
from graft._progress.view import AdaptView, View, WatchView
from graft.cli.showing.bars import AdaptBar, CountBar
from graft.errors import UnavailableError


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def told(stage: str, fraction: float = 0.0, **more: Any) -> graft.AdaptProgress:
    facts: dict[str, Any] = {
        "adaptation_id": "a",
        "sent": 10,
        "acknowledged": 10,
        "rejected": 0,
        "metrics": {},
        "version": 0,
        "eta_s": None,
        "reconnects": 0,
        "trouble": None,
    }
    return graft.AdaptProgress(stage=stage, fraction=fraction, **{**facts, **more})


TUNING = {"epoch": 1.25, "epochs": 4.0, "train_loss": 0.4321, "held_out_log_loss": 0.5}
CROSS_FITTING = {"training": 3.0, "trainings": 5.0, "train_loss": 2.0}


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (told("encoding", done=3120, total=10_000, unit="examples"), "encoding 3,120 of 10,000 examples"),
        (told("selecting", done=3, total=13, unit="candidates"), "trying heads: candidate 4 of 13"),
        (told("selecting", done=13, total=13, unit="candidates"), "trying heads: candidate 13 of 13"),
        (
            told("tuning", done=40, total=400, unit="steps", metrics=TUNING),
            "tuning: step 41 of 400, epoch 1.2 of 4, loss 0.432, held-out 0.500",
        ),
        (
            told("tuning", done=57, total=120, unit="steps", metrics=CROSS_FITTING),
            "tuning: step 58 of 120, training 3 of 5, loss 2.000",
        ),
        (told("caching", done=8, total=10, unit="examples"), "preparing to tune 8 of 10 examples"),
        (told("waiting"), "waiting for a worker: others train"),
        (told("checking", done=1, total=1), "looking for copies"),
        (
            told("a stage of a newer server", done=1, total=2, unit="pages"),
            "a stage of a newer server: pages 2 of 2",
        ),
        (told("loading the backbone minilm"), "loading the backbone minilm"),
        (
            told("streaming", done=4, total=9, unit="examples", rejected=1),
            "streaming: 10 examples stored, 4 encoded, 1 refused",
        ),
        (told("streaming", done=9, total=9, unit="examples"), "streaming: 10 examples stored"),
        (
            told("selecting", trouble=UnavailableError("it went away")),
            "no connection, trying again: it went away",
        ),
    ],
)
def test_what_is_being_done_is_said_in_words(progress: graft.AdaptProgress, text: str) -> None:
    assert words.doing(progress) == text


def test_a_clock_says_what_it_took_and_what_it_will_take() -> None:
    assert words.clock(12.9, None) == "0:00:12"
    assert words.clock(3725, 59.4) == "1:02:05, about 0:00:59 left"
    assert words.clock(3, 0.2) == "0:00:03, almost done"


def test_the_clock_of_a_view_runs_between_two_messages() -> None:
    clock = Clock()
    view = AdaptView(clock)
    clock.now += 12
    view.show(told("encoding", 0.4, commit_id="c", eta_s=20.0, done=4, total=10, unit="examples"))
    assert view.line == "encoding 4 of 10 examples 40% · 0:00:12, about 0:00:20 left"
    clock.now += 5
    assert view.line == "encoding 4 of 10 examples 40% · 0:00:17, about 0:00:15 left"
    clock.now += 100
    assert view.left_s == 0


def test_while_examples_are_sent_the_share_is_that_of_the_data_that_was_read() -> None:
    view = AdaptView(Clock())
    view.show(told("streaming"))
    assert view.share is None
    view.reading(0.3)
    view.show(told("streaming"))
    assert view.share == 0.3
    view.show(told("encoding", 0.0, commit_id="c"))
    assert view.share == 0.0


def test_who_watches_sees_the_servers_clock() -> None:
    clock = Clock()
    view = WatchView(clock)
    view.show(graft.Progress("c", "selecting", 0.5, {}, None, 1, 4, "candidates", elapsed_s=61.0))
    clock.now += 1
    assert view.line == "trying heads: candidate 2 of 4 50% · 0:01:02"


def test_a_log_has_a_line_now_and_then_and_none_while_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    view = View("working")
    monkeypatch.setattr(display.LogLines, "every_s", 3600.0)
    with display.LogLines(view, lines.append) as log:
        assert lines == []  # what is over before the first line is not mentioned
        log.draw()
        log.draw()
        view.busy = False
        log.draw()
        view.tell("something new")
        log.draw()
        log.draw()
    assert [line.partition(" ·")[0] for line in lines] == ["working", "working", "something new"]


def test_a_line_of_a_terminal_is_written_over_and_taken_away() -> None:
    stream = io.StringIO()
    view = View("a long piece of work")
    line = display.TerminalLine(view, stream)
    line.draw()
    view.tell("short")
    line.draw()
    line.end()
    first, second, end = stream.getvalue().split("\r")[1:4]
    assert first.startswith("a long piece of work · ")
    assert second.startswith("short · ")
    assert len(second) >= len(first)
    assert not end.strip()


class Published:
    """What a notebook's cell was given."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, str]] = []
        self.updates: list[bool] = []
        self.ids: set[str] = set()

    def publish(
        self, data: dict[str, str], _: dict[str, str], *, transient: dict[str, str], update: bool
    ) -> None:
        self.outputs.append(data)
        self.updates.append(update)
        self.ids.add(transient["display_id"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Published:
    """The output of a notebook's cell, as IPython's shell has it."""
    published = Published()
    shell = types.SimpleNamespace(kernel=object(), display_pub=published)
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return published


def test_in_a_notebook_one_output_changes_in_place(cell: Published) -> None:
    clock = Clock()
    view = AdaptView(clock)
    publish = display.notebook()
    assert publish is not None
    bar = display.NotebookLine(view, publish)
    bar.draw()
    assert cell.outputs == []  # it may be over in a moment
    clock.now += 3
    view.show(told("<encoding>", 0.25, commit_id="c"))
    bar.draw()
    view.show(told("published", 1.0, commit_id="c"))
    bar.draw()
    bar.end()
    assert cell.updates == [False, True, True]
    assert len(cell.ids) == 1
    assert 'value="0.2500"' in cell.outputs[0]["text/html"]
    assert "&lt;encoding&gt;" in cell.outputs[0]["text/html"]
    assert "<progress" not in cell.outputs[-1]["text/html"]
    assert cell.outputs[-1]["text/plain"].startswith("published: 10 examples")


def test_a_notebook_shows_what_nobody_else_is_told_unless_it_is_not_wanted(cell: Published) -> None:
    def told_of(progress: bool | None, on_progress: Callable[[graft.AdaptProgress], None] | None) -> bool:
        with shown(progress, on_progress) as tell:
            return tell is not on_progress

    assert told_of(None, None)
    assert not told_of(False, None)
    assert not told_of(None, lambda _: None)
    heard: list[graft.AdaptProgress] = []
    with shown(True, heard.append) as tell:
        assert tell is not None
        tell(told("encoding"))
    assert len(heard) == 1


def test_a_script_shows_nothing_unless_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert display.display_of(View("work"), None) is None
    line = display.display_of(View("work"), True)
    assert isinstance(line, display.LogLines)  # standard error is no terminal here
    line.draw()
    assert capsys.readouterr().err.startswith("work · 0:00:0")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_bar_fits_its_terminal_and_its_clock_runs(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    bar = AdaptBar(console, lambda _: None)
    bar.show(told("encoding", 0.4, commit_id="c", done=3120, total=10_000, unit="examples", eta_s=20.0))
    console.print(bar._drawn())
    (line,) = screen.getvalue().splitlines()
    assert len(line) <= width
    assert "40.0%" in line
    assert "0:00:00" in line
    assert ("about 0:00:20 left" in line) == (width > 60)
    assert ("encoding 3,120 of 10,000 examples" in line) == (width > 60)


def test_a_lost_connection_is_said_at_once_and_once_where_there_is_no_terminal() -> None:
    lines: list[str] = []
    bar = AdaptBar(Console(file=io.StringIO()), lines.append)
    lost = UnavailableError("it went away")
    for progress in (told("streaming"), told("connecting", trouble=lost), told("connecting", trouble=lost)):
        bar.show(progress)
    assert lines == ["no connection, trying again: it went away"]


def test_a_count_says_how_long_it_will_take_once_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = CountBar(Console(file=io.StringIO()), lambda _: None, "evaluating:")
    view = bar._count
    bar.reading(0.25)
    bar.show("10 examples sent")
    assert (view.what, view.share, view.left_s) == ("evaluating: 10 examples sent", 0.25, None)
    monkeypatch.setattr(View, "elapsed_s", property(lambda _: 20.0))
    bar.show("10 examples sent")
    assert view.left_s == pytest.approx(60, abs=1)


def test_a_display_ends_with_its_block() -> None:
    before = threading.active_count()
    with display.LogLines(View("work"), lambda _: None):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
