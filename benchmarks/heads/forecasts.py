"""How true a report's forecasts are: python -m benchmarks.heads.forecasts.

The report on a part of the examples forecasts its figure at 1.5, 2 and 4 times as many. Then the hidden examples are
added, a head is selected anew, and its figure is measured on examples of the same source that neither saw. What
doubling the examples of single classes gains is measured with logistic regression at one strength on the pooled view.

Raw figures are kept in the cache; delete its `forecasts/*-said.json` after changing the code that forecasts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import banking77
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.growing import SETS, Growing, forecasts_of
from benchmarks.heads.measure import hardware, training_set
from graft_server.domain.report import LearningCurve
from graft_server.domain.views import POOLED
from graft_server.training.examples.folded import examples_of
from graft_server.training.reporting.learning_curve import FORECASTS, STRENGTH, learning_curve
from graft_server.training.search.candidates import LogisticTrials
from graft_server.training.search.search import Search
from graft_server.training.solvers import logistic


@dataclass(frozen=True, slots=True)
class Cell:
    """Draws of a size from a set."""

    name: str
    size: int
    draws: int
    balanced: bool = False
    """Whether every class has about as many examples, rather than its natural share."""

    def __str__(self) -> str:
        return f"{self.name}, {self.size:,}{' balanced' if self.balanced else ''}"


CELLS = (
    Cell("banking77", 300, 4),
    Cell("banking77", 308, 3, balanced=True),
    Cell("banking77", 600, 4),
    Cell("banking77", 1500, 3),
    Cell("clinc150", 300, 3),
    Cell("clinc150", 600, 4),
    Cell("sms_spam", 40, 6),
    Cell("sms_spam", 80, 6),
    Cell("sms_spam", 250, 6),
    Cell("sms_spam", 500, 4),
    Cell("sms_spam", 800, 6),
    Cell("goemotions", 224, 4, balanced=True),
    Cell("goemotions", 300, 4),
    Cell("goemotions", 1000, 3),
    Cell("goemotions, several labels", 300, 3),
    Cell("goemotions, value", 300, 4),
    Cell("goemotions, value", 800, 3),
)
ADVISED = (("banking77", 8, 4),)
"""Sets, examples per class, and draws whose advice is followed: five classes a draw."""
TIMES = max(FORECASTS)
LEAST_FRESH = 400
FRESH = 6_000
UNSEEN = 4000
"""So many inputs the gain of advice is measured on."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    found: dict[str, list[list[dict[str, float]]]] = {}
    advice: dict[str, list[Any]] = {}
    name, data = "", None
    for cell in CELLS:
        if cell.name != name or data is None:
            name, data = cell.name, SETS[cell.name]()
        draws = [_compared(data, cell, seed) for seed in range(cell.draws)]
        found[str(cell)] = [draw for draw in draws if draw is not None]
        _write(found, advice)
    for name, size, count in ADVISED:
        texts = featured(banking77())
        for seed in range(count):
            advice.setdefault(f"{name}/{size}", []).extend(
                _kept(f"advice-{name}-{size}-{seed}", Part(texts, size, seed).advice)
            )
    _write(found, advice)


def _compared(data: Growing, cell: Cell, seed: int) -> list[dict[str, float]] | None:
    """Each forecast of a draw with what came true; None where the report has no forecasts."""
    order = data.order(seed, balanced=cell.balanced)
    name = f"forecasts/{cell.name}-{cell.size}-{seed}{'-bal' if cell.balanced else ''}"
    said = _kept(f"{name}-said", lambda: forecasts_of(data.select(order[: cell.size], seed).report))
    if said is None:
        return None
    rest = order[round(TIMES * cell.size) :]
    rest = rest[np.random.default_rng(1).permutation(len(rest))[:FRESH]]

    def truth() -> dict[str, float]:
        sizes = {times: round(times * cell.size) for times in FORECASTS}
        return {
            str(times): data.figure(data.select(order[:size], seed).head, rest)
            for times, size in sizes.items()
            if size + LEAST_FRESH <= len(order)
        }

    found = _kept(f"{name}-true", truth)
    return [
        {"times": times, **one, "found": found[str(times)]}
        for times, one in zip(FORECASTS, said, strict=True)
        if str(times) in found
    ]


def _kept(name: str, measure: Callable[[], Any]) -> Any:
    path = CACHE / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(measure()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


class Part:
    """A part of a set's examples, whose others are hidden."""

    def __init__(self, data: Featured, size: int, seed: int) -> None:
        self._data, self._size, self._seed = data, size, seed
        labels = data.texts.train_labels
        self._rng = np.random.default_rng(seed)
        self._order = [
            self._rng.permutation(np.flatnonzero(labels == label)) for label in range(len(data.texts.classes))
        ]

    def advice(self) -> list[dict[str, float]]:
        """Of each class that is advised, what doubling it should gain in its recall, and what it gains."""
        features, labels = self._unseen()
        before = self._right(self._first(1), features, labels)
        found = []
        for one in self._curve().advice:
            label = self._data.texts.classes.index(one.label)
            more = self._order[label][self._size : self._size + one.more_examples]
            after = self._right(np.concatenate([self._first(1), more]), features, labels)
            gained = after.astype(float) - before
            found.append(
                {
                    "gain": one.gain,
                    "low": one.low,
                    "high": one.high,
                    "recall": gained[labels == label].mean(),
                    "accuracy": gained.mean(),
                }
            )
        return found

    def _first(self, times: float) -> NDArray[np.int64]:
        return np.concatenate([rows[: round(self._size * times)] for rows in self._order])

    def _curve(self) -> LearningCurve:
        train = training_set(self._data, self._first(1))
        examples = examples_of(train, np.arange(len(train)), self._seed)
        problem, measure = Search(examples).problem(POOLED, False, np.arange(len(train)))
        trial = LogisticTrials(problem, measure).trial(STRENGTH)
        return learning_curve(problem, trial.logits.argmax(axis=1) == examples.labels, train.classes)[0]

    def _unseen(self) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        # Banking77 has too few examples of some classes to hold any back; its test set is of the same source.
        data, labels = self._data, self._data.texts.train_labels
        if data.texts.name == "banking77":
            return data.test[POOLED], data.texts.test_labels
        left = np.setdiff1d(np.arange(len(labels)), self._first(TIMES))
        left = self._rng.permutation(left)[:UNSEEN]
        return data.train[POOLED][left], labels[left]

    def _right(
        self, rows: NDArray[np.int64], features: NDArray[np.float16], labels: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        data = self._data
        axes = logistic.principal_axes(data.train[POOLED][rows].astype(np.float32))
        solution = logistic.fit(
            axes,
            data.texts.train_labels[rows],
            np.ones((1, len(rows)), np.float32),
            len(data.texts.classes),
            strength=STRENGTH,
            start=None,
        )
        logits = (features.astype(np.float32) - axes.centre) @ axes.rotation @ solution.weight[0]
        right: NDArray[np.bool_] = (logits + solution.bias[0]).argmax(axis=1) == labels
        return right


def _write(found: dict[str, list[list[dict[str, float]]]], advice: dict[str, list[Any]]) -> None:
    lines = [
        "# Forecasts beside what came true",
        "",
        f"Measured on {hardware()}. Figures in points (accuracy, micro-F1 of several labels, variance explained of the",
        "value), means over draws; intervals are stated to hold 80%. `python -m benchmarks.heads.forecasts`",
        "",
        "| set, examples | times the examples | draws | forecast | found | intervals' width | they hold |",
        "|---|---|---|---|---|---|---|",
    ]
    by_set: dict[str, list[bool]] = {}
    for name, draws in found.items():
        for times in FORECASTS:
            points = [point for draw in draws for point in draw if point["times"] == times]
            if not points:
                continue
            inside = [point["low"] <= point["found"] <= point["high"] for point in points]
            by_set.setdefault(name.rpartition(", ")[0], []).extend(inside)
            width = 100 * np.mean([point["high"] - point["low"] for point in points])
            lines.append(
                f"| {name} | {times:g} | {len(draws)} | {_mean(points, 'figure'):.1f} | {_mean(points, 'found'):.1f} "
                f"| {width:.1f} | {np.mean(inside):.0%} |"
            )
    held = [one for inside in by_set.values() for one in inside]
    lines += ["", f"All {len(held)} intervals together hold {np.mean(held):.0%}; by set:", ""]
    lines += [f"- {name}: {np.mean(inside):.0%} of {len(inside)}" for name, inside in by_set.items()]
    if advice:
        lines += ["", *_advice_lines(advice)]
    save("heads-forecasts", lines, {"forecasts": found, "advice": advice})
    print("\n".join(lines), flush=True)


def _advice_lines(advice: dict[str, list[Any]]) -> list[str]:
    lines = [
        "What doubling the examples of single classes gains, those that a report advises, one at a time:",
        "",
        "| set / per class | classes | recall, forecast | recall, found | accuracy over all classes, found |",
        "|---|---|---|---|---|",
    ]
    for name, classes in advice.items():
        lines.append(
            f"| {name} | {len(classes)} | {_mean(classes, 'gain'):.1f} ({_mean(classes, 'low'):.1f} to "
            f"{_mean(classes, 'high'):.1f}) | {_mean(classes, 'recall'):.1f} ± {_error(classes, 'recall'):.1f} "
            f"| {_mean(classes, 'accuracy'):.2f} ± {_error(classes, 'accuracy'):.2f} |"
        )
    return lines


def _mean(values: list[dict[str, float]], key: str) -> float:
    return float(100 * np.mean([value[key] for value in values]))


def _error(values: list[dict[str, float]], key: str) -> float:
    """The standard error of the mean."""
    return float(100 * np.std([value[key] for value in values]) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
