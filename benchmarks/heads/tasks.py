"""One label, several labels, and a value, on GoEmotions: python -m benchmarks.heads.tasks [--draws 5].

Beside what a user would write by hand on the same pooled features with scikit-learn: LogisticRegression(C=10), one
for each label where there are several of them, and Ridge(alpha=1). The value is how pleasant the emotions of a
comment are: 1 for each positive and -1 for each negative one, after the data set's own grouping (Demszky et al. 2020,
table 1), 0 for the others, averaged. Raw figures are kept in the cache and not measured again; delete its
`tasks-ours-*.json` after changing the code that it measures here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from sklearn.multiclass import OneVsRestClassifier

from benchmarks.datasets import LabelledSets, goemotions_sets, goemotions_single
from benchmarks.harness import save
from benchmarks.heads.features import CACHE, Featured, Views, featured
from benchmarks.heads.measure import VIEWS, hardware, training_set
from graft_server.domain.report import HeadChoice
from graft_server.domain.views import stacked
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.task import Selection

POSITIVE = (
    "admiration", "amusement", "approval", "caring", "desire", "excitement", "gratitude", "joy", "love",
    "optimism", "pride", "relief",
)  # fmt: skip
NEGATIVE = (
    "anger", "annoyance", "disappointment", "disapproval", "disgust", "embarrassment", "fear", "grief",
    "nervousness", "remorse", "sadness",
)  # fmt: skip
FEW = 1000
"""Rows of a draw; besides, all rows."""
Figures = dict[str, Any]
Rows = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help=f"draws of {FEW:,} rows (default: 5)")
    draws = parser.parse_args().draws
    found: dict[str, list[dict[str, Any]]] = {}
    for name, task in TASKS.items():
        data = featured(task.texts())
        for size in (FEW, 0):
            for seed in range(draws if size else 1):
                rows = _rows(len(data.train["pooled"]), size, seed)
                cell = {
                    whose: _kept(f"{whose}-{name}-{size}-{seed}", measure, data, rows)
                    for whose, measure in (("ours", task.ours), ("baseline", task.baseline))
                }
                found.setdefault(f"{name}, {size or len(rows):,} rows", []).append(cell)
            _write(found)


def _rows(n: int, size: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).permutation(n)[: size or n]
    return np.sort(rows)


def _kept(name: str, measure: Callable[[Any, Rows], Figures], data: Any, rows: Rows) -> Any:
    path = CACHE / f"tasks-{name}.json"
    if not path.exists():
        start = time.perf_counter()
        figures = measure(data, rows)
        path.write_text(json.dumps({**figures, "seconds": time.perf_counter() - start}), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _one_label(data: Featured, rows: Rows) -> Figures:
    selection = select_single_label(training_set(data, rows), seed=0)
    output = selection.head.scores(_of(data.test, selection.head.view))
    return _of_answers(output.probabilities.argmax(axis=1), data.texts.test_labels) | _chosen(selection)


def _one_label_baseline(data: Featured, rows: Rows) -> Figures:
    model = LogisticRegression(C=10, max_iter=1000)
    model.fit(_of(data.train, "pooled", rows), data.texts.train_labels[rows])
    return _of_answers(model.predict(_of(data.test, "pooled")), data.texts.test_labels)


def _several_labels(data: Any, rows: Rows) -> Figures:
    texts: LabelledSets = data.texts
    train = MultiLabelSet(
        classes=texts.classes,
        descriptions=("",) * len(texts.classes),
        targets=texts.train_targets[rows],
        label_features={view: data.names[view] for view in VIEWS},
        **plain_of(data, rows),
    )
    selection = select_multi_label(train, seed=0)
    output = selection.head.scores(_of(data.test, selection.head.view))
    return _of_sets(output.selected, texts.test_targets) | _chosen(selection)


def _several_labels_baseline(data: Any, rows: Rows) -> Figures:
    texts: LabelledSets = data.texts
    model = OneVsRestClassifier(LogisticRegression(C=10, max_iter=1000))
    model.fit(_of(data.train, "pooled", rows), texts.train_targets[rows].astype(int))
    return _of_sets(model.predict(_of(data.test, "pooled")).astype(bool), texts.test_targets)


def _value(data: Any, rows: Rows) -> Figures:
    values = valence(data.texts.classes, data.texts.train_targets[rows])
    selection = select_regression(RegressionSet(values=values, **plain_of(data, rows)), seed=0)
    output = selection.head.scores(_of(data.test, selection.head.view))
    truth = valence(data.texts.classes, data.texts.test_targets)
    within = (output.low <= truth) & (truth <= output.high)
    return {"R²": float(r2_score(truth, output.value)), "interval": float(within.mean())} | _chosen(selection)


def _value_baseline(data: Any, rows: Rows) -> Figures:
    model = Ridge(alpha=1.0)
    model.fit(_of(data.train, "pooled", rows), valence(data.texts.classes, data.texts.train_targets[rows]))
    truth = valence(data.texts.classes, data.texts.test_targets)
    return {"R²": float(r2_score(truth, model.predict(_of(data.test, "pooled"))))}


@dataclass(frozen=True, slots=True)
class Task:
    """One way to read GoEmotions."""

    texts: Callable[[], Any]
    ours: Callable[[Any, Rows], Figures]
    baseline: Callable[[Any, Rows], Figures]


TASKS = {
    "one label": Task(goemotions_single, _one_label, _one_label_baseline),
    "several labels": Task(goemotions_sets, _several_labels, _several_labels_baseline),
    "value": Task(goemotions_sets, _value, _value_baseline),
}


def valence(classes: tuple[str, ...], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How pleasant sets of emotions are, shape (n,), -1 to 1; targets has shape (n, k)."""
    of_class = np.array([(name in POSITIVE) - float(name in NEGATIVE) for name in classes])
    return np.asarray(targets @ of_class / np.maximum(targets.sum(axis=1), 1), np.float64)


def plain_of(data: Any, rows: Rows) -> dict[str, Any]:
    """What every set of some training rows has."""
    return {
        "weights": np.ones(len(rows)),
        "validation": np.zeros(len(rows), bool),
        "groups": rows,
        "ids": tuple(str(row) for row in rows),
        "origins": tuple(("", int(row)) for row in rows),
        "input_digests": tuple(data.texts.train[row].encode() for row in rows),
        "features": {view: data.train[view][rows] for view in VIEWS},
    }


def _of(views: Views, view: str, rows: Rows | None = None) -> NDArray[np.float32]:
    features = stacked(views, view)
    return (features if rows is None else features[rows]).astype(np.float32)


def _of_answers(answers: NDArray[Any], labels: NDArray[np.int32]) -> Figures:
    """For one label each, micro-F1 is accuracy."""
    accuracy = float((answers == labels).mean())
    macro = float(f1_score(labels, answers, average="macro", zero_division=0))
    return {"accuracy": accuracy, "macro-F1": macro, "micro-F1": accuracy}


def _of_sets(selected: NDArray[np.bool_], targets: NDArray[np.bool_]) -> Figures:
    return {
        "accuracy": float((selected == targets).all(axis=1).mean()),
        "macro-F1": float(f1_score(targets, selected, average="macro", zero_division=0)),
        "micro-F1": float(f1_score(targets, selected, average="micro", zero_division=0)),
    }


def _chosen(selection: Selection) -> dict[str, Any]:
    choice: HeadChoice = selection.report.head
    return {"head": f"{choice.kind} on {choice.view}"}


def _write(found: Mapping[str, list[dict[str, Any]]]) -> None:
    lines = [
        "# One label, several labels, and a value",
        "",
        f"GoEmotions, measured on {hardware()}.",
        "Figures on the test set in points, means over draws; beside scikit-learn on the same pooled features:",
        "LogisticRegression(C=10), for several labels one each (one-vs-rest), and Ridge(alpha=1) for the value, which",
        "is how pleasant the emotions are, -1 to 1. Accuracy of several labels is the share of exact sets.",
        "`python -m benchmarks.heads.tasks`",
        "",
        "| task | draws | figure | Graft | scikit-learn | heads |",
        "|---|---|---|---|---|---|",
    ]
    for name, cells in found.items():
        heads = ", ".join(sorted({cell["ours"]["head"] for cell in cells}))
        for figure in (key for key in cells[0]["baseline"] if key != "seconds"):
            ours, baseline = (
                100 * float(np.mean([cell[whose][figure] for cell in cells]))
                for whose in ("ours", "baseline")
            )
            lines.append(f"| {name} | {len(cells)} | {figure} | **{ours:.1f}** | {baseline:.1f} | {heads} |")
    save("heads-tasks", lines, found)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
