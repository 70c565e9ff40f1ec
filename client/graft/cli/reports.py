"""Reports and evaluations on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from graft._records.evaluations import EvaluationResult
from graft._records.label_forms import named
from graft._records.reports import ClassReport, Confusion, DataReport, Report, SimilarLabels
from graft._report import words
from graft.cli import phrases

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_SHOWN_CLASSES: Final = 20
_SHOWN_CONFUSIONS: Final = 8
_SHOWN_FINDINGS: Final = 5


def show_report(
    terminal: Terminal,
    model: str,
    version: int,
    report: Report,
    *,
    aliases: Sequence[str] = (),
    full: bool = False,
) -> None:
    """A version's report."""
    terminal.heading(model, version, f"({', '.join(aliases)})" if aliases else "")
    terminal.facts(phrases.report_facts(report))
    _classes(terminal, report.per_class, full=full)
    _confusions(terminal, report.confusions, full=full)
    if full and report.head.candidates:
        _candidates(terminal, report)
    if report.data is not None:
        _data(terminal, report.data, full=full)
        _similar(terminal, report.data.similar_labels if full else ())
    for advice in words.useful_advice(report):
        terminal.found("advice", words.advice(advice))
    for warning in report.warnings:
        terminal.found("warning", warning)


def show_evaluation(
    terminal: Terminal, result: EvaluationResult, lines: Sequence[int], *, full: bool = False
) -> None:
    """What an evaluation found; `lines` are those of the examples, by their index."""
    terminal.heading(result.model, result.version)
    terminal.facts(phrases.evaluation_facts(result, lines))
    _unknown_labels(terminal, result, lines)
    _classes(terminal, result.per_class, full=full, trained=False)
    _confusions(terminal, result.confusions, full=full)
    if result.training_examples_missing:
        terminal.found("warning", phrases.TRAINING_EXAMPLES_MISSING)


def _unknown_labels(terminal: Terminal, result: EvaluationResult, lines: Sequence[int]) -> None:
    if not result.unknown_labels:
        return
    terminal.table(
        ("label that the version does not know", "examples", "lines", "did you mean"),
        (
            (it.label, f"{it.examples:,}", phrases.lines_of(it.indices, it.examples, lines), it.similar)
            for it in result.unknown_labels
        ),
    )
    many = f"{words.plural(result.unknown_label_count, 'example')} with such labels"
    terminal.found(
        "warning", f"{many} count as wrong: correct the labels, or adapt the model with examples of them"
    )


def _classes(terminal: Terminal, classes: Sequence[ClassReport], *, full: bool, trained: bool = True) -> None:
    if not classes:
        return
    ordered = sorted(classes, key=lambda c: (not c.support, c.f1 or 0.0, c.label))
    shown = ordered if full else ordered[:_SHOWN_CLASSES]
    sets = any(entry.threshold for entry in classes)
    cut = any(entry.truncated for entry in classes)
    heads = ["label" if sets else "class", *(["examples"] if trained else [])]
    heads += [*(["cut off"] if cut else []), "evaluated", *(["selected from"] if sets else [])]
    rows: list[list[str]] = []
    for entry in shown:
        cells = [entry.label, *([f"{entry.examples:,}"] if trained else [])]
        cells += [*([f"{entry.truncated:,}"] if cut else []), f"{entry.support:,}"]
        cells += [f"{entry.threshold:.2f}"] if sets else []
        rows.append([*cells, *map(words.percent, (entry.precision, entry.recall, entry.f1))])
    terminal.table((*heads, "precision", "recall", "F1"), rows)
    if len(shown) < len(ordered):
        kind = "labels" if sets else "classes"
        terminal.say(f"… and {len(ordered) - len(shown):,} {kind} that do better; --full shows all")


def _confusions(terminal: Terminal, confusions: Sequence[Confusion], *, full: bool) -> None:
    if confusions:
        shown = confusions if full else confusions[:_SHOWN_CONFUSIONS]
        terminal.table(
            ("is", "was answered with", "times"), ((it.label, it.predicted, it.count) for it in shown)
        )


def _similar(terminal: Terminal, groups: Sequence[SimilarLabels]) -> None:
    if groups:
        terminal.table(("labels that may be meant as one",), ((named(group),) for group in groups))


def _data(terminal: Terminal, data: DataReport, *, full: bool) -> None:
    """Examples that a person should look at."""
    most = None if full else _SHOWN_FINDINGS
    if data.label_errors:
        terminal.table(
            ("label worth a second look", "has the label", "more likely", "probability"),
            (
                (
                    words.reference(it.example),
                    it.example.label,
                    it.suggested,
                    words.percent(it.suggested_probability),
                )
                for it in data.label_errors[:most]
            ),
        )
    if data.conflicts:
        terminal.table(
            ("same input, several labels", "labels"),
            (
                (words.references(group), ", ".join(dict.fromkeys(it.label for it in group.examples)))
                for group in data.conflicts[:most]
            ),
        )
    # A group of equal inputs is harmless; it is counted among the facts, and listed on demand.
    for title, groups in (
        ("exact duplicates", data.duplicate_groups),
        ("near duplicates", data.near_duplicate_pairs),
        ("held-out copies of training examples", data.validation_copy_pairs),
    ):
        if full and groups:
            shown = ((words.references(group), f"{group.similarity:.3f}") for group in groups)
            terminal.table((title, "similarity"), shown)
    if not full and data.probable_label_errors > _SHOWN_FINDINGS:
        rest = data.probable_label_errors - _SHOWN_FINDINGS
        terminal.say(f"… and {rest:,} more whose labels are worth a second look; --full shows all")


def _candidates(terminal: Terminal, report: Report) -> None:
    measure = {"single_label": "accuracy", "multi_label": "micro-F1", "regression": "RMSE"}[report.task]
    rows: list[tuple[str, ...]] = []
    for candidate in report.head.candidates:
        settings = words.values(candidate.settings)
        log_loss = words.figure_as(".3f", candidate.log_loss) if report.regression is None else ""
        found = {
            "accuracy": words.percent(candidate.accuracy),
            "micro-F1": words.percent(candidate.micro_f1),
            "RMSE": words.figure_as(".4g", candidate.rmse),
        }[measure]
        rows.append((candidate.kind, candidate.view, settings, log_loss, found))
    terminal.table(("tried", "reads", "settings", "log-loss", measure), rows)
