"""How true a report's forecasts are: python -m benchmarks.heads.forecasts [--draws 10].

The learning curve of a part of the examples is asked for the accuracy at 1.5, 2 and 4 times as many, and what
doubling the examples of single classes would gain. Then the hidden examples are added, and both are measured on
inputs of the same source that neither saw. All heads are logistic regression at one strength on the pooled view.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Texts, banking77, clinc150
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, featured
from benchmarks.heads.measure import hardware, training_set
from graft_server.domain.report import LearningCurve
from graft_server.domain.views import POOLED
from graft_server.training.examples.folded import examples_of
from graft_server.training.reporting.learning_curve import FORECASTS, STRENGTH, learning_curve
from graft_server.training.search.candidates import LogisticTrials
from graft_server.training.search.search import Search
from graft_server.training.solvers import logistic

SETS: dict[str, Callable[[], Texts]] = {"banking77": banking77, "clinc150": clinc150}
CELLS = (("banking77", 4), ("banking77", 8), ("clinc150", 4))
"""Sets and examples per class that the forecast is made from; there are four times as many of every class."""
ADVISED = {("banking77", 8): 4}
"""Cells and draws whose advice is followed: five classes a draw."""
UNSEEN = 4000
"""So many inputs the truth is measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    chosen = parser.parse_args()
    forecasts: dict[str, list[Any]] = {}
    advice: dict[str, list[Any]] = {}
    for name, size in CELLS:
        data = featured(SETS[name]())
        cell = f"{name}/{size}"
        for seed in range(chosen.draws):
            part = Part(data, size, seed)
            forecasts.setdefault(cell, []).append(_kept(f"forecast-{name}-{size}-{seed}", part.forecasts))
        for seed in range(min(chosen.draws, ADVISED.get((name, size), 0))):
            advice.setdefault(cell, []).extend(
                _kept(f"advice-{name}-{size}-{seed}", Part(data, size, seed).advice)
            )
        _write(forecasts, advice)


def _kept(name: str, measure: Callable[[], list[dict[str, float]]]) -> Any:
    path = CACHE / f"{name}.json"
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

    def forecasts(self) -> list[dict[str, float]]:
        """Of each forecast, what it says and what came true."""
        unseen = self._unseen()
        points = zip(FORECASTS, self._curve().forecasts, strict=True)
        return [
            {
                "accuracy": point.accuracy,
                "low": point.low,
                "high": point.high,
                "found": self._right(self._first(times), *unseen).mean(),
            }
            for times, point in points
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
        left = np.setdiff1d(np.arange(len(labels)), self._first(max(FORECASTS)))
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


def _write(forecasts: dict[str, list[Any]], advice: dict[str, list[Any]]) -> None:
    lines = [
        "# Forecasts beside what came true",
        "",
        f"Measured on {hardware()}. Accuracies in points, means over draws; intervals are stated to hold 80%.",
        "",
        "| set / per class | times the examples | draws | forecast | found | intervals' width | they hold |",
        "|---|---|---|---|---|---|---|",
    ]
    held: list[bool] = []
    for name, draws in forecasts.items():
        for i, times in enumerate(FORECASTS):
            points = [draw[i] for draw in draws]
            inside = [point["low"] <= point["found"] <= point["high"] for point in points]
            held += inside
            width = 100 * np.mean([point["high"] - point["low"] for point in points])
            lines.append(
                f"| {name} | {times:g} | {len(draws)} | {_mean(points, 'accuracy'):.1f} | {_mean(points, 'found'):.1f} "
                f"| {width:.1f} | {np.mean(inside):.0%} |"
            )
    lines += ["", f"All intervals together hold {np.mean(held):.0%}.", ""]
    lines += [
        "What doubling the examples of single classes gains, those that a report advises, one at a time:",
        "",
    ]
    lines += [
        "| set / per class | classes | recall, forecast | recall, found | accuracy over all classes, found |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name, classes in advice.items():
        lines.append(
            f"| {name} | {len(classes)} | {_mean(classes, 'gain'):.1f} ({_mean(classes, 'low'):.1f} to "
            f"{_mean(classes, 'high'):.1f}) | {_mean(classes, 'recall'):.1f} ± {_error(classes, 'recall'):.1f} "
            f"| {_mean(classes, 'accuracy'):.2f} ± {_error(classes, 'accuracy'):.2f} |"
        )
    save("heads-forecasts", lines, {"forecasts": forecasts, "advice": advice})
    print("\n".join(lines), flush=True)


def _mean(values: list[dict[str, float]], key: str) -> float:
    return float(100 * np.mean([value[key] for value in values]))


def _error(values: list[dict[str, float]], key: str) -> float:
    """The standard error of the mean."""
    return float(100 * np.std([value[key] for value in values]) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
