"""Sends what a person changed in a version's examples, and tells the old figures from the new ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from graft._client.sync import Client
from graft._data_files.columns import RowError
from graft._data_files.corrections.reading import Found
from graft._data_files.refused import RowsRead
from graft._records.adapting.told import AdaptProgress, AdaptResult
from graft._records.evaluation.reports import Report
from graft._records.inputs.examples import ChangeLike, Delete
from graft._records.records import Version
from graft._report import words
from graft.cli.adapting.stopping import Stopping
from graft.cli.refusals import say_refusals, with_refused
from graft.cli.showing.live import not_live
from graft.cli.showing.reports import quoted, show_report

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_AT_ONCE: Final = 20
"""Examples whose inputs are fetched at once: they may be large files."""


@dataclass(slots=True)
class Sending:
    """Where changes go, and how it is adapted."""

    client: Client
    terminal: Terminal
    base: Version
    """The version whose examples are changed."""
    args: argparse.Namespace
    """The command's arguments, with the adaptation's id."""
    go_on: Callable[[AdaptProgress | None], str]
    """Says what is stored, and how to go on, where the command ends before the server trains."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `Client.adapt`."""
    on_committed: Callable[[], None] = lambda: None
    """Called when the server has the changes for good, and trains whatever happens here; maybe more than once."""

    def send(self, found: Found, rows: RowsRead) -> AdaptResult:
        """Adapts the base version with the changes; `rows` takes their lines."""
        described = [(it.name, it.description) for it in self.base.labels]
        with (
            self.terminal.adapt_bar() as bar,
            Stopping(self.args, self.client, self.terminal, bar, self.go_on) as stopping,
        ):

            def show(progress: AdaptProgress) -> None:
                if progress.commit_id:
                    self.on_committed()
                stopping.show(progress)

            return self.client.adapt(
                self.base.model,
                self._changes(found, rows),
                adaptation_id=self.args.adaptation_id,
                base_version=self.base.version,
                match_content=True,
                task=self.base.task,
                on_progress=show,
                on_published=partial(self.terminal.outcome, self.base.model),
                **{
                    "backbone": self.base.report.backbone,
                    # A description is evidence of a label; without any, labels come of the examples alone.
                    "labels": described if any(text for _, text in described) else None,
                    **self.settings,
                },
            )

    def _changes(self, found: Found, rows: RowsRead) -> Iterator[ChangeLike]:
        for line, id_ in found.deleted:
            rows.take(line)
            yield Delete(id_)
        for start in range(0, len(found.edits), _AT_ONCE):
            edits = found.edits[start : start + _AT_ONCE]
            stored = {
                it.id: it
                for it in self.client.examples(
                    self.base.model,
                    version=self.base.version,
                    ids=[it.id for it in edits],
                    include_inputs=True,
                )
            }
            for edit in edits:
                if edit.id not in stored:
                    gone = f"version {self.base.version} has no example {edit.id!r:.80} any more"
                    rows.refuse(RowError(self.base.model, edit.line, gone))
                    continue
                if edit.unconfirmed:
                    rows.take(edit.line)
                    yield Delete(edit.id)  # what comes again is confirmed if it was; what was deleted is not
                rows.take(edit.line)
                yield stored[edit.id].example(**edit.fields)
        for line, example in found.added:
            rows.take(line)
            yield example

    def finish(self, result: AdaptResult, found: Found, rows: RowsRead) -> None:
        """Shows what came of the changes."""
        before = self.base.report
        if self.args.json:
            self.terminal.json(
                with_refused(result, rows)
                | {
                    "base_version": self.base.version,
                    "base_accuracy": before.accuracy,
                    "changes": found.counts,
                }
            )
        elif result.nothing_new:
            self.terminal.line(f"nothing new: version {result.version} stays")
        else:
            if result.extension is not None:
                self.terminal.line(f"extends {result.extension}")
            show_report(
                self.terminal,
                result.model,
                result.version,
                quoted(self.client, result),
                full=self.args.full,
                brief=True,
            )
            for line in compared(self.base, result.version, result.report):
                self.terminal.line(line)
        say_refusals(self.terminal, result.rejected, result.rejected_count, rows, self.args)
        if why := not_live(result.model, result):
            self.terminal.remark(why)


def compared(base: Version, number: int, report: Report) -> list[str]:
    """The old figure beside the new one, and what can be told from both, in sentences."""
    old, new = words.figure(base.report), words.figure(report)
    if old is None or new is None:
        return [f"version {base.version} and version {number} cannot be compared: not both were measured"]
    name = words.measure(report)
    figures = (
        f"{name}: {_figure(base.report)} of version {base.version}, {_figure(report)} of version {number}"
    )
    if report.evaluation == base.report.evaluation == "held_out" and (
        report.evaluated_examples == base.report.evaluated_examples
    ):
        return [f"{figures}, both on {report.evaluated_examples:,} examples that were held out"]
    why = (
        f"each was measured on its own examples: where a label was wrong, right answers of version {base.version} "
        "counted as wrong, so that a part of the difference is the labels and not the model."
    )
    how = f"graft compare {base.model} {base.version} {number} TEST.csv"
    return [figures, why, f"to measure both on the same rows: {how}"]


def _figure(report: Report) -> str:
    return (
        words.accuracy(report) if words.measure(report) == "accuracy" else words.percent(words.figure(report))
    )


def newest_base(client: Client, terminal: Terminal, reviewed: Version, *, chosen: bool) -> Version:
    """The version that the changes go on from: the live one, so that nothing that somebody published is lost.

    Args:
        client: The client.
        terminal: Where it is said if that is another version.
        reviewed: The version whose examples a person looked at.
        chosen: Whether that version was asked for by its number: then it is the one.
    """
    if chosen:
        if "live" not in reviewed.aliases:
            terminal.note(
                f"version {reviewed.version} is not live: the new version goes on from its examples, not from the "
                "live version's"
            )
        return reviewed
    live = client.version(reviewed.model)
    if live.version != reviewed.version:
        terminal.note(
            f"version {live.version} was published since: the changes of version {reviewed.version} go on top of it"
        )
    return live
