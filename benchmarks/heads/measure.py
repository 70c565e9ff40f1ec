"""What one selection is worth on a test set, beside what a user would write by hand on the same features."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.heads.features import Featured, Views
from graft_server.domain.report import Candidate
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.heads import ABSTAIN_ABOVE
from graft_server.training.examples.folded import examples_of
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.data_quality import doubts
from graft_server.training.search.candidates import LogisticTrials, Measure, Problem, kernel, prototypes
from graft_server.training.search.search import Search
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.task import Selection

VIEWS = ("pooled", "layer3")


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of a head on the test set, shares from 0 to 1."""

    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    false_alarms: float
    """Test inputs that the head abstains on."""
    auroc: float
    """Of novelty, between test inputs and foreign ones; 0 without any."""
    best_single: float
    """Accuracy of the best of prototypes, logistic and kernel regression in the same view."""
    reported_accuracy: float
    seconds: float
    cpu_seconds: float
    kind: str
    view: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """scikit-learn's logistic regression, C=10, on the pooled features."""

    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    auroc: float
    """Of minus the largest logit."""
    seconds: float


def training_set(
    data: Featured, rows: NDArray[np.int64], *, labels: NDArray[np.int32] | None = None
) -> ClassifiedSet:
    """The rows as a training set, with other labels perhaps."""
    texts = data.texts
    return ClassifiedSet(
        classes=texts.classes,
        descriptions=("",) * len(texts.classes),
        labels=texts.train_labels[rows] if labels is None else labels,
        weights=np.ones(len(rows)),
        validation=np.zeros(len(rows), bool),
        groups=rows.astype(np.int64),
        ids=tuple(str(row) for row in rows),
        origins=tuple(("", int(row)) for row in rows),
        input_digests=tuple(texts.train[row].encode() for row in rows),
        features={view: data.train[view][rows] for view in VIEWS if view in data.train},
        label_features={view: data.names[view] for view in VIEWS} if data.names else None,
    )


def measured(data: Featured, rows: NDArray[np.int64]) -> tuple[Measured, Selection]:
    """Selects a head on the rows and measures it on the test set."""
    train = training_set(data, rows)
    wall, cpu = time.perf_counter(), time.process_time()
    selection = select_single_label(train, seed=0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    head = selection.head
    output = head.scores(_features(data.test, head.view))
    labels = data.texts.test_labels
    found = figures.figures(output.probabilities, labels, np.ones(len(labels)))
    foreign = head.scores(_features(data.foreign, head.view)).novelty if data.foreign else None
    return (
        Measured(
            found.accuracy,
            found.macro_f1,
            found.log_loss,
            found.calibration_error,
            float((output.novelty > ABSTAIN_ABOVE).mean()),
            0.0 if foreign is None else auroc(output.novelty, foreign),
            max(_single_accuracies(data, train, head.view, selection.report.head.candidates)),
            selection.report.accuracy,
            wall,
            cpu,
            head.kind,
            head.view,
        ),
        selection,
    )


def _single_accuracies(
    data: Featured, train: ClassifiedSet, view: str, candidates: Sequence[Candidate]
) -> list[float]:
    """Test accuracies of each kind alone, at its best settings."""
    settings: dict[str, float] = {}
    for candidate in reversed(candidates):
        if "+" not in candidate.kind:
            settings |= candidate.settings
    k = len(train.classes)
    features, labels, weights = stacked(train.features, view), train.labels, train.weights
    if settings.pop("label_names") and train.label_features is not None:
        features = np.concatenate([features, stacked(train.label_features, view)])
        labels = np.append(labels, np.arange(k, dtype=np.int32))
        weights = np.append(weights, np.ones(k))
    n = len(labels)
    # One fold that nothing is held out of: only the fit on all rows is wanted.
    problem = Problem(view, features, labels, weights, k, np.zeros(n, np.int32), 1, 0)
    measure = Measure(np.zeros(n, bool), labels, weights)
    test = _features(data.test, view)
    accuracies = []
    for trial in (
        prototypes(problem, measure),
        LogisticTrials(problem, measure).trial(settings["C"]),
        kernel(problem, measure, settings["ridge"]),
    ):
        logits = trial.fit()[0].map.logits(test)
        accuracies.append(float((logits.argmax(axis=1) == data.texts.test_labels).mean()))
    return accuracies


def baseline(data: Featured, rows: NDArray[np.int64]) -> Baseline:
    """What a user would write: LogisticRegression(C=10) on the pooled features."""
    start = time.perf_counter()
    model = LogisticRegression(C=10, max_iter=1000).fit(
        data.train["pooled"][rows].astype(np.float32), data.texts.train_labels[rows]
    )
    seconds = time.perf_counter() - start
    test = data.test["pooled"].astype(np.float32)
    labels = data.texts.test_labels
    found = figures.figures(model.predict_proba(test).astype(np.float32), labels, np.ones(len(labels)))
    novelty = 0.0
    if data.foreign:
        foreign = data.foreign["pooled"].astype(np.float32)
        novelty = auroc(
            -model.decision_function(test).max(axis=1), -model.decision_function(foreign).max(axis=1)
        )
    return Baseline(
        found.accuracy,
        found.macro_f1,
        found.log_loss,
        found.calibration_error,
        auroc=novelty,
        seconds=seconds,
    )


def from_scratch(data: Featured, rows: NDArray[np.int64]) -> float:
    """Accuracy of TF-IDF (words and pairs) with logistic regression, which knows nothing but the rows."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit([data.texts.train[row] for row in rows], data.texts.train_labels[rows])
    return float(model.score(list(data.texts.test), data.texts.test_labels))


def planted_errors(data: Featured, share: float, seed: int) -> float:
    """Of as many most doubtful labels as were flipped, the share that were."""
    labels = data.texts.train_labels
    rng = np.random.default_rng(seed)
    flipped = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    shift = rng.integers(1, len(data.texts.classes), len(flipped))
    wrong[flipped] = (labels[flipped] + shift) % len(data.texts.classes)
    train = training_set(data, np.arange(len(labels)), labels=wrong)
    examples = examples_of(train, np.arange(len(train)), seed)
    chosen = Search(examples).best()[0].trial
    doubt = doubts(examples, chosen.probabilities)
    suspects = np.argsort(-doubt, kind="stable")[: len(flipped)]
    return float(np.isin(suspects, flipped).mean())


def auroc(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """The chance that an outside value is above an inside one, ties counting half."""
    ranks = rankdata(np.concatenate([inside, outside]))
    wins = ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    return float(wins / (len(inside) * len(outside)))


def _features(views: Views, view: str) -> NDArray[np.float32]:
    return stacked(views, view).astype(np.float32)


def hardware() -> str:
    """What the figures were measured on."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    return f"{_processor()}, {os.cpu_count()} cores, OPENBLAS_NUM_THREADS {threads}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next(
        (line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), ""
    )
