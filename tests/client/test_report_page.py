"""The page that `graft report --html` writes: what is on it, what is not, and that nothing breaks out of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import html.parser
import io
import random
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import graft
from graft._records.evaluation.report_messages import report_of
from graft._records.evaluation.reports import LabelCount, SimilarLabels
from graft._report import charts, words
from graft._report.page import page
from graft._report.quality import confusion_grid
from graft._report.thumbnails import shown_content
from graft.cli.showing import phrases
from graft.cli.showing.reports import show_report
from graft.cli.showing.terminal import Terminal
from graft.v1 import report_pb2, types_pb2

PLOTS = (
    "Accuracy over training examples", "Accuracy over confidence", "Confusion matrix",
    "Training examples on a plane",
)  # fmt: skip
VOID = {"meta", "wbr", "img"}


class Reader(html.parser.HTMLParser):
    """Which elements and texts a page has; fails where they are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.plots: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        self.plots += [value for name, value in attributes if name == "aria-label" and value]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def report(classes: int = 12, names: list[str] | None = None) -> graft.Report:
    """A report in which everything is filled in, made from random numbers."""
    rng = random.Random(1)  # noqa: S311
    labels = names or [f"class_{number}" for number in range(classes)]
    message = report_pb2.Report(
        examples=10 * len(labels), classes=len(labels), accuracy=0.8137, macro_f1=0.7941, log_loss=0.6543,
        calibration_error=0.0321, accuracy_low=0.7302, accuracy_high=0.8799,
        warnings=["2 classes have fewer than 5 examples: <a> & <b>."],
        backbone="minilm", encoder_id="abcdef", seed=7,
    )  # fmt: skip
    message.evaluation.method = report_pb2.EVALUATION_METHOD_CROSS_VALIDATION
    message.evaluation.folds, message.evaluation.examples = 5, 10 * len(labels)
    message.head.kind, message.head.view, message.head.temperature = "logistic", "pooled", 0.731
    message.head.settings["C"] = 10
    for kind, strength, loss in (("logistic", 10, 0.6543), ("kernel", 3, 0.7001)):
        message.head.candidates.add(
            kind=kind, view="pooled", settings={"C": strength}, log_loss=loss, accuracy=0.8
        )
    for label in labels:
        message.per_class.add(
            label=label, examples=10, support=10, precision=rng.random(), recall=0.8, f1=rng.random()
        )
        wrong = rng.choice(labels)
        if wrong != label:
            message.confusions.add(label=label, predicted=wrong, count=rng.randint(1, 2))
        for _ in range(5):
            message.feature_map.add(x=rng.gauss(0, 1), y=rng.gauss(0, 1), label=label, id=f"{label}/1")
    for number in range(15):
        message.reliability.add(examples=number, confidence=(number + 0.5) / 15, accuracy=number / 15)
    message.novelty.threshold, message.novelty.false_alarm_rate = 0.95, 0.05
    first = report_pb2.ExampleRef(id="w/3", writer_id="w", sequence=3, label=labels[0])
    second = report_pb2.ExampleRef(id="own-id", writer_id="w", sequence=4, label=labels[1])
    data = message.data
    data.exact_duplicates, data.near_duplicates, data.conflicting_inputs = 11, 1, 1
    data.duplicate_groups.add(examples=[first, first], count=12, similarity=1)
    data.near_duplicate_pairs.add(examples=[first, second], count=2, similarity=0.987)
    data.conflicts.add(examples=[first, second], count=2, similarity=1)
    data.label_errors.add(
        example=second, suggested=labels[0], probability=0.0123, suggested_probability=0.9441
    )
    curve = message.learning_curve
    for share, accuracy in ((0.25, 0.6), (0.5, 0.7), (1, 0.8)):
        size = round(10 * len(labels) * share)
        curve.points.add(examples=size, accuracy=accuracy, low=accuracy - 0.05, high=accuracy + 0.05)
    curve.forecasts.add(examples=20 * len(labels), accuracy=0.8543, low=0.8312, high=0.8765)
    curve.advice.add(label=labels[1], more_examples=40, gain=0.083, low=0.021, high=0.155)
    curve.advice.add(label=labels[0], more_examples=40, gain=0.001, low=0, high=0.02)
    return report_of(message)


def sets_report(labels: int = 5) -> graft.Report:
    """A report on several labels in which everything is filled in."""
    rng = random.Random(2)  # noqa: S311
    message = report_pb2.Report(
        task=types_pb2.TASK_MULTI_LABEL, examples=80, classes=labels, accuracy=0.515, macro_f1=0.6123, log_loss=0.2,
        calibration_error=0.0123, backbone="minilm",
    )  # fmt: skip
    message.evaluation.method = report_pb2.EVALUATION_METHOD_CROSS_VALIDATION
    message.evaluation.folds, message.evaluation.examples = 5, 80
    message.multi_label.micro_f1, message.multi_label.hamming_loss = 0.7321, 0.081
    message.multi_label.labels_per_example, message.multi_label.selected_per_example = 1.25, 1.34
    message.head.kind, message.head.view = "logistic", "pooled"
    message.head.candidates.add(kind="logistic", view="pooled", log_loss=0.2, micro_f1=0.7321)
    for number in range(labels):
        message.per_class.add(
            label=f"topic_{number}", examples=20, support=20, precision=0.5, recall=rng.random(), f1=rng.random(),
            threshold=0.1 + 0.07 * number,
        )  # fmt: skip
        message.feature_map.add(x=number, y=rng.random(), label=f"topic_{number}, topic_0", id=f"id-{number}")
    message.feature_map.add(x=0.5, y=0.5, label="", id="bare")
    for number in range(15):
        message.reliability.add(
            examples=10 ** (number % 4), confidence=(number + 0.5) / 15, accuracy=number / 15
        )
    example = report_pb2.ExampleRef(id="own-id", writer_id="w", sequence=4, label="topic_1, topic_2")
    message.data.label_errors.add(
        example=example, suggested="", probability=0.0123, suggested_probability=0.9877
    )
    message.data.conflicts.add(examples=[example, example], count=2, similarity=1)
    message.data.conflicting_inputs = 1
    for size, figure in ((20, 0.5), (40, 0.6)):
        message.learning_curve.points.add(examples=size, accuracy=figure, low=figure, high=figure)
    message.learning_curve.forecasts.add(examples=160, accuracy=0.7654, low=0.75, high=0.78)
    message.learning_curve.advice.add(label="topic_1", more_examples=20, gain=0.08, low=0.02, high=0.15)
    return report_of(message)


def values_report(values: int = 60, unit: float = 1.0) -> graft.Report:
    """A report on numbers in which everything is filled in."""
    rng = random.Random(3)  # noqa: S311
    message = report_pb2.Report(task=types_pb2.TASK_REGRESSION, examples=values, backbone="minilm")
    message.evaluation.method = report_pb2.EVALUATION_METHOD_CROSS_VALIDATION
    message.evaluation.folds, message.evaluation.examples = 5, values
    numbers = message.regression
    numbers.rmse, numbers.mae, numbers.r2, numbers.confidence, numbers.coverage = 2.5, 1.75, 0.876, 0.9, 0.913
    numbers.interval_width, numbers.mean, numbers.deviation = 7.25, 41.5, 7.1
    message.head.kind, message.head.view = "ridge", "pooled"
    message.head.candidates.add(kind="ridge", view="pooled", rmse=2.5)
    for number in range(values):
        value = unit * rng.gauss(40, 7)
        predicted = value + unit * rng.gauss(0, 2)
        message.predicted_values.add(
            value=value,
            predicted=predicted,
            low=predicted - 3 * unit,
            high=predicted + 3 * unit,
            id=f"id-{number}",
        )
        message.feature_map.add(x=rng.random(), y=rng.random(), label=f"{value:g}", id=f"id-{number}")
    message.novelty.threshold, message.novelty.false_alarm_rate = 0.95, 0.05
    message.data.near_duplicates = 1
    for size, figure in ((20, 0.5), (40, 0.6)):
        message.learning_curve.points.add(examples=size, accuracy=figure, low=figure, high=figure)
    message.learning_curve.forecasts.add(examples=2 * values, accuracy=0.9012, low=0.75, high=0.95)
    return report_of(message)


def version(value: graft.Report, model: str = "support/intents") -> graft.Version:
    known: dict[str, Any] = dict.fromkeys((field.name for field in dataclasses.fields(graft.Version)), None)
    known.update(
        model=model, version=3, aliases=("live",), report=value, create_time=dt.datetime.now(tz=dt.UTC)
    )
    return graft.Version(**known)


@pytest.mark.parametrize("classes", [2, 3, 12, 77, 300])
def test_every_part_is_on_the_page(classes: int) -> None:
    read = Reader(page(version(report(classes))))
    assert sorted(read.plots) == sorted(PLOTS)
    for part in (
        "Before you rely on it", "Most worth labelling next", "When it abstains", "Most frequent confusions",
        "Labels worth a second look", "Inputs under several labels", "Exact duplicates", "Near duplicates",
        "Class by class", "The head",
    ):  # fmt: skip
        assert part in read.text


def test_the_numbers_are_those_of_the_report() -> None:
    value = report()
    text = Reader(page(version(value))).text
    for shown in (
        "81.4%", "79.4%", "3.2%", "0.654", "120", "5 folds", "logistic on pooled (C=10)", "0.731", "0.700",
        "85.4% (80% interval 83.1 to 87.6)", "+8 (2 to 16)", "40 more examples of class_1", "0.95",
        "own-id (w/4)", "1.2%", "94.4%", "w/3, w/3 and 10 more", "0.987", "Seed 7",
    ):  # fmt: skip
        assert shown in text
    for entry in value.per_class:
        for share in (entry.precision, entry.recall, entry.f1):
            assert words.percent(share) in text


def test_classes_come_worst_first() -> None:
    value = report(77)
    table = page(version(value)).partition("Class by class")[2].partition("</table>")[0].replace("<wbr>", "")
    worst = sorted(value.per_class, key=lambda entry: entry.f1)
    assert re.findall(r"<tr><td class=\"\"><bdi>(.*?)</bdi>", table) == [entry.label for entry in worst]


def test_the_page_loads_and_runs_nothing() -> None:
    text = page(version(report()))
    read = Reader(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(read.tags)
    assert not {"href", "src", "srcset", "data", "action"} & {name for name, _ in read.attributes}
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:",
    ) in read.attributes


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></svg><b>", "a & b's"]
)
def test_what_comes_from_outside_is_escaped(evil: str) -> None:
    value = report(names=[evil, f"other {evil}", "third"])
    harmless = report(names=["a", "b", "third"])
    head = dataclasses.replace(value.head, kind=evil, view=evil, settings={evil: 1.0})
    points = tuple(dataclasses.replace(point, id=evil) for point in value.feature_map)
    assert value.data is not None
    error = value.data.label_errors[0]
    error = dataclasses.replace(error, example=dataclasses.replace(error.example, id=evil, writer_id=evil))
    value = dataclasses.replace(
        value, head=head, feature_map=points, backbone=evil, encoder_id=evil, warnings=(evil,),
        data=dataclasses.replace(value.data, label_errors=(error,)),
    )  # fmt: skip
    read = Reader(page(version(value, model=evil)))
    assert set(read.tags) <= set(Reader(page(version(harmless))).tags) | {"wbr"}
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert evil in read.text


@pytest.mark.parametrize(
    ("left_out", "titles"),
    [
        ({"learning_curve": None}, ["What more examples would bring", "Most worth labelling"]),
        ({"reliability": ()}, ["How far to trust"]),
        ({"novelty": None}, ["When it abstains"]),
        ({"reliability": (), "novelty": None}, ["How far to trust", "When it abstains"]),
        ({"feature_map": ()}, ["How the examples lie"]),
        ({"data": None}, ["What the data shows", "Labels worth a second look"]),
        ({"warnings": ()}, ["Before you rely on it"]),
        ({"per_class": ()}, ["Class by class", "What it confuses"]),
        ({"confusions": ()}, ["Most frequent confusions"]),
    ],
)
def test_parts_that_the_report_does_not_have_are_left_out(
    left_out: dict[str, Any], titles: list[str]
) -> None:
    text = Reader(page(version(dataclasses.replace(report(), **left_out)))).text
    assert not [title for title in titles if title in text]
    assert "81.4%" in text


def test_a_report_without_figures_says_so() -> None:
    text = Reader(page(version(report_of(report_pb2.Report(examples=3, classes=2))))).text
    assert "too few examples to measure" in text
    assert "0.0%" not in text


def test_a_clean_data_set_is_said_to_be_clean() -> None:
    value = report()
    clean = report_of(report_pb2.Report(data=report_pb2.DataReport())).data
    text = Reader(page(version(dataclasses.replace(value, data=clean)))).text
    assert "No duplicates, no contradictions, no labels worth a second look." in text


def test_similar_labels_and_unlabelled_examples_are_told_with_their_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = report(3)
    similar = SimilarLabels((LabelCount("card", 20), LabelCount("ca\u200brd", 3)))
    clean = report_of(report_pb2.Report(data=report_pb2.DataReport())).data
    assert clean is not None
    data = dataclasses.replace(clean, similar_labels=(similar,), unlabelled_examples=7)
    text = Reader(page(version(dataclasses.replace(value, data=data)))).text
    assert "Similar labels" in text
    assert "'card' × 20, 'ca\\u200brd' × 3" in text
    assert "unlabelled examples" in text
    show_report(Terminal(), "m", 1, dataclasses.replace(value, data=data), full=True)
    told = capsys.readouterr().out
    assert "1 group of similar labels, 7 unlabelled examples" in told
    assert "'card' (20) and 'ca\\u200brd' (3)" in told


def test_the_matrix_has_the_most_confused_classes_and_its_rows_add_up() -> None:
    value = report(77)
    grid = confusion_grid(value)
    assert len(grid.labels) == 16
    first = value.confusions[0]
    assert {first.label, first.predicted} <= set(grid.labels)
    assert abs(grid.labels.index(first.label) - grid.labels.index(first.predicted)) <= 3
    for row in range(16):
        shares = [grid.share(row, column) for column in range(16)]
        assert sum(shares) + grid.other(row) == pytest.approx(1)
    assert set(confusion_grid(report(3)).labels) == {"class_0", "class_1", "class_2"}


def test_ticks_enclose_what_they_measure() -> None:
    for low, high in ((0.0, 1.0), (0.91, 0.912), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0), (0.123, 0.876)):
        ticks = charts.percent_ticks(low, high)
        assert ticks[0] <= low + 1e-9
        assert high - 1e-9 <= ticks[-1]
        assert ticks[0] < ticks[-1]
        assert ticks[0] >= 0
        assert ticks[-1] <= 1
        assert len(ticks) <= 8


def test_one_point_and_points_in_one_place_are_a_map() -> None:
    points = [graft.MapPoint(0.0, 0.0, "a", "1"), graft.MapPoint(0.0, 0.0, "b", "")]
    for some in (points[:1], points):
        assert "nan" not in charts.feature_map(some, ["a"])


def test_the_terminal_tells_findings_forecasts_and_advice() -> None:
    terminal = Terminal()
    terminal.out = Console(file=io.StringIO(), width=1000, highlight=False)
    value = report(names=["card_arrival", "[bold]", "third"])
    show_report(terminal, "m", 1, value, full=True)
    assert isinstance(terminal.out.file, io.StringIO)
    shown = terminal.out.file.getvalue()
    assert (
        "11 exact duplicates, 1 near duplicate, 1 input under several labels, 1 label worth a second look"
        in shown
    )
    assert "above a novelty of 0.95: about 5% of inputs like the training examples" in shown
    assert "about 85.4% (80% interval 83.1 to 87.6)" in shown
    assert (
        "about 40 more examples of [bold] would gain 8 points of its recall (80% interval 2 to 16)" in shown
    )
    assert shown.count("advice:") == 1
    assert re.search(r"own-id \(w/4\) +\[bold\] +card_arrival +94.4%", shown)


def test_examples_that_were_cut_off_are_counted_on_the_page_and_in_the_terminal() -> None:
    message = report_pb2.Report(examples=40, classes=2, accuracy=0.8, truncated_examples=13)
    message.evaluation.method = report_pb2.EVALUATION_METHOD_CROSS_VALIDATION
    message.per_class.add(label="long", examples=20, support=20, f1=0.5, truncated=13)
    message.per_class.add(label="short", examples=20, support=20, f1=0.5)
    text = Reader(page(version(report_of(message)))).text
    assert "Cut off" in text
    assert "longer than the backbone reads" in text
    terminal = Terminal()
    terminal.out = Console(file=io.StringIO(), width=1000, highlight=False)
    show_report(terminal, "m", 1, report_of(message), full=True)
    assert isinstance(terminal.out.file, io.StringIO)
    shown = terminal.out.file.getvalue()
    assert "the end of 13 examples (32.5%)" in shown
    assert re.search(r"long +20 +13 +20", shown)
    message.truncated_examples = message.per_class[0].truncated = 0
    assert "Cut off" not in Reader(page(version(report_of(message)))).text


@pytest.mark.parametrize("labels", [1, 5, 77])
def test_several_labels_have_their_thresholds_and_figures_on_the_page(labels: int) -> None:
    value = sets_report(labels)
    read = Reader(page(version(value)))
    assert sorted(read.plots) == [
        "Accuracy over confidence", "Micro-F1 over training examples", "Training examples on a plane",
    ]  # fmt: skip
    for shown in (
        "73.2%", "61.2%", "51.5%", "exactly the right labels", "1.25 an example, 1.34 selected", "Label by label",
        "Selected from", "76.5% (80% interval 75.0 to 78.0)", "twice the examples of every label", "no label",
        "Inputs under different labels", "Micro-F1 over all gains", "20 more examples of topic_1",
    ):  # fmt: skip
        assert shown in read.text
    table = page(version(value)).partition("Label by label")[2].partition("</table>")[0]
    for entry in value.per_class:
        assert f"{entry.threshold:.2f}" in table
    assert "What it confuses" not in read.text
    assert "every class" not in read.text


@pytest.mark.parametrize("unit", [1.0, 1e6, 1e-6, 0.0])
def test_numbers_have_their_predictions_and_residuals_on_the_page(unit: float) -> None:
    value = values_report(unit=unit)
    text = page(version(value))
    read = Reader(text)
    assert sorted(read.plots) == [
        "How far off values are", "Predicted over true values", "Training examples on a plane",
        "Variance explained over training examples",
    ]  # fmt: skip
    for shown in (
        "87.6%", "1.75", "2.5", "91.3%", "7.25 wide on average; meant to hold 90%", "41.5", "When it abstains",
        "90.1% (80% interval 75.0 to 95.0)", "With twice the examples, expect", "inputs with different values",
    ):  # fmt: skip
        assert shown in read.text
    assert "nan" not in text
    assert "worth a second look" not in read.text
    assert "Most worth labelling" not in read.text


def test_values_outside_of_their_intervals_are_listed_farthest_first() -> None:
    value = values_report()
    far = sorted(
        (one for one in value.predicted_values if abs(one.value - one.predicted) > 3),
        key=lambda one: -abs(one.value - one.predicted),
    )[:5]
    listed = page(version(value)).partition("Worth a second look")[2].partition("</table>")[0]
    assert far
    assert re.findall(r"<tr><td class=\"\"><bdi>(.*?)</bdi>", listed) == [one.id for one in far]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_values_are_drawn_all_the_same(count: int) -> None:
    assert "nan" not in page(version(values_report(count)))


def test_long_labels_are_told_apart_where_there_is_little_room() -> None:
    start = "support/customer feedback about a late order: "
    value = report(names=[f"{start}{kind}" for kind in ("angry", "calm", "pleased")])
    text = page(version(value)).replace("<wbr>", "")
    matrix = text.partition('aria-label="Confusion matrix"')[2].partition("</svg>")[0]
    for kind in ("angry", "calm", "pleased"):
        assert f">…{kind}</text>" in re.sub("<title>.*?</title>", "", matrix)
        assert f"{start}{kind}" in text.partition("Class by class")[2]  # the whole of it


def test_number_ticks_enclose_what_they_measure() -> None:
    for low, high in (
        (0.0, 1.0),
        (-3.0, 7.0),
        (41.2, 41.3),
        (5.0, 5.0),
        (0.0, 0.0),
        (-1e30, 1e30),
        (1e-9, 2e-9),
    ):
        ticks = charts.number_ticks(low, high)
        assert ticks[0] <= low + 1e-9 * abs(low)
        assert high - 1e-9 * abs(high) <= ticks[-1]
        assert 3 <= len(ticks) <= 9


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (41.5, "41.5"), (1234.5, "1,234"), (0.8234, "0.823"), (-3.0, "-3"), (1e30, "1e+30"), (2e-5, "2e-05"),
     (999_999.0, "999,999"), (120.0, "120")],
)  # fmt: skip
def test_numbers_are_shown_with_about_four_digits(value: float, shown: str) -> None:
    assert words.number(value) == shown


def test_an_accuracy_has_its_interval_beside_it_wherever_it_is_shown() -> None:
    value = report()
    shown = "81.4% (73.0 to 88.0)"
    assert phrases.report_facts(value)["accuracy"] == shown
    event = graft.Event(1, None, "published", version=2, commit_id="c", report=value)
    assert phrases.describe(event) == f"published version 2, accuracy {shown} (commit c)"
    assert "95% interval 73.0 to 88.0" in page(version(value))
    assert words.score(value, interval=True) == "81.4% (73-88)"


def printed(value: graft.Report) -> str:
    terminal = Terminal()
    terminal.out = terminal.err = Console(file=io.StringIO(), width=1000, highlight=False)
    show_report(terminal, "m", 1, value)
    assert isinstance(terminal.out.file, io.StringIO)
    return terminal.out.file.getvalue()


JPEG = b"\xff\xd8\xff" + bytes(9)


def quoted(*, text: str = "", content: bytes = b"", **more: Any) -> graft.Report:
    """A report in which label errors and conflicts are quoted alike."""
    found = report()
    assert found.data is not None
    ids = [it.example.id for it in found.data.label_errors]
    ids += [one.id for group in found.data.conflicts for one in group.examples]
    quote = graft.Quote(text, "data.csv:17", content)
    return dataclasses.replace(found, quotes=graft.Quotes(dict.fromkeys(ids, quote), **more))


def test_examples_are_quoted_on_the_page_and_in_the_terminal_with_where_they_came_from() -> None:
    evil = "<script>alert(1)</script> my\ncard"
    read = Reader(page(version(quoted(text=evil))))
    assert "script" not in read.tags
    assert evil in read.texts
    assert any("data.csv:17" in text for text in read.texts)
    shown = printed(quoted(text=evil))
    assert "<script>alert(1)</script> my card" in shown
    assert "data.csv:17" in shown
    assert "data.csv:17" not in printed(report())


@pytest.mark.parametrize(
    ("content", "tag", "source"),
    [
        (JPEG, "img", "data:image/jpeg;base64,"),
        (b"RIFF\0\0\0\0WAVE" + bytes(9), "audio", "data:audio/wav;base64,"),
        (JPEG + bytes(100_000), None, ""),  # too large, and no picture that could be made small
        (b"no picture", None, ""),
    ],
)
def test_small_pictures_and_clips_are_within_the_page(content: bytes, tag: str | None, source: str) -> None:
    read = Reader(page(version(quoted(content=content))))
    sources = [value for name, value in read.attributes if name == "src"]
    assert all(it.startswith(source) for it in sources)
    assert (tag in read.tags) == bool(sources) == (tag is not None)
    assert any("data.csv:17" in text for text in read.texts)


def test_a_large_picture_is_made_small() -> None:
    written = io.BytesIO()
    noise = np.random.default_rng(1).bytes(600 * 400 * 3)
    Image.frombytes("RGB", (600, 400), noise).save(written, "PNG")
    markup = shown_content(written.getvalue())
    assert markup.startswith('<img class="thumb"')
    assert len(markup) < 40_000


def test_what_cannot_be_quoted_is_said_and_ids_remain() -> None:
    for more, said in (
        ({"missing": 2}, "2 examples that are named were erased since"),
        ({"reason": "no permission"}, "cannot be read, so only their ids are shown: no permission"),
    ):
        plain = dataclasses.replace(report(), quotes=graft.Quotes(**more))
        assert any(said in text for text in Reader(page(version(plain))).texts)
        assert said in printed(plain)
        assert plain.data is not None
        assert plain.data.label_errors[0].example.id in printed(plain)


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_where_no_accuracy_is_stated_words_stand_in_its_place(task: str) -> None:
    message = report_pb2.Report(examples=4, classes=2, task=types_pb2.Task.Value(f"TASK_{task.upper()}"))
    message.head.kind = "logistic"
    message.head.candidates.add(kind="logistic", view="pooled", log_loss=0.1)
    if task == "regression":
        message.regression.SetInParent()
    if task == "multi_label":
        message.multi_label.SetInParent()
    value = report_of(message)
    terminal = Terminal()
    terminal.out = Console(file=io.StringIO(), width=1000, highlight=False)
    terminal.err = Console(file=terminal.out.file, width=1000, highlight=False)
    show_report(terminal, "m", 1, value, full=True)
    assert words.score(value, interval=True) == words.NOT_MEASURED
    terminal.outcome("m", graft.Outcome("c", version=1, report=value, error=None))
    told = terminal.out.file.getvalue() + phrases.describe(graft.Event(1, None, "published", report=value))
    shown = Reader("<body" + page(version(value)).partition("<body")[2].replace("</html>", "")).text
    assert told.count("not measured: too few examples") >= 3
    assert "too few examples to measure" in shown
    assert not re.search(r"\d\.\d%", told)
    assert not re.search(r"\d\.\d%", shown)


def test_the_terminal_names_the_figure_of_each_task() -> None:
    for value, shown in (
        (sets_report(), "micro-F1 about 76.5%"),
        (values_report(), "variance explained about 90.1%"),
        (report(), "accuracy about 85.4%"),
    ):
        terminal = Terminal()
        terminal.out = Console(file=io.StringIO(), width=1000, highlight=False)
        show_report(terminal, "m", 1, value, full=True)
        assert isinstance(terminal.out.file, io.StringIO)
        told = terminal.out.file.getvalue()
        assert shown in told
        assert ("selected from" in told) == (value.multi_label is not None)


def test_look_alikes_are_told_with_both_figures_on_the_page_and_in_the_terminal() -> None:
    value = report()
    group = graft.DuplicateGroup((graft.ExampleRef("frame<1>", "w", 1, "class_0"),) * 2, 5, 0.83)
    value = dataclasses.replace(
        value,
        look_alikes=graft.LookAlikes(30, 118, 0.6524, 0.6011, 0.7013, (group,)),
        warnings=("Accuracy is 81% on inputs like these, but 65% when whole groups are held out.",),
    )
    read = Reader(page(version(value)))
    assert "Look-alikes" in read.text
    assert "65.2% of the answers are right (95% interval 60.1 to 70.1)" in read.text
    assert "118 examples are in 30 groups" in read.text
    assert "frame<1>" in read.text
    assert "but 65% when whole groups are held out" in read.text
    terminal = Terminal()
    terminal.out = Console(file=io.StringIO(), width=1000, highlight=False)
    show_report(terminal, "m", 1, value)
    assert isinstance(terminal.out.file, io.StringIO)
    shown = terminal.out.file.getvalue()
    assert "65.2% (60.1 to 70.1); 118 examples in 30 groups" in shown
    assert "but 65% when whole groups are held out" in shown
    assert "Look-alikes" not in Reader(page(version(report()))).text
