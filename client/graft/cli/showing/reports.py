"""Reports and evaluations on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._records.adapting.told import AdaptResult
from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.label_forms import named
from graft._records.evaluation.quotes import Quotes
from graft._records.evaluation.reports import (
    ClassReport,
    Confusion,
    DataReport,
    ExampleRef,
    Report,
    SimilarLabels,
)
from graft._records.extensions import Extension
from graft._report import words
from graft._report.charts import cut
from graft.cli.showing import phrases
from graft.errors import GraftError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_SHOWN_CLASSES: Final = 20
_SHOWN_CONFUSIONS: Final = 8
_SHOWN_FINDINGS: Final = 5
_BRIEF: Final = 3
"""The most advice that is shown in brief."""
_ROOM: Final = 120
"""Characters of a text in a table."""


def show_report(
    terminal: Terminal,
    model: str,
    version: int,
    report: Report,
    *,
    aliases: Sequence[str] = (),
    extension: Extension | None = None,
    full: bool = False,
    brief: bool = False,
) -> None:
    """A version's report, and what it extends where that is not said already.

    Args:
        terminal: Where.
        model: The model's name.
        version: The version's number.
        report: The report.
        aliases: The version's aliases.
        extension: What it extends.
        full: Whether nothing is left out.
        brief: Whether only the first advice is shown, a line each.
    """
    terminal.heading(model, version, f"({', '.join(aliases)})" if aliases else "")
    extends = {} if extension is None else {"extends": str(extension)}
    terminal.facts({**extends, **phrases.report_facts(report)})
    _classes(terminal, report.per_class, full=full)
    _confusions(terminal, report.confusions, full=full)
    if full and report.head.candidates:
        _candidates(terminal, report)
    if report.data is not None:
        _data(terminal, report.data, report.quotes, full=full)
        _similar(terminal, report.data.similar_labels if full else ())
    _tunings(terminal, report)
    advice = [words.in_brief(it, words.measure(report)) if brief else it.text for it in report.advice]
    advice += map(words.advice, words.useful_advice(report))
    for text in advice[:_BRIEF] if brief else advice:
        terminal.found("advice", text)
    for warning in report.warnings:
        terminal.found("warning", warning)


def quoted(client: Client, result: AdaptResult) -> Report:
    """The report of a version that was published, with quotes of the examples that it names, if it names any."""
    data = result.report.data
    if data is None or not (data.label_errors or data.conflicts or data.duplicate_groups):
        return result.report
    try:
        return client.report(result.model, result.version)
    except GraftError as error:  # the version is there: a report without quotes says so, too
        return replace(result.report, quotes=Quotes(reason=error.message))


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
        figures = [words.percent(it) for it in (entry.precision, entry.recall, entry.f1)]
        rows.append([*cells, *(figures if entry.f1 is not None else [words.NOT_MEASURED, "–", "–"])])
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


def _data(terminal: Terminal, data: DataReport, quotes: Quotes | None, *, full: bool) -> None:
    """Examples that a person should look at."""
    most = None if full else _SHOWN_FINDINGS
    if data.label_errors:
        terminal.table(
            (*_heads("label worth a second look", quotes), "has the label", "more likely", "probability"),
            (
                (
                    *_named([it.example], words.reference(it.example), quotes),
                    it.example.label,
                    it.suggested,
                    words.percent(it.suggested_probability),
                )
                for it in sorted(data.label_errors, key=lambda it: -it.suggested_probability)[:most]
            ),
        )
    if data.conflicts:
        terminal.table(
            (*_heads("same input, several labels", quotes), "labels"),
            (
                (
                    *_named(group.examples, words.references(group), quotes),
                    ", ".join(dict.fromkeys(it.label for it in group.examples)),
                )
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
            terminal.table(
                (*_heads(title, quotes), "similarity"),
                (
                    (*_named(it.examples, words.references(it), quotes), f"{it.similarity:.3f}")
                    for it in groups
                ),
            )
    if quotes is not None and quotes.said and (data.label_errors or data.conflicts or full):
        terminal.say(quotes.said)
    if not full and data.probable_label_errors > _SHOWN_FINDINGS:
        rest = data.probable_label_errors - _SHOWN_FINDINGS
        terminal.say(f"… and {rest:,} more whose labels are worth a second look; --full shows all")


def _heads(title: str, quotes: Quotes | None) -> tuple[str, ...]:
    """The heads of the columns that name examples."""
    return (title,) if quotes is None or quotes.reason else (title, "from")


def _named(examples: Sequence[ExampleRef], ids: str, quotes: Quotes | None) -> tuple[str, ...]:
    """What the examples are and where they came from, where they may be read; else their ids."""
    if quotes is None or quotes.reason:
        return (ids,)
    found = [quotes.of(it.id) for it in examples]
    texts = dict.fromkeys(cut(words.printable(" ".join(it.text.split())), _ROOM) for it in found if it.text)
    origins = dict.fromkeys(it.origin for it in found if it.origin)
    if not texts:
        return (", ".join(origins) or ids, "")
    return (" | ".join(texts), ", ".join(origins) or ids)


def _tunings(terminal: Terminal, report: Report) -> None:
    """What tuning was tried, kept and dropped, and what it cost."""
    if rows := [words.tuning(it) for it in words.tunings(report)]:
        terminal.table(words.TUNING_COLUMNS, rows)


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
