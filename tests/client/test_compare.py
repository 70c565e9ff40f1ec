"""`graft compare`: which of two versions is better, how sure that is, and what changes."""

from __future__ import annotations

import asyncio
import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graft
from graft._client.comparing import Side, compared, require_comparable
from graft._records.evaluation.comparisons import Difference
from graft._records.evaluation.paired import of_proportions, of_sums, wilson
from graft._records.records import Version
from graft.cli import main
from graft.cli.comparing.measured import of_difference, sentence


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says() -> None:
    generator = random.Random(3)  # noqa: S311
    shares = (0.62, 0.08, 0.16, 0.14)
    held = 0
    for _ in range(2_000):
        drawn = generator.choices(range(4), shares, k=120)
        found = of_proportions(*(drawn.count(it) for it in range(4)))
        held += found.low <= shares[2] - shares[1] <= found.high
    assert 0.94 <= held / 2_000 <= 0.97


def test_the_interval_turns_round_with_the_versions_and_knows_its_edges() -> None:
    found, turned = of_proportions(70, 4, 15, 11), of_proportions(70, 15, 4, 11)
    assert found.value == pytest.approx(0.11)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert found.sure
    alike = of_proportions(10, 0, 0, 0)
    assert (alike.value, alike.sure) == (0.0, False)
    assert -1 <= of_proportions(0, 5, 0, 0).low <= of_proportions(0, 5, 0, 0).high <= 0
    # Without a correlation between them, it is the hybrid interval of two shares.
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = [0.5, -1.0, 2.0, 0.25, 3.0, -0.75]
    found = of_sums([(it, 1.0) for it in values], lambda sums: sums[0] / sums[1])
    mean = sum(values) / 6
    error = (sum((it - mean) ** 2 for it in values) / 5 / 6) ** 0.5
    assert found.value == pytest.approx(mean)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error)


def side(number: int, task: str, answers: list[Any], *, trained_on: tuple[int, ...] = ()) -> Side:
    """What a version says: labels, sets of labels, numbers, or errors."""
    labels = sorted({label for it in answers if isinstance(it, str | set) for label in it})
    version = object.__new__(Version)
    for name, value in {
        "model": "m",
        "version": number,
        "task": task,
        "labels": tuple(graft.Label(it) for it in labels),
    }.items():
        object.__setattr__(version, name, value)
    return Side(version, [prediction(it) for it in answers], frozenset(trained_on), incomplete=False)


def prediction(answer: Any) -> graft.Prediction:
    scores: tuple[graft.Score, ...] = ()
    if isinstance(answer, str):
        scores = (graft.Score(answer, 0.5),)
    elif isinstance(answer, set):
        scores = tuple(graft.Score(it, 0.9, it in answer) for it in ("a", "b", "c"))
    error = answer if isinstance(answer, graft.GraftError) else None
    value = answer if isinstance(answer, float) else None
    return graft.Prediction(scores, False, 0.0, False, (), error, 1, value)


def test_only_what_both_can_be_measured_on_counts() -> None:
    examples = [graft.Example("t", it) for it in ("a", "b", "a", "b", "a", None, "b")]
    gone = graft.InvalidArgumentError("no")
    found = compared(
        examples,
        side(4, "single_label", ["a", "a", "b", "b", gone, "a", "a"], trained_on=(3,)),
        side(5, "single_label", ["a", "b", "c", "b", "a", "a", "a"], trained_on=(0,)),
    )
    assert (found.examples, found.first_figure, found.second_figure) == (3, 0.0, pytest.approx(1 / 3))
    assert (found.trained_on_first, found.trained_on_second) == ((3,), (0,))
    assert (found.unlabelled, found.unanswered) == ((5,), (4,))
    assert [(it.index, it.truth, it.first, it.second, it.kind) for it in found.changes] == [
        (1, "b", "a", "b", "mended"),
        (2, "a", "b", "c", "other"),
    ]
    assert [(it.label, it.examples, it.first_right, it.second_right) for it in found.per_class] == [
        ("b", 2, 0, 1),
        ("a", 1, 0, 0),
    ]
    assert "3 examples are too few to tell versions 4 and 5 apart: 1 answers are better in 5" in sentence(
        found
    )


def test_sets_of_labels_numbers_and_weights_are_compared() -> None:
    truth = [{"a"}, {"a", "b"}, set(), {"c"}] * 10
    examples = [graft.Example("t", labels=it) for it in truth]
    found = compared(
        examples,
        side(1, "multi_label", [{"a"}, {"a"}, {"c"}, {"c"}] * 10),
        side(2, "multi_label", [{"a"}, {"a", "b"}, {"c"}, {"c"}] * 10),
    )
    assert (found.first_figure, found.second_figure) == (0.5, 0.75)
    assert found.micro_f1 == (pytest.approx(2 * 30 / 80), pytest.approx(2 * 40 / 90))
    assert found.micro_f1_difference is not None
    assert found.micro_f1_difference.value == pytest.approx(80 / 90 - 60 / 80)
    assert found.changes[0].first == "a"
    assert found.changes[0].second == "a,b"
    numbers = [float(it) for it in range(20)]
    found = compared(
        [graft.Example("t", value=it) for it in numbers],
        side(1, "regression", [it + 2.0 for it in numbers]),
        side(2, "regression", [it + (1.0, -1.5)[int(it) % 2] for it in numbers]),
    )
    assert (found.first_figure, found.second_figure) == (2.0, 1.25)
    assert sentence(found) == (
        "version 2 is better than 1 on these 20 examples: off by 0.75 less on average, 95% between -0.862 and -0.638"
    )
    weighted = [graft.Example("t", "a", weight=3.0), graft.Example("t", "a")]
    found = compared(weighted, side(1, "single_label", ["a", "b"]), side(2, "single_label", ["b", "a"]))
    assert (found.first_figure, found.second_figure) == (0.75, 0.25)
    with pytest.raises(graft.FailedPreconditionError, match="answers with single-label, version 2 with reg"):
        require_comparable(side(1, "single_label", []).version, side(2, "regression", []).version)


@pytest.fixture(scope="module")
def model(server: Any) -> str:
    """A model whose second version knows better what "door" means, and one label more."""
    name = "compare/two"
    texts = {"lock": "the lock is stuck", "bill": "my bill is wrong"}
    rows = [
        graft.Example(f"{text} {n}", label, id=f"{label}{n}")
        for n in range(8)
        for label, text in texts.items()
    ]
    more = [graft.Example(f"the door of the station {n}", "door", id=f"door{n}") for n in range(8)]
    with graft.Client(server.target) as client:
        client.adapt(name, rows)
        changed = [graft.Example("my bill is wrong 0", "lock", id="bill0"), *rows[2:], *more]
        client.adapt(name, changed)
    return name


@pytest.fixture
def compare(server: Any, model: str) -> Callable[..., int]:
    return lambda *words: main(["compare", model, *map(str, words), "--server", server.target])


def test_two_versions_are_measured_on_the_same_rows(
    compare: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[f"a door at station {n} is broken", "door"] for n in range(20)]
    rows += [[f"is the lock stuck, number {n}?", "lock"] for n in range(10)]
    rows += [["the lock is stuck 3", "lock"], ["the door of the station 2", "door"], ["", "lock"]]
    with (tmp_path / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *rows])
    out = tmp_path / "changes.csv"
    assert compare("1", "latest", tmp_path / "test.csv", "--output", out) == 0
    said = capsys.readouterr()
    assert said.out.startswith("version 2 is better than 1 on these 30 examples: +")
    assert "line 33, because" not in said.out
    facts = " ".join(said.out.split())
    assert "1 example, because version 1 was trained on it: line 32" in facts or (
        "because version 2 was trained on them: lines 32, 33" in facts
    )
    with out.open(newline="") as file:
        changes = list(csv.DictReader(file))
    assert len(changes) >= 20
    assert changes[0] == {
        "line": "2",
        "text": rows[0][0],
        "label": "door",
        "version_1": changes[0]["version_1"],
        "version_2": "door",
        "change": "mended",
    }
    assert compare("1", "2", tmp_path / "test.csv", "--output", out) == 1  # it is there
    assert compare("live", "1", tmp_path / "test.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["first"], found["second"], found["examples"]) == (2, 1, 30)
    assert found["sentence"].startswith("version 1 is worse than 2")
    assert found["lines"][0] == 2


def test_two_reports_say_what_differs_and_what_cannot_be_compared(
    compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("1", "live") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "examples 8 added, 1 removed, 1 relabelled, 14 the same" in said
    assert "labels added door" in said
    assert "The figures cannot be set side by side: each was measured on its own examples" in said
    assert "graft compare compare/two 1 2 FILE" in said
    assert compare("1", "1") == 1
    assert compare("1", "no-alias") == 1
    assert "'no-alias' is no version of compare/two: give a number, or one of latest, live" in (
        capsys.readouterr().err
    )
    assert compare("1", "2", "--output", "changes.csv") == 1


def test_an_evaluation_names_all_that_was_trained_on_where_it_is_asked(server: Any, model: str) -> None:
    rows = [("the lock is stuck 3", "lock")] * 120 + [("a door at the station", "door")]
    with graft.Client(server.target) as client:
        assert client.evaluate(model, rows).trained_on == tuple(range(100))
        assert client.evaluate(model, rows, all_places=True).trained_on == tuple(range(120))

    async def named() -> tuple[int, ...]:
        async with graft.AsyncClient(server.target) as client:
            return (await client.evaluate(model, rows, all_places=True)).trained_on

    assert asyncio.run(named()) == tuple(range(120))


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    said = of_difference(Difference(-0.0003, -0.002, 0.001, "by hand"), "accuracy")
    assert said == "+0.0 points of accuracy, 95% between -0.2 and +0.1"
