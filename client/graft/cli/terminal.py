"""What the command line shows: tables, reports and progress. The one module that needs rich."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from graft._records.predictions import Prediction
from graft._records.records import (
    AdaptProgress,
    Backbone,
    Event,
    Model,
    Outcome,
    Rejection,
    StoredExample,
    Version,
)
from graft._records.records import Progress as StreamProgress
from graft._records.reports import ClassReport, Confusion, DataReport, EvaluationResult, Report
from graft._report import words
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
_QUIET_S: Final = 2.0
"""Without a terminal, a line of progress is written no more often than this."""


class Terminal:
    """Standard output for results, standard error for everything else."""

    def __init__(self) -> None:
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

    def warning(self, text: str) -> None:
        """What was wrong, and passed over, in one line."""
        self.err.print(f"[yellow]passed over:[/] {escape(text)}")

    def outcome(self, outcome: Outcome) -> None:
        """What became of a commit, in one line."""
        if outcome.report is not None:
            report = outcome.report
            what = f"version {outcome.version}: {report.examples:,} examples, accuracy {_percent(report.accuracy)}"
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
                _time(model.create_time),
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
                _target(it),
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
                _percent(report.accuracy) if report.regression is None else "",
                _percent(report.macro_f1) if report.regression is None else "",
                report.backbone,
                _time(version.create_time),
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

    def predictions(self, inputs: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """A table of predictions, one row an input."""
        table = _table("input", "label", "probability", "next best", "")
        for text, prediction in zip(inputs, predictions, strict=True):
            if prediction.error is not None:
                _row(table, _cut(text), "", "", "", f"error: {prediction.error.message}")
                continue
            _row(table, _cut(text), *_answer(prediction), _remarks(prediction))
        self.out.print(table)

    def prediction_line(self, text: str, prediction: Prediction) -> None:
        """One prediction as tab-separated label, probability, input."""
        if prediction.error is not None:
            self.line(f"\t\t{text}\t{prediction.error.message}")
        else:
            answer, certainty, _ = _answer(prediction, digits=4)
            self.line(f"{answer}\t{certainty}\t{text}")

    def report(
        self, model: str, version: int, report: Report, *, aliases: Sequence[str] = (), full: bool = False
    ) -> None:
        """A version's report."""
        names = f" ({', '.join(aliases)})" if aliases else ""
        self.out.print(f"[bold]{escape(model)}[/] version [bold]{version}[/]{escape(names)}")
        self.out.print(_facts(_report_facts(report)))
        self._classes(report.per_class, full=full)
        self._confusions(report.confusions, full=full)
        if full and report.head.candidates:
            self.out.print(_candidates(report))
        if report.data is not None:
            self._data(report.data, full=full)
        for advice in words.useful_advice(report):
            self.out.print(f"[cyan]advice:[/] {escape(words.advice(advice))}")
        for warning in report.warnings:
            self.out.print(f"[yellow]warning:[/] {escape(warning)}")

    def evaluation(self, result: EvaluationResult, *, full: bool = False) -> None:
        """What an evaluation found."""
        self.out.print(f"[bold]{escape(result.model)}[/] version [bold]{result.version}[/]")
        self.out.print(_facts({"evaluated": f"{result.examples:,} examples", **_figures(result)}))
        self._classes(result.per_class, full=full, trained=False)
        self._confusions(result.confusions, full=full)
        if result.rejected_count:
            first = "; ".join(f"example {r.index}: {r.detail}" for r in result.rejected[:_SHOWN_REJECTIONS])
            self.say(f"{result.rejected_count:,} examples could not be evaluated: {first}")

    def rejections(
        self, rejected: Sequence[Rejection], count: int, lines: Sequence[int] | array[int]
    ) -> None:
        """Which examples were refused: the first few, with their lines where these are known."""
        if not count:
            return
        self.err.print(f"[yellow]{count:,} example{'s were' if count > 1 else ' was'} refused:[/]")
        for rejection in rejected[:_SHOWN_REJECTIONS]:
            known = rejection.sequence < len(lines)
            where = f"line {lines[rejection.sequence]}" if known else f"example {rejection.sequence}"
            self.say(f"  {where}: {rejection.detail} [{rejection.reason}]")
        if count > _SHOWN_REJECTIONS:
            self.say(f"  … and {count - _SHOWN_REJECTIONS:,} more")

    def event(self, event: Event) -> None:
        """One event of an adaptation, as a line."""
        number = f"{event.number:>5}" if event.number else "     "
        self.line(f"{number}  {_time(event.time)}  {describe(event)}".rstrip())

    def _classes(self, classes: Sequence[ClassReport], *, full: bool, trained: bool = True) -> None:
        if not classes:
            return
        ordered = sorted(classes, key=lambda c: (c.f1, c.label))
        shown = ordered if full else ordered[:_SHOWN_CLASSES]
        sets = any(entry.threshold for entry in classes)
        heads = ["label" if sets else "class", *(["examples"] if trained else []), "evaluated"]
        table = _table(*heads, *(["selected from"] if sets else []), "precision", "recall", "F1")
        for entry in shown:
            cells = [entry.label, *([f"{entry.examples:,}"] if trained else []), f"{entry.support:,}"]
            cells += [f"{entry.threshold:.2f}"] if sets else []
            _row(table, *cells, _percent(entry.precision), _percent(entry.recall), _percent(entry.f1))
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

    def _data(self, data: DataReport, *, full: bool) -> None:
        """Examples that a person should look at."""
        most = None if full else _SHOWN_FINDINGS
        if data.label_errors:
            table = _table("probably mislabelled", "has the label", "probably is", "probability")
            for error in data.label_errors[:most]:
                reference = words.reference(error.example)
                suggested = _percent(error.suggested_probability)
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
        ):
            if full and groups:
                table = _table(title, "similarity")
                for group in groups:
                    _row(table, words.references(group), f"{group.similarity:.3f}")
                self.out.print(table)
        if not full and data.probable_label_errors > _SHOWN_FINDINGS:
            rest = data.probable_label_errors - _SHOWN_FINDINGS
            self.say(f"… and {rest:,} more that are probably mislabelled; --full shows all")


class AdaptBar:
    """Shows how far an adaptation is: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bar = _progress(terminal)
        self._task = self._bar.add_task("connecting", total=None)
        self._read = 0.0
        self._last_line = time.monotonic()
        self._said = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def reading(self, fraction: float) -> None:
        """Notes which share of the data has been read, 0 to 1."""
        self._read = fraction

    def show(self, progress: AdaptProgress) -> None:
        """Shows progress."""
        what, done = _stage(progress, self._read)
        self._bar.update(self._task, description=escape(what), total=1.0 if done else None, completed=done)
        self._say(progress, what)

    def _say(self, progress: AdaptProgress, what: str) -> None:
        if self._terminal.err.is_terminal or progress.stage == self._said:
            return
        if time.monotonic() - self._last_line >= _QUIET_S or progress.trouble is not None:
            self._terminal.say(what)
            self._last_line = time.monotonic()
            self._said = progress.stage


class CountBar:
    """Shows a count that grows."""

    def __init__(self, terminal: Terminal, what: str) -> None:
        self._bar = _progress(terminal)
        self._what = what
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def reading(self, fraction: float) -> None:
        """Notes which share is done, 0 to 1; 0 where that is not known."""
        if fraction:
            self._bar.update(self._task, total=1.0, completed=fraction)

    def show(self, text: str) -> None:
        """Shows the count."""
        self._bar.update(self._task, description=escape(f"{self._what} {text}"))


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


def describe(event: Event) -> str:
    """An event in words."""
    match event.kind:
        case "rejected":
            first = event.rejected[0] if event.rejected else None
            return f"{len(event.rejected):,} examples refused" + (f"; {first.detail}" if first else "")
        case "published":
            numbers = event.report.regression if event.report else None
            accuracy = f", accuracy {_percent(event.report.accuracy)}" if event.report else ""
            accuracy = f", R² {_percent(numbers.r2)}" if numbers else accuracy
            return f"published version {event.version}{accuracy} (commit {event.commit_id})"
        case "publication_failed":
            return f"commit {event.commit_id} led to no version: {event.error}"
        case "state":
            return f"the adaptation is {event.state}"
        case "progress" if event.progress is not None:
            return _described(event.progress)
        case _:
            return (
                f"{event.kind} (commit {event.commit_id})"
                if event.commit_id
                else event.kind or "unknown event"
            )


def _described(progress: StreamProgress) -> str:
    """What the server does, in words."""
    if progress.commit_id:
        return f"{progress.stage or 'working'} {progress.fraction:.0%}"
    return f"streaming: {progress.metrics.get('examples', 0.0):,.0f} examples learned{_learned(progress)}"


def _learned(progress: AdaptProgress | StreamProgress) -> str:
    """How well a stream is being learned, where that is known."""
    right = progress.metrics.get("prequential_accuracy")
    return "" if right is None else f", {_percent(right)} predicted right before they were learned"


def _stage(progress: AdaptProgress, read: float) -> tuple[str, float]:
    if progress.trouble is not None:
        return f"no connection, trying again: {progress.trouble.message:.80}", 0.0
    refused = f", {progress.rejected:,} refused" if progress.rejected else ""
    if progress.stage == "streaming":
        version = f", version {progress.version}" if progress.version else ""
        return (
            f"streaming: {progress.acknowledged:,} examples stored{refused}{_learned(progress)}{version}",
            read,
        )
    if progress.stage == "published":
        return f"published: {progress.acknowledged:,} examples{refused}", 1.0
    eta = f", {progress.eta_s:.0f} s to go" if progress.eta_s else ""
    return f"{progress.stage}{eta}", progress.fraction


def _progress(terminal: Terminal) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=terminal.err, transient=True, disable=not terminal.err.is_terminal)


def _report_facts(report: Report) -> dict[str, str]:
    held_out = f", {report.validation_examples:,} held out" if report.validation_examples else ""
    head = report.head
    classes = f" of {report.classes:,} classes" if report.regression is None else ""
    facts = {
        "trained on": f"{report.examples:,} examples{classes}{held_out}",
        "measured by": words.measured(report),
        **_figures(report),
        "head": words.head(head.kind, head.view, head.settings),
        "backbone": f"{report.backbone} ({report.method})",
        "training took": f"{report.training_duration_s:.2f} s",
    }
    for tried in (*report.other_tunings, report.tuning):
        if tried is not None:
            facts[f"tuning ({tried.method})"] = words.tuning(tried)
    if report.novelty is not None:
        facts["abstains"] = words.novelty(report.novelty)
    if report.data is not None:
        facts["data"] = words.findings(report.data, report.task)
    for point in report.learning_curve.forecasts if report.learning_curve else ():
        facts[f"with {point.examples:,} examples"] = f"{words.measure(report)} about {words.forecast(point)}"
    return facts


def _figures(of: Report | EvaluationResult) -> dict[str, str]:
    """What a task is measured by."""
    if of.regression is not None:
        numbers = of.regression
        return {
            "off by": f"{numbers.mae:.4g} on average, {numbers.rmse:.4g} root mean square",
            "explains": f"{_percent(numbers.r2)} of the variance (R²)",
            "intervals": f"hold {_percent(numbers.coverage)} of the truth, meant to hold {numbers.confidence:.0%}; "
            f"{numbers.interval_width:.4g} wide on average",
            "values": f"{numbers.mean:.4g} ± {numbers.deviation:.4g}",
        }
    figures = {
        "accuracy": _percent(of.accuracy),
        "macro-F1": _percent(of.macro_f1),
        "log-loss": f"{of.log_loss:.3f} nats",
        "calibration error": _percent(of.calibration_error),
    }
    if of.multi_label is not None:
        labels = of.multi_label
        figures["accuracy"] += " of whole sets of labels"
        figures["micro-F1"] = _percent(labels.micro_f1)
        figures["decisions wrong"] = f"{_percent(labels.hamming_loss)} (Hamming loss)"
        figures["labels each"] = (
            f"{labels.selected_per_example:.2f} selected, {labels.labels_per_example:.2f} carried"
        )
    return figures


def _target(example: StoredExample) -> str:
    """What an example should be answered with, whatever its task."""
    if example.labels is not None:
        return ", ".join(example.labels) or "no label"
    if example.value is not None:
        return f"{example.value:.6g}"
    if example.distribution is not None:
        return ", ".join(f"{label} {share:.2f}" for label, share in example.distribution.items())
    return example.label or ""


def _answer(prediction: Prediction, digits: int = 3) -> tuple[str, str, str]:
    """An answer, how sure it is, and what else it could be."""
    if prediction.value is not None:
        return f"{prediction.value:.6g}", f"{prediction.low:.6g} to {prediction.high:.6g}", ""
    chosen = prediction.labels
    if not any(score.selected is not None for score in prediction.scores):
        others = prediction.scores[1:3]
        sure = [f"{prediction.probability:.{digits}f}"]
    else:
        others = tuple(score for score in prediction.scores if not score.selected)[:2]
        sure = [f"{score.probability:.{digits}f}" for score in prediction.scores if score.selected]
    rest = ", ".join(f"{score.label} {score.probability:.2f}" for score in others)
    return ",".join(chosen), ",".join(sure), rest


def _candidates(report: Report) -> Table:
    measure = {"single_label": "accuracy", "multi_label": "micro-F1", "regression": "RMSE"}[report.task]
    table = _table("tried", "reads", "settings", "log-loss", measure)
    for candidate in report.head.candidates:
        settings = words.values(candidate.settings)
        log_loss = f"{candidate.log_loss:.3f}" if report.regression is None else ""
        found = {
            "accuracy": _percent(candidate.accuracy),
            "micro-F1": _percent(candidate.micro_f1),
            "RMSE": f"{candidate.rmse:.4g}",
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


def _remarks(prediction: Prediction) -> str:
    remarks = ["unlike the training data"] if prediction.abstained else []
    return ", ".join(remarks + (["cut off"] if prediction.truncated else []))


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _time(time_: dt.datetime | None) -> str:
    return time_.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time_ else ""


def _cut(text: str, limit: int = 70) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
