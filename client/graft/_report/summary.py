"""The top of the report page: which version it is, how good in a sentence, and the figures of its task."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from graft._records.evaluation.evaluations import EvaluationResult
from graft._records.evaluation.reports import MultiLabelFigures, RegressionFigures, Report
from graft._report import markup, words


def header(report: Report, aliases: Sequence[str] = ()) -> str:
    """The version's name, aliases, training and figure in a sentence."""
    tags = "".join(
        f' <span class="tag{" live" if alias == "live" else ""}">{escape(alias)}</span>' for alias in aliases
    )
    trained = f"Trained {report.trained_time:%d %B %Y, %H:%M} UTC" if report.trained_time else "Trained"
    by = (
        f"{trained} in {report.training_duration_s:.1f} s on the backbone {report.backbone} ({report.method})"
    )
    return (
        f"<header><h1>{named(report.model, report.version)}{tags}</h1>"
        f'<p class="by">{escape(by)}</p><p class="lead">{_lead(report)}</p></header>\n'
    )


def named(model: str, version: int) -> str:
    """A version by its model's name and its number, as markup; "Report" where the name is not known."""
    return f'{markup.name(model)} <span class="soft">version {version}</span>' if model else "Report"


def _lead(report: Report) -> str:
    if not words.stated(report):
        return "There were too few examples to measure how good this version is."
    said = f"{_in_short(report)}, measured "
    if report.evaluation == "held_out":
        said += f"on {words.plural(report.evaluated_examples, 'example')} held out from training."
    else:
        said += f"on {report.evaluated_examples:,} examples by cross-validation in {report.evaluation_folds} folds."
    forecasts = report.learning_curve.forecasts if report.learning_curve else ()
    ahead = next((point for point in forecasts if point.examples >= 2 * report.examples), None)
    if ahead is None:
        return said
    if ahead.accuracy < (words.figure(report) or 0.0) + words.LEAST_GAIN:
        return f"{said} More examples of the same kind are not expected to change that much."
    twice = {
        "single_label": "twice the examples of every class",
        "multi_label": "twice the examples of every label",
        "regression": "twice the examples",
    }[report.task]
    return f"{said} With {twice}, expect {escape(words.forecast(ahead))}."


def _in_short(report: Report) -> str:
    if report.regression is not None:
        numbers = report.regression
        return (
            f"It explains <strong>{words.percent(numbers.r2)}</strong> of the values' variance and is off by "
            f"{words.number(numbers.mae)} on average"
        )
    if report.multi_label is not None:
        return (
            f"Its decisions about labels have a micro-F1 of <strong>{words.percent(report.multi_label.micro_f1)}"
            "</strong>"
        )
    low, high = report.accuracy_low, report.accuracy_high
    interval = f" (95% interval {words.interval(low, high)})" if high is not None else ""
    return f"<strong>{words.percent(report.accuracy)}</strong>{interval} of its answers are right"


def tiles(report: Report) -> str:
    """The figures that the task is measured by, the first of them first."""
    if report.regression is not None:
        return row_of_tiles(_number_tiles(report, report.regression))
    if report.multi_label is not None:
        return row_of_tiles(_set_tiles(report, report.multi_label))
    return row_of_tiles(_label_tiles(report))


def _number_tiles(report: Report, numbers: RegressionFigures) -> list[tuple[str, str, str]]:
    meant = f"meant to hold {numbers.confidence:.0%}"
    known = numbers.interval_width is not None
    width = f"{words.number(numbers.interval_width)} wide on average; {meant}" if known else meant
    return [
        ("Explained", words.percent(numbers.r2), "of the variance (R²)"),
        ("Mean error", words.number(numbers.mae), "absolute"),
        ("RMSE", words.number(numbers.rmse), "root mean square error"),
        ("Intervals hold", words.percent(numbers.coverage), width),
        ("Values", words.number(numbers.mean), f"mean; standard deviation {words.number(numbers.deviation)}"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
    ]


def _set_tiles(report: Report, labels: MultiLabelFigures) -> list[tuple[str, str, str]]:
    selected = labels.selected_per_example
    each = f"{labels.labels_per_example:.2f} an example"
    each += "" if selected is None else f", {selected:.2f} selected"
    return [
        ("Micro-F1", words.percent(labels.micro_f1), "every decision counts the same"),
        ("Macro-F1", words.percent(report.macro_f1), "every label counts the same"),
        (
            "Sets right",
            words.percent(report.accuracy),
            _interval(report, "exactly the right labels"),
        ),
        ("Calibration error", words.percent(report.calibration_error), "lower is better"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
        ("Labels", f"{report.classes:,}", each),
    ]


def _held_out(report: Report) -> str:
    return f"and {report.validation_examples:,} held out" if report.validation_examples else "trained on"


def _interval(report: Report | EvaluationResult, what: str) -> str:
    """What a tile's figure counts, and the figure's 95% interval where it is known."""
    if report.accuracy_high is None:
        return what
    return f"{what}; 95% interval {words.interval(report.accuracy_low, report.accuracy_high)}"


def _label_tiles(report: Report) -> list[tuple[str, str, str]]:
    counts = [entry.examples for entry in report.per_class]
    each = f"{min(counts):,} to {max(counts):,} examples each" if counts else ""
    if counts and min(counts) == max(counts):
        each = f"{words.plural(counts[0], 'example')} each"
    return [
        (
            "Accuracy",
            words.percent(report.accuracy),
            _interval(report, "of answers are right"),
        ),
        ("Macro-F1", words.percent(report.macro_f1), "every class counts the same"),
        ("Calibration error", words.percent(report.calibration_error), "lower is better"),
        ("Log-loss", words.figure_as(".3f", report.log_loss), "nats; lower is better"),
        ("Examples", f"{report.examples:,}", _held_out(report)),
        ("Classes", f"{report.classes:,}", each),
    ]


def evaluated(result: EvaluationResult) -> str:
    """The figures of an evaluation."""
    if (numbers := result.regression) is not None:
        return row_of_tiles(
            [
                ("Explained", words.percent(numbers.r2), "of the variance (R²)"),
                ("Mean error", words.figure_as(".4g", numbers.mae), "absolute"),
                ("RMSE", words.figure_as(".4g", numbers.rmse), "root mean square error"),
                (
                    "Intervals hold",
                    words.percent(numbers.coverage),
                    f"meant to hold {numbers.confidence:.0%}",
                ),
            ]
        )
    first = ("Accuracy", words.percent(result.accuracy), _interval(result, "of answers are right"))
    if result.multi_label is not None:
        first = ("Micro-F1", words.percent(result.multi_label.micro_f1), "every decision counts the same")
    return row_of_tiles(
        [
            first,
            ("Macro-F1", words.percent(result.macro_f1), "every class counts the same"),
            ("Calibration error", words.percent(result.calibration_error), "lower is better"),
            ("Log-loss", words.figure_as(".3f", result.log_loss), "nats; lower is better"),
        ]
    )


def row_of_tiles(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Figures side by side: of each the name, the value and a note."""
    # The words do not fit where a figure stands in large print.
    tiles = [
        (name, "–", value) if value == words.NOT_MEASURED else (name, value, note)
        for name, value, note in tiles
    ]
    cells = "".join(
        f'<dl class="tile{" first" if name == tiles[0][0] else ""}"><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></dl>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>\n'
