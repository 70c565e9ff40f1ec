"""Tables fit the width of a terminal; in a file or a pipe nothing is cut, and each row is a line."""

from __future__ import annotations

import io
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from graft.cli.showing.terminal import Terminal

LONG = "a-long-team/with-a-long-project/and-a-model-with-a-name-that-does-not-end"
COLUMNS = ("model", "live", "accuracy", "examples", "text", "published")
ROWS = [
    (LONG, 1, "72.4% (65.1 to 79.0)", "1,303", "where is my parcel? " * 30, "2026-12-01 00:09:41"),
    ("m", 12, "not measured", "4", "two\nlines, and\ta tab; 私のカードはどこですか", ""),
]


def shown(width: int | None, rows: list[tuple[object, ...]] = ROWS, *, facts: bool = False) -> list[str]:
    """What a terminal of a width shows; None: what a file holds."""
    terminal = Terminal()
    output = io.StringIO()
    terminal.out = Console(
        file=output,
        width=width,
        force_terminal=width is not None,
        no_color=True,
        soft_wrap=True,
        color_system=None,
    )
    if facts:
        terminal.facts(dict(zip(COLUMNS, map(str, rows[0]), strict=True)))
    else:
        terminal.table(COLUMNS, rows)
    return [line.rstrip() for line in output.getvalue().splitlines()]


@pytest.mark.parametrize("facts", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int, facts: bool) -> None:
    lines = shown(width, facts=facts)
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_cells_are_folded_within_their_columns(width: int) -> None:
    head, *lines = shown(width)
    names = [name for name in COLUMNS if name in head]
    assert names == list(COLUMNS)
    names_only = "".join(line[: head.index("live")].strip() for line in lines)
    assert names_only == f"{LONG}m"  # a name is folded, and can be put together again
    start = head.index("live") + len("live")
    assert lines[0][start - 1] == "1"
    assert not lines[1][start - 4 : start].strip()


def test_where_columns_have_no_room_each_row_is_a_list() -> None:
    lines = shown(40)
    assert lines[0].split() == ["model", *[LONG[: len(lines[0].split()[1])]]]
    assert any(line.split() == ["live", "12"] for line in lines)
    assert "" in lines


def test_a_very_long_text_is_cut_on_a_terminal() -> None:
    text = " ".join(" ".join(shown(80)).split())
    assert "…" in text
    assert len(text) < 900


def test_a_column_in_which_nothing_stands_takes_no_room() -> None:
    rows: list[tuple[object, ...]] = [("m", 1, "", "4", "", "")]
    assert shown(80, rows)[0].split() == ["model", "live", "examples"]
    assert shown(None, rows)[0].split() == list(COLUMNS)


def test_in_a_file_each_row_is_one_whole_line() -> None:
    lines = shown(None)
    assert len(lines) == 1 + len(ROWS)
    assert LONG in lines[1]
    assert ("where is my parcel? " * 30).strip() in lines[1]
    assert "…" not in "".join(lines)
    assert "two\\nlines, and\\ta tab; 私のカードはどこですか" in lines[2]
    assert len(shown(None, facts=True)) == len(COLUMNS)


HOSTILE = "\x1b[31mred\x9b2J\x07\x1b]52;c;aGk=\x07 \u202eturned"
"""Changes the colour, clears the screen, rings, writes to the clipboard, and turns the line round."""


@pytest.mark.parametrize(
    "write",
    [
        lambda terminal: terminal.table(COLUMNS, [(HOSTILE,) * len(COLUMNS)]),
        lambda terminal: terminal.facts({HOSTILE: HOSTILE}),
        lambda terminal: terminal.heading(HOSTILE, 1, HOSTILE),
        lambda terminal: terminal.found("advice", HOSTILE),
        lambda terminal: terminal.error(HOSTILE),
        lambda terminal: terminal.note(HOSTILE),
        lambda terminal: terminal.say(HOSTILE),
        lambda terminal: terminal.remark(HOSTILE),
        lambda terminal: terminal.line(HOSTILE),
        lambda terminal: terminal.json({"label": HOSTILE}),
    ],
)
def test_nothing_that_comes_from_outside_acts_on_a_terminal(write, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Screenful())
    monkeypatch.setattr(sys, "stderr", Screenful())
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    write(Terminal())
    shown = f"{sys.stdout.getvalue()}{sys.stderr.getvalue()}"
    assert "red" in shown
    assert "turned" in shown
    assert not any(it in shown for it in "\x1b\x9b\x07\u202e")


def test_what_goes_to_a_file_is_as_it_is(capsys):
    Terminal().table(["label"], [(HOSTILE,)])
    assert HOSTILE in capsys.readouterr().out


class Screenful(io.StringIO):
    """A terminal, as far as a program can see."""

    def isatty(self) -> bool:
        return True
