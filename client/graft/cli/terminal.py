"""What the command line shows: tables, reports and lines. With `bars`, the part that needs rich."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graft._data_files.refused import RowsRead
from graft._records.evaluations import EvaluationResult
from graft._records.label_forms import named
from graft._records.predictions import Prediction
from graft._records.records import (
    Backbone,
    Event,
    Model,
    Outcome,
    Rejection,
    StoredExample,
    Version,
)
from graft._records.reports import ClassReport, Confusion, DataReport, Report, SimilarLabels
from graft._report import words
from graft.cli import phrases
from graft.cli.interrupts import Interrupts
from graft.errors import GraftError

_SHOWN_CLASSES: Final = 20
_SHOWN_CONFUSIONS: Final = 8
_SHOWN_REJECTIONS: Final = 5
_SHOWN_FINDINGS: Final = 5
_UNLIMITED_WIDTH: Final = 1000
_NUMBERS: Final = frozenset(
    {"accuracy", "classes", "evaluated", "examples", "F1", "features", "latest", "layers", "live", "log-loss"}
    | {"macro-F1", "precision", "probability", "recall", "times", "tokens", "version", "versions"}
)
"""Columns that hold numbers, and are aligned as such."""


class Terminal:
    """Standard output for results, standard error for everything else.

    Attributes:
        interrupts: What Ctrl-C does, and standard input, which it ends.
    """

    def __init__(self, interrupts: Interrupts | None = None) -> None:
        self.interrupts = interrupts or Interrupts()
        # A file or a pipe has no width; rich would take 80 columns and fold names.
        width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
        self.out = Console(highlight=False, soft_wrap=True, width=width)
        self.err = Console(highlight=False, soft_wrap=True, stderr=True)

    def say(self, text: str) -> None:
        """A line about what is going on."""
        self.err.print(escape(text))

    def line(self, text: str) -> None:
        """A line of the result, as it is: rich would make spaces of tabs."""
        self.out.file.write(f"{text}\n")

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

    def warning(self, text: str) -> None:
        """What was wrong, and passed over, in one line."""
        self.err.print(f"[yellow]passed over:[/] {escape(text)}")

    def remark(self, text: str) -> None:
        """What a person should know of the data before it is used."""
        self.err.print(f"[yellow]note:[/] {escape(text)}")

    def outcome(self, outcome: Outcome) -> None:
        """The outcome of a commit, in one line."""
        if outcome.report is not None:
            report = outcome.report
            what = f"version {outcome.version}: {report.examples:,} examples, {words.in_short(report)}"
            self.say(f"published {what} (commit {outcome.commit_id})")
        elif outcome.error is not None:
            self.say(f"commit {outcome.commit_id} led to no version: {outcome.error.message}")

    def json(self, value: Any) -> None:
        """A result for programs, on one line."""
        self.line(json.dumps(plain(value), ensure_ascii=False))

    def models(self, models: Iterable[Model]) -> None:
        """A table of models."""
        table = _table("model", "live", "latest", "versions", "other aliases", "created")
        for model in models:
            others = ", ".join(
                f"{alias}={version}" for alias, version in model.aliases.items() if alias != "live"
            )
            _row(
                table,
                model.name,
                model.aliases.get("live", ""),
                model.latest_version or "",
                model.versions,
                others,
                phrases.time(model.create_time),
            )
        self.out.print(table)

    def examples(self, examples: Iterable[StoredExample]) -> None:
        """A table of stored examples."""
        table = _table("adaptation", "writer", "sequence", "id", "target", "subject", "state", "text")
        for it in examples:
            _row(
                table,
                it.adaptation_id,
                it.writer_id,
                it.sequence,
                it.id,
                phrases.target(it),
                it.subject,
                "replaced or removed" if it.deleted else "",
                it.text or "",
            )
        self.out.print(table)

    def versions(self, versions: Iterable[Version]) -> None:
        """A table of versions."""
        table = _table(
            "version", "aliases", "examples", "classes", "accuracy", "macro-F1", "backbone", "created"
        )
        for version in versions:
            report = version.report
            _row(
                table,
                version.version,
                ", ".join(version.aliases),
                f"{report.examples:,}",
                report.classes,
                words.accuracy(report) if report.regression is None else "",
                "" if report.macro_f1 is None else words.percent(report.macro_f1),
                report.backbone,
                phrases.time(version.create_time),
            )
        self.out.print(table)

    def backbones(self, backbones: Sequence[Backbone]) -> None:
        """A table of backbones."""
        table = _table(
            "backbone", "state", "reads", "features", "tokens", "architecture", "layers", "memory", "encoder"
        )
        for backbone in backbones:
            _row(
                table,
                backbone.name + (" (default)" if backbone.is_default else ""),
                backbone.state,
                backbone.modality,
                backbone.feature_dimension,
                backbone.max_tokens,
                backbone.architecture,
                backbone.layers,
                f"{backbone.memory_bytes / 1e6:,.0f} MB" if backbone.memory_bytes else "",
                backbone.encoder_id[:12],
            )
        self.out.print(table)
        for error in filter(None, (it.error for it in backbones)):
            self.out.print(escape(error))

    def predictions(self, answered: Iterable[tuple[str, Prediction]]) -> None:
        """A table of inputs, as they are shown, with their predictions."""
        table = _table("input", "label", "probability", "next best", "")
        for text, prediction in answered:
            if prediction.error is not None:
                _row(table, _cut(text), "", "", "", f"error: {prediction.error.message}")
                continue
            _row(table, _cut(text), *phrases.answer(prediction), phrases.remarks(prediction))
        self.out.print(table)

    def prediction_line(self, text: str, prediction: Prediction) -> None:
        """One prediction as tab-separated label, probability, input, and what to mind, if there is anything."""
        if prediction.error is not None:
            cells = ["", "", text, f"error: {prediction.error.message}"]
        else:
            answer, certainty, _ = phrases.answer(prediction, digits=4)
            remarks = phrases.remarks(prediction)
            cells = [answer, certainty, text, *([remarks] if remarks else [])]
        self.line("\t".join(" ".join(cell.splitlines()).replace("\t", " ") for cell in cells))

    def report(
        self, model: str, version: int, report: Report, *, aliases: Sequence[str] = (), full: bool = False
    ) -> None:
        """A version's report."""
        names = f" ({', '.join(aliases)})" if aliases else ""
        self.out.print(f"[bold]{escape(model)}[/] version [bold]{version}[/]{escape(names)}")
        self.out.print(_facts(phrases.report_facts(report)))
        self._classes(report.per_class, full=full)
        self._confusions(report.confusions, full=full)
        if full and report.head.candidates:
            self.out.print(_candidates(report))
        if report.data is not None:
            self._data(report.data, full=full)
            self._similar(report.data.similar_labels if full else ())
        for advice in words.useful_advice(report):
            self.out.print(f"[cyan]advice:[/] {escape(words.advice(advice))}")
        for warning in report.warnings:
            self.out.print(f"[yellow]warning:[/] {escape(warning)}")

    def evaluation(self, result: EvaluationResult, lines: Sequence[int], *, full: bool = False) -> None:
        """What an evaluation found; `lines` are those of the examples, by their index."""
        self.out.print(f"[bold]{escape(result.model)}[/] version [bold]{result.version}[/]")
        self.out.print(_facts(phrases.evaluation_facts(result, lines)))
        self._unknown_labels(result, lines)
        self._classes(result.per_class, full=full, trained=False)
        self._confusions(result.confusions, full=full)
        if result.training_examples_missing:
            self.out.print(f"[yellow]warning:[/] {phrases.TRAINING_EXAMPLES_MISSING}")

    def _unknown_labels(self, result: EvaluationResult, lines: Sequence[int]) -> None:
        if not result.unknown_labels:
            return
        table = _table("label that the version does not know", "examples", "lines", "did you mean")
        for it in result.unknown_labels:
            _row(
                table,
                it.label,
                f"{it.examples:,}",
                phrases.lines_of(it.indices, it.examples, lines),
                it.similar,
            )
        self.out.print(table)
        many = f"{words.plural(result.unknown_label_count, 'example')} with such labels"
        self.out.print(
            f"[yellow]warning:[/] {many} count as wrong: correct the labels, or adapt the model with examples of them"
        )

    def rejections(
        self,
        rejected: Sequence[Rejection],
        count: int,
        rows: RowsRead,
    ) -> None:
        """Which rows were refused: the first few, with their lines where these are known.

        Args:
            rejected: The first examples that the server refused.
            count: How many it refused.
            rows: The rows that were read, and those of which no example could be made.
        """
        found = [(it.line, f"{it.place}: {it.reason}") for it in rows.refused]
        for it in rejected:
            line = rows.line(it.sequence)
            where = f"example {it.sequence}" if line is None else rows.place(line)
            found.append((line or it.sequence, f"{where}: {it.detail} [{it.reason}]"))
        if not (total := count + rows.refused_count):
            return
        self.err.print(f"[yellow]{total:,} example{'s were' if total > 1 else ' was'} refused:[/]")
        for _, text in sorted(found)[:_SHOWN_REJECTIONS]:
            self.say(f"  {text}")
        if total > _SHOWN_REJECTIONS:
            self.say(f"  … and {total - _SHOWN_REJECTIONS:,} more")

    def event(self, event: Event) -> None:
        """One event of an adaptation, as a line."""
        number = f"{event.number:>5}" if event.number else "     "
        self.line(f"{number}  {phrases.time(event.time)}  {phrases.describe(event)}".rstrip())

    def _classes(self, classes: Sequence[ClassReport], *, full: bool, trained: bool = True) -> None:
        if not classes:
            return
        ordered = sorted(classes, key=lambda c: (not c.support, c.f1 or 0.0, c.label))
        shown = ordered if full else ordered[:_SHOWN_CLASSES]
        sets = any(entry.threshold for entry in classes)
        cut = any(entry.truncated for entry in classes)
        heads = ["label" if sets else "class", *(["examples"] if trained else [])]
        heads += [*(["cut off"] if cut else []), "evaluated"]
        table = _table(*heads, *(["selected from"] if sets else []), "precision", "recall", "F1")
        for entry in shown:
            cells = [entry.label, *([f"{entry.examples:,}"] if trained else [])]
            cells += [*([f"{entry.truncated:,}"] if cut else []), f"{entry.support:,}"]
            cells += [f"{entry.threshold:.2f}"] if sets else []
            _row(
                table,
                *cells,
                words.percent(entry.precision),
                words.percent(entry.recall),
                words.percent(entry.f1),
            )
        self.out.print(table)
        if len(shown) < len(ordered):
            kind = "labels" if sets else "classes"
            self.say(f"… and {len(ordered) - len(shown):,} {kind} that do better; --full shows all")

    def _confusions(self, confusions: Sequence[Confusion], *, full: bool) -> None:
        if not confusions:
            return
        table = _table("is", "was answered with", "times")
        for confusion in confusions if full else confusions[:_SHOWN_CONFUSIONS]:
            _row(table, confusion.label, confusion.predicted, confusion.count)
        self.out.print(table)

    def _similar(self, groups: Sequence[SimilarLabels]) -> None:
        if groups:
            table = _table("labels that may be meant as one")
            for group in groups:
                _row(table, named(group))
            self.out.print(table)

    def _data(self, data: DataReport, *, full: bool) -> None:
        """Examples that a person should look at."""
        most = None if full else _SHOWN_FINDINGS
        if data.label_errors:
            table = _table("label worth a second look", "has the label", "more likely", "probability")
            for error in data.label_errors[:most]:
                reference = words.reference(error.example)
                suggested = words.percent(error.suggested_probability)
                _row(table, reference, error.example.label, error.suggested, suggested)
            self.out.print(table)
        if data.conflicts:
            table = _table("same input, several labels", "labels")
            for group in data.conflicts[:most]:
                labels = dict.fromkeys(example.label for example in group.examples)
                _row(table, words.references(group), ", ".join(labels))
            self.out.print(table)
        # A group of equal inputs is harmless; it is counted among the facts, and listed on demand.
        for title, groups in (
            ("exact duplicates", data.duplicate_groups),
            ("near duplicates", data.near_duplicate_pairs),
            ("held-out copies of training examples", data.validation_copy_pairs),
        ):
            if full and groups:
                table = _table(title, "similarity")
                for group in groups:
                    _row(table, words.references(group), f"{group.similarity:.3f}")
                self.out.print(table)
        if not full and data.probable_label_errors > _SHOWN_FINDINGS:
            rest = data.probable_label_errors - _SHOWN_FINDINGS
            self.say(f"… and {rest:,} more whose labels are worth a second look; --full shows all")


def plain(value: Any) -> Any:
    """A value of the client as JSON knows it."""
    if isinstance(value, GraftError):
        return {"code": value.code.name, "reason": value.reason, "message": value.message}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _candidates(report: Report) -> Table:
    measure = {"single_label": "accuracy", "multi_label": "micro-F1", "regression": "RMSE"}[report.task]
    table = _table("tried", "reads", "settings", "log-loss", measure)
    for candidate in report.head.candidates:
        settings = words.values(candidate.settings)
        log_loss = words.figure_as(".3f", candidate.log_loss) if report.regression is None else ""
        found = {
            "accuracy": words.percent(candidate.accuracy),
            "micro-F1": words.percent(candidate.micro_f1),
            "RMSE": words.figure_as(".4g", candidate.rmse),
        }[measure]
        _row(table, candidate.kind, candidate.view, settings, log_loss, found)
    return table


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(escape(str(cell)) for cell in cells))


def _cut(text: str, limit: int = 70) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
