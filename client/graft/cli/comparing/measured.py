"""Two versions that were measured on the same examples, for people and as a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graft._data_files.refused import RowsRead
from graft._records.evaluation.comparisons import AnswerChange, Comparison, Difference
from graft._records.inputs.examples import Example, TextPair
from graft._report import words
from graft.cli.showing import phrases

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_CLASSES: Final = 20
_CELL: Final = 36
_ORDER: Final = ("broken", "farther", "mended", "nearer", "other")
"""What is shown first."""


def sentence(found: Comparison) -> str:
    """What the comparison says, in one sentence."""
    versions = f"versions {found.first} and {found.second}"
    if not found.examples:
        return f"nothing was compared: no example is left on which {versions} can be measured"
    these = words.plural(found.examples, "example")
    difference = found.difference
    if not found.changes:
        return f"{versions} answer all {these} alike"
    if difference is None or found.examples < words.LEAST_EXAMPLES:
        return (
            f"{these} are too few to tell {versions} apart: "
            f"{found.mended} answers are better in {found.second}, {found.broken} in {found.first}"
        )
    figure = of_difference(difference, found.figure)
    if not difference.sure:
        return f"these {these} do not tell {versions} apart: {figure}"
    better = (difference.value > 0) != (found.figure != "accuracy")
    return f"version {found.second} is {'better' if better else 'worse'} than {found.first} on these {these}: {figure}"


def of_difference(difference: Difference, figure: str) -> str:
    """A difference with its interval."""
    if figure == "accuracy":
        value, low, high = (f"{100 * it:+z.1f}" for it in (difference.value, difference.low, difference.high))
        return f"{value} points of accuracy, 95% between {low} and {high}"
    off = f"off by {words.number(abs(difference.value))} {'more' if difference.value > 0 else 'less'} on average"
    return f"{off}, 95% between {words.number(difference.low)} and {words.number(difference.high)}"


def show(
    terminal: Terminal,
    found: Comparison,
    examples: Sequence[Example],
    rows: RowsRead,
    *,
    most: int,
    written: bool = False,
) -> None:
    """Shows a comparison: the sentence, the figures, and the first answers that changed.

    Args:
        terminal: Where.
        found: The comparison.
        examples: The examples.
        rows: The lines of the examples.
        most: So many changed answers are shown.
        written: Whether all of them are written to a file anyway.
    """
    terminal.line(f"{sentence(found)}.")
    terminal.facts(_facts(found, rows))
    if found.per_class and found.changes:
        _show_classes(terminal, found)
    shown = sorted(found.changes, key=lambda it: _ORDER.index(it.kind))[:most]
    if shown:
        terminal.table(
            (rows.unit, "input", "is", f"{found.first} says", f"{found.second} says", ""),
            (
                (
                    rows[it.index],
                    _cut(input_text(examples[it.index])),
                    _cut(it.truth),
                    _cut(it.first),
                    _cut(it.second),
                    it.kind,
                )
                for it in shown
            ),
        )
    if len(found.changes) > len(shown):
        where = "" if written else "; --output FILE writes all of them"
        terminal.say(f"… and {len(found.changes) - len(shown):,} more answers that changed{where}")
    for label in found.unknown_labels[:3]:
        terminal.found("warning", f"a version does not know the label {label!r}: it is wrong there")
    if found.training_examples_missing:
        terminal.found("warning", phrases.TRAINING_EXAMPLES_MISSING)


def _facts(found: Comparison, rows: RowsRead) -> dict[str, str]:
    facts: dict[str, str] = {}
    if found.examples:
        for version, figure, at in (
            (found.first, found.first_figure, 0),
            (found.second, found.second_figure, 1),
        ):
            facts[f"version {version}"] = _figure(found, figure, at)
        if found.difference is not None:
            facts["interval by"] = found.difference.method
        if (f1 := found.micro_f1_difference) is not None:
            value, low, high = (f"{100 * it:+z.1f}" for it in (f1.value, f1.low, f1.high))
            facts["micro-F1"] = f"{value} points, 95% between {low} and {high} ({f1.method})"
        facts["changed answers"] = _changed(found)
    facts |= _left_out(found, rows)
    return facts


def _figure(found: Comparison, figure: float, at: int) -> str:
    if found.task == "regression":
        return f"off by {words.number(figure)} on average"
    micro = f", micro-F1 {words.percent(found.micro_f1[at])}" if found.micro_f1 is not None else ""
    whole = " of whole sets of labels" if found.task == "multi_label" else ""
    return f"accuracy {words.percent(figure)}{whole}{micro}"


def _changed(found: Comparison) -> str:
    other = len(found.changes) - found.mended - found.broken
    better, worse = ("nearer", "farther") if found.task == "regression" else ("mended", "broken")
    rest = f", {other:,} from one wrong answer to another" if other else ""
    return f"{len(found.changes):,}: {found.mended:,} {better}, {found.broken:,} {worse}{rest}"


def _left_out(found: Comparison, rows: RowsRead) -> dict[str, str]:
    both = {*found.trained_on_first, *found.trained_on_second}
    kinds = {
        f"version {found.first} was trained on {{}}": found.trained_on_first,
        f"version {found.second} was trained on {{}}": found.trained_on_second,
        "of a missing target": found.unlabelled,
        "a version could not answer {}": found.unanswered,
    }
    if found.trained_on_first == found.trained_on_second:
        kinds = {"both versions were trained on {}": tuple(sorted(both)), **dict(list(kinds.items())[2:])}
    said = [
        f"{words.plural(len(places), 'example')}, because {why.format('it' if len(places) == 1 else 'them')}: "
        f"{phrases.lines_of(places, len(places), rows)}"
        for why, places in kinds.items()
        if places
    ]
    return {"left out": "; ".join(said)} if said else {}


def _show_classes(terminal: Terminal, found: Comparison) -> None:
    changed = [it for it in found.per_class if it.first_right != it.second_right]
    if changed:
        terminal.table(
            ("label", "examples", f"right by {found.first}", f"by {found.second}"),
            ((it.label, it.examples, it.first_right, it.second_right) for it in changed[:_CLASSES]),
        )
        if len(changed) > _CLASSES:
            terminal.say(f"… and {len(changed) - _CLASSES:,} labels that changed less")


def write_changes(path: Path, found: Comparison, examples: Sequence[Example], rows: RowsRead) -> None:
    """Writes the answers that changed as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = (rows.unit, "text", "label", f"version_{found.first}", f"version_{found.second}", "change")
        writer.writerow(names)
        writer.writerows(_cells(it, examples, rows) for it in found.changes)


def _cells(change: AnswerChange, examples: Sequence[Example], rows: RowsRead) -> tuple[object, ...]:
    text = input_text(examples[change.index])
    place = rows.place(rows[change.index]) if rows.unit == "file" else rows[change.index]
    return (place, text, change.truth, change.first, change.second, change.kind)


def input_text(example: Example) -> str:
    """How an input is shown: its text, or its file's name."""
    value = example.input
    if isinstance(value, TextPair):
        return f"{value.first} | {value.second}"
    return f"({len(value):,} bytes)" if isinstance(value, bytes) else str(value)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
