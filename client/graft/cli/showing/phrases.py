"""What the command line says, in words: events, figures, targets and answers."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

from graft._data_files.refused import RowsRead
from graft._progress.words import doing
from graft._records.adapting.told import Event
from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.reports import Report
from graft._records.inputs.label_cells import cell_of
from graft._records.predicting.predictions import Prediction
from graft._records.stored_examples import StoredExample
from graft._report import words
from graft.cli.showing.live import live_then
from graft.cli.showing.spoken import spoken

_SHOWN_LINES: Final = 10


def describe(event: Event) -> str:
    """An event in words."""
    match event.kind:
        case "rejected":
            first = event.rejected[0] if event.rejected else None
            return f"{len(event.rejected):,} examples refused" + (
                f"; {spoken(first.detail)}" if first else ""
            )
        case "published":
            stayed = f"; {why}" if (why := live_then(event)) else ""
            return f"{_published(event)} (commit {event.commit_id}){stayed}"
        case "publication_failed":
            return f"commit {event.commit_id} led to no version: {spoken(str(event.error))}"
        case "state":
            return f"the adaptation is {event.state}"
        case "progress" if event.progress is not None:
            return doing(event.progress)
        case _:
            return (
                f"{event.kind} (commit {event.commit_id})"
                if event.commit_id
                else event.kind or "unknown event"
            )


def _published(event: Event) -> str:
    """A version, in words."""
    extension = event.extension
    if extension is not None and event.version == extension.base_version:
        return f"nothing new: version {event.version} stays"
    figure = f", {words.in_short(event.report)}" if event.report else ""
    return f"published version {event.version}{figure}{f', extends {extension}' if extension else ''}"


def report_facts(report: Report) -> dict[str, str]:
    """What there is to know of a version, by name."""
    held_out = f", {report.validation_examples:,} held out" if report.validation_examples else ""
    head = report.head
    classes = f" of {report.classes:,} classes" if report.regression is None else ""
    facts = {
        "trained on": f"{report.examples:,} examples{classes}{held_out}",
        **({"cut off": words.truncated(report)} if report.truncated_examples else {}),
        "measured by": words.measured(report),
        **figures(report),
        **({"look-alikes apart": words.look_alikes(report.look_alikes)} if report.look_alikes else {}),
        "head": words.head(head.kind, head.view, head.settings),
        "backbone": f"{report.backbone} ({report.method})",
        "training took": f"{report.training_duration_s:.2f} s",
    }
    if report.novelty is not None:
        facts["abstains"] = words.novelty(report.novelty)
    if report.data is not None:
        facts["data"] = words.findings(report.data, report.task)
    if report.unlabelled is not None:
        facts["unlabelled"] = words.unlabelled(report.unlabelled)
    for point in report.learning_curve.forecasts if report.learning_curve else ():
        facts[f"with {point.examples:,} examples"] = f"{words.measure(report)} about {words.forecast(point)}"
    return facts


TRAINING_EXAMPLES_MISSING: Final = (
    "examples that the version was trained on were erased since, or cannot be read: rows that equal them are not left "
    "out, and the figures may be too good"
)


def evaluation_facts(result: EvaluationResult, lines: Sequence[int]) -> dict[str, str]:
    """What there is to know of an evaluation, by name; `lines` are those of the examples, by their index."""
    facts = {"evaluated": words.plural(result.examples, "example") if result.examples else "no example"}
    if result.trained_on_count:
        places = lines_of(result.trained_on, result.trained_on_count, lines)
        facts["left out"] = (
            f"{words.plural(result.trained_on_count, 'example')} that the version was trained on, or copies of them: "
            f"{places}"
        )
    return {**facts, **figures(result)} if result.examples else facts


def why_nothing(result: EvaluationResult, unread: int) -> str:
    """Why nothing was evaluated, and what to do; `unread` rows could not be read."""
    refused = result.rejected_count + unread
    if not result.trained_on_count:
        return "there are no examples" if not refused else f"all {refused:,} examples were refused"
    trained = f"the version was trained on all {words.plural(result.trained_on_count, 'example')}, or on copies of them"
    return f"{trained}{f', beside {refused:,} that were refused' if refused else ''}; give others"


def lines_of(indices: Sequence[int], count: int, lines: Sequence[int]) -> str:
    """The lines, rows or files of the first examples of a kind, by their indices, of which there are `count`."""
    unit = lines.unit if isinstance(lines, RowsRead) else "line"
    name = lines.place if isinstance(lines, RowsRead) and unit == "file" else str
    shown = [name(lines[it]) for it in indices[:_SHOWN_LINES]]
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return f"{unit}{'s' if count > 1 else ''} {', '.join(shown)}{more}"


def figures(of: Report | EvaluationResult) -> dict[str, str]:
    """What a task is measured by."""
    if of.regression is not None:
        numbers = of.regression
        if not words.stated(of):
            return {"explains": words.NOT_STATED}
        return {
            "off by": f"{words.figure_as('.4g', numbers.mae)} on average, {words.figure_as('.4g', numbers.rmse)} root "
            "mean square",
            "explains": f"{words.percent(numbers.r2)} of the variance (R²)",
            "intervals": f"hold {words.percent(numbers.coverage)} of the truth, "
            f"meant to hold {numbers.confidence:.0%}; {words.figure_as('.4g', numbers.interval_width)} wide on average",
            "values": f"{numbers.mean:.4g} ± {numbers.deviation:.4g}",
        }
    if not words.stated(of):
        return {"accuracy": words.accuracy(of)}
    figures = {
        "accuracy": words.accuracy(of),
        "macro-F1": words.percent(of.macro_f1),
        "log-loss": f"{words.figure_as('.3f', of.log_loss)} nats",
        "calibration error": words.percent(of.calibration_error),
    }
    if of.multi_label is not None:
        labels = of.multi_label
        figures["accuracy"] += " of whole sets of labels"
        figures["micro-F1"] = words.percent(labels.micro_f1)
        figures["decisions wrong"] = f"{words.percent(labels.hamming_loss)} (Hamming loss)"
        figures["labels each"] = (
            f"{words.figure_as('.2f', labels.selected_per_example)} selected, {labels.labels_per_example:.2f} carried"
        )
    return figures


def target(example: StoredExample) -> str:
    """What an example should be answered with, whatever its task."""
    if example.labels is not None:
        return cell_of(example.labels)
    if example.value is not None:
        return f"{example.value:.6g}"
    if example.distribution is not None:
        return ", ".join(f"{label} {share:.2f}" for label, share in example.distribution.items())
    return example.label or ""


def answer(prediction: Prediction, digits: int = 3) -> tuple[str, str, str]:
    """An answer, how sure it is, and what else it could be."""
    if prediction.value is not None:
        return f"{prediction.value:.6g}", f"{prediction.low:.6g} to {prediction.high:.6g}", ""
    chosen = prediction.labels
    single = not any(score.selected is not None for score in prediction.scores)
    if single:
        others = prediction.scores[1:3]
        sure = [f"{prediction.probability:.{digits}f}"]
    else:
        others = tuple(score for score in prediction.scores if not score.selected)[:2]
        sure = [f"{score.probability:.{digits}f}" for score in prediction.scores if score.selected]
    rest = ", ".join(f"{score.label} {score.probability:.2f}" for score in others)
    return ",".join(chosen) if single else cell_of(chosen), ",".join(sure), rest


_ESCAPES: Final = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_SEPARATORS: Final = re.compile("[\\\\\t-\r\x1c-\x1e\x85\u2028\u2029\0]")
"""What ends a line or a cell, for some program, and the character that escapes it."""


def escaped(cell: str) -> str:
    """A cell of a line: tabs, line separators and backslashes as escapes, which Python's literals have, too."""
    return _SEPARATORS.sub(lambda it: _ESCAPES.get(it[0]) or _code(it[0]), cell)


def _code(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def remarks(prediction: Prediction) -> str:
    """What to mind about an answer."""
    remarks = []
    if prediction.abstained:
        remarks.append(f"abstained: unlike the training data (novelty {prediction.novelty:.3f})")
    if prediction.truncated:
        remarks.append("truncated: the end was cut off")
    return ", ".join(remarks)


def versions(numbers: Sequence[int]) -> str:
    """Versions by their numbers."""
    *others, last = map(str, numbers)
    return f"versions {', '.join(others)} and {last}" if others else f"version {last}"


def moment(time_: dt.datetime | None) -> str:
    """A time to the minute, without the year where that is the present one; empty where it is unknown."""
    if time_ is None:
        return ""
    here = time_.astimezone()
    present = here.year == dt.datetime.now(tz=here.tzinfo).year
    return here.strftime("%m-%d %H:%M" if present else "%Y-%m-%d %H:%M")


def time(time_: dt.datetime | None) -> str:
    """A time, where the command runs; empty where it is unknown."""
    return time_.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time_ else ""
