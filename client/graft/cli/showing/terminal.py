"""What the command line shows. With `bars`, `tables` and `reports`, the part that needs rich."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich.markup import escape

from graft._records.adapting.told import Event, Outcome
from graft._records.predicting.answer_columns import reason_of
from graft._records.predicting.predictions import Prediction
from graft._report import words
from graft.cli.interrupts import Interrupts
from graft.cli.showing import phrases
from graft.cli.showing.bars import AdaptBar, CountBar, WatchBar
from graft.cli.showing.live import not_live
from graft.cli.showing.plain import plain
from graft.cli.showing.screens import Screen
from graft.cli.showing.spoken import spoken
from graft.cli.showing.tables import drawn, drawn_facts, fact_lines, lines, rows_of

_UNLIMITED_WIDTH: Final = 1000
_AUTOMATIC: Final = "auto:"
"""What the ids of commits that the server makes by itself begin with."""


class Terminal:
    """Standard output for results, standard error for everything else.

    Attributes:
        interrupts: What Ctrl-C does, and standard input, which it ends.
    """

    def __init__(self, interrupts: Interrupts | None = None) -> None:
        self.interrupts = interrupts or Interrupts()
        # A file or a pipe has no width; rich would take 80 columns and fold names.
        width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
        self.out = Screen(highlight=False, soft_wrap=True, width=width)
        self.err = Screen(highlight=False, soft_wrap=True, stderr=True)

    def say(self, text: str) -> None:
        """A line about what is going on."""
        self.err.print(escape(text))

    def line(self, text: str) -> None:
        """A line of the result, as it is, but for what would act on a terminal: rich would make spaces of tabs."""
        self.out.file.write(f"{words.printable(text) if self.out.is_terminal else text}\n")

    def error(self, text: str) -> None:
        """What went wrong, in one line."""
        self.err.print(f"[bold red]error:[/] {escape(text)}")

    def note(self, text: str) -> None:
        """What was found in the data before it is sent."""
        word, found, rest = text.partition("warning: ")
        self.err.print(
            f"[yellow]warning:[/] {escape(rest)}" if found and not word else f"[dim]note:[/] {escape(text)}"
        )

    def ask(self, question: str) -> str | None:
        """Asks on a terminal and returns the answer; None where nobody can answer."""
        if not (self.err.is_terminal and self.interrupts.stdin.isatty()):
            return None
        self.err.print(f"[bold]{escape(question)}[/]", end="")
        return self.interrupts.stdin.readline().strip()

    def prompt(self, question: str) -> None:
        """Asks; whoever asks reads the answer."""
        self.err.print(f"[bold]{escape(question)}[/]", end="")

    def warning(self, text: str) -> None:
        """What was wrong, and passed over, in one line."""
        self.err.print(f"[yellow]passed over:[/] {escape(text)}")

    def remark(self, text: str) -> None:
        """What a person should know of the data before it is used."""
        self.err.print(f"[yellow]note:[/] {escape(text)}")

    def outcome(self, model: str, outcome: Outcome) -> None:
        """The outcome of a commit, in one line; of one that the server made by itself also why it is not live."""
        extension = outcome.extension
        if extension is not None and outcome.version == extension.base_version:
            if outcome.commit_id.startswith(_AUTOMATIC):  # of its own commit the command says more
                self.say(f"nothing new: version {outcome.version} stays (commit {outcome.commit_id})")
        elif outcome.report is not None:
            report = outcome.report
            what = f"version {outcome.version}: {report.examples:,} examples, {words.in_short(report)}"
            self.say(f"published {what} (commit {outcome.commit_id})")
            if outcome.commit_id.startswith(_AUTOMATIC) and (why := not_live(model, outcome)):
                self.say(why)
        elif outcome.error is not None and outcome.commit_id.startswith(
            _AUTOMATIC
        ):  # else it ends the command
            self.say(f"commit {outcome.commit_id} led to no version: {spoken(outcome.error.message)}")

    def adapt_bar(self) -> AdaptBar:
        """Shows how far an adaptation is."""
        return AdaptBar(self.err, self.say)

    def count_bar(self, what: str) -> CountBar:
        """Shows a count that grows."""
        return CountBar(self.err, self.say, what)

    def watch_bar(self) -> WatchBar:
        """Shows how far an adaptation is that is being watched."""
        return WatchBar(self.err, self.say)

    def json(self, value: Any) -> None:
        """A result for programs, on one line."""
        spelled = self.out.encoding not in ("utf-8", "utf-16", "utf-32")
        self.line(json.dumps(plain(value), ensure_ascii=spelled))

    def json_lines(self, values: Iterable[Any]) -> None:
        """Results for programs, one a line."""
        for value in values:
            self.json(value)

    def heading(self, model: str, version: int, more: str = "") -> None:
        """Which version is shown."""
        self.out.print(f"[bold]{escape(model)}[/] version [bold]{version}[/] {escape(more)}".rstrip())

    def facts(self, named: Mapping[str, str]) -> None:
        """Names with their values."""
        if self.out.is_terminal:
            self.out.print(drawn_facts(named), soft_wrap=False)
        else:
            self._lines(fact_lines(named))

    def found(self, kind: Literal["advice", "warning"], text: str) -> None:
        """What a person should know of a result."""
        color = {"advice": "cyan", "warning": "yellow"}[kind]
        # A sentence is broken between words where there is a width.
        self.out.print(f"[{color}]{kind}:[/] {escape(spoken(text))}", soft_wrap=not self.out.is_terminal)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Collection[str] = ()
    ) -> None:
        """A table, in which the columns `whole` are not broken into lines where another one can be."""
        cells = rows_of(rows)
        if self.out.is_terminal:
            self.out.print(drawn(columns, cells, self.out.width, whole=whole), soft_wrap=False)
        else:
            self._lines(lines(columns, cells))

    def _lines(self, of_result: Iterable[str]) -> None:
        for line in of_result:
            self.line(line)

    def predictions(self, answered: Iterable[tuple[str, Prediction]]) -> None:
        """A table of inputs, as they are shown, with their predictions."""
        rows: list[tuple[str, ...]] = [
            (text, "", "", "", f"error: {reason_of(prediction.error)}")
            if prediction.error is not None
            else (text, *phrases.answer(prediction), phrases.remarks(prediction))
            for text, prediction in answered
        ]
        columns = ["input", "label", "probability", "next best", ""]
        if not any(cells[-1] for cells in rows):
            columns.pop()
            rows = [cells[:-1] for cells in rows]
        self.table(columns, rows)

    def prediction_line(self, text: str, prediction: Prediction) -> None:
        """One prediction as tab-separated label, probability, input, and what to mind, if there is anything."""
        if prediction.error is not None:
            cells = ["", "", text, f"error: {reason_of(prediction.error)}"]
        else:
            answer, certainty, _ = phrases.answer(prediction, digits=4)
            remarks = phrases.remarks(prediction)
            cells = [answer, certainty, text, *([remarks] if remarks else [])]
        self.line("\t".join(map(phrases.escaped, cells)))

    def event(self, event: Event) -> None:
        """One event of an adaptation, as a line."""
        number = f"{event.number:>5}" if event.number else "     "
        self.line(f"{number}  {phrases.time(event.time)}  {phrases.describe(event)}".rstrip())
