"""Tuning the backbone on a few examples a class, over the wire: by contrast, and measured by cross-fitting."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from tests.conftest import DATA
from tests.scenarios.test_finetuning import Meanwhile, tuning_workers

import graft

ONE_LAYER = graft.FineTuning(unfrozen_layers=1, epochs=1)
KINDS = ("refund_status", "lost_item", "unlock_problem")


@pytest.fixture(scope="module")
def client(server) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture(scope="module")
def eight(intents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Eight examples of each of three labels."""
    return [row for kind in KINDS for row in [it for it in intents if it[1] == kind][:8]]


def test_eight_examples_a_class_are_tuned_by_contrast_and_each_is_measured_unseen(client, eight):
    result = client.adapt("tests/eight", eight, method="partial", fine_tuning=ONE_LAYER)
    report, tuning = result.report, result.report.tuning
    assert client.version(result.model, version=1).report.method == "frozen"
    assert (tuning.method, tuning.objective, tuning.ended) == ("partial", "contrastive", "done")
    assert (tuning.folds, tuning.measured, tuning.unfrozen_layers) == (4, len(eight), 1)
    assert tuning.kept == (tuning.tuned_log_loss < tuning.frozen_log_loss)
    assert report.method == ("partial" if tuning.kept else "frozen")
    assert report.evaluation == "cross_validation"
    texts = [text for text, _ in eight]
    answers = [it.label for it in client.predict(result.model, texts)]
    assert np.mean([found == label for found, (_, label) in zip(answers, eight, strict=True)]) > 0.9


ASKED = ("how", "why", "what", "can", "is")
"""First words of questions: what kind of an answer is asked for, whatever the topic."""


@pytest.fixture(scope="module")
def questions() -> dict[str, list[tuple[str, str]]]:
    """Customers' questions of Banking77 by what they ask: "train", 12 of each kind, and "test", 40."""
    path = DATA / "banking77" / "train.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open(newline="") as file:
        texts = list(dict.fromkeys(row["text"].strip() for row in csv.DictReader(file)))
    by_word = {word: [it for it in texts if it.lower().startswith(f"{word} ")] for word in ASKED}
    generator = np.random.default_rng(0)
    drawn = {word: generator.permutation(of)[:52].tolist() for word, of in by_word.items()}
    return {
        "train": [(text, word) for word, of in drawn.items() for text in of[:12]],
        "test": [(text, word) for word, of in drawn.items() for text in of[12:]],
    }


def accuracy(
    client: graft.Client, model: str, rows: list[tuple[str, str]], version: int | None = None
) -> float:
    answers = client.predict(model, [text for text, _ in rows], version=version)
    return float(np.mean([it.label == label for it, (_, label) in zip(answers, rows, strict=True)]))


@pytest.mark.slow
def test_auto_keeps_a_contrastive_tuning_where_meaning_is_not_topic(client, questions, tmp_path):
    model = "tests/asked"
    result = client.adapt(model, questions["train"], method="auto", time_budget=1200)
    report, tuning = result.report, result.report.tuning
    assert (result.version, report.method, tuning.kept, tuning.objective) == (2, "full", True, "contrastive")
    assert client.version(model, version=1).report.method == "frozen"
    before = accuracy(client, model, questions["test"], version=1)
    after = accuracy(client, model, questions["test"])
    assert after > before + 0.1
    assert report.accuracy == pytest.approx(after, abs=0.15)
    client.export(model, tmp_path)
    texts = [text for text, _ in questions["test"][:5]]
    command = [sys.executable, str(tmp_path / "predict.py"), *texts]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    answers = client.predict(model, texts)
    assert [line.split("\t")[0] for line in lines] == [it.label for it in answers]


@pytest.mark.slow
def test_auto_drops_it_where_labels_are_chance_and_says_what_it_tried(client, questions):
    texts = [text for text, _ in questions["train"]]
    labels = np.random.default_rng(0).permutation([label for _, label in questions["train"]]).tolist()
    rows = list(zip(texts, labels, strict=True))
    result = client.adapt("tests/chance", rows, method="auto", time_budget=1200, fine_tuning=ONE_LAYER)
    tuning = result.report.tuning
    assert (result.report.method, tuning.kept, tuning.objective) == ("frozen", False, "contrastive")
    assert tuning.ended in ("done", "no_gain")
    assert tuning.seconds > 0
    assert client.predict("tests/chance", texts[0])[0].label in ASKED


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_is_followed_by_one_that_goes_on(server, client, questions):
    killed: list[int] = []

    def kill() -> None:
        for pid in tuning_workers(server):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    result = client.adapt(
        "tests/few-killed", questions["train"], method="partial", on_progress=Meanwhile(kill),
        fine_tuning=graft.FineTuning(unfrozen_layers=2, epochs=8),
    )  # fmt: skip
    assert killed
    tuning = result.report.tuning
    assert (tuning.ended, tuning.folds, tuning.measured) == ("done", 4, len(questions["train"]))
    assert client.predict("tests/few-killed", questions["test"][0][0])[0].label in ASKED


@pytest.mark.slow
def test_a_budget_that_is_too_short_leaves_the_frozen_head_and_says_so(client, questions):
    result = client.adapt("tests/few-no-time", questions["train"], method="auto", time_budget=0.5)
    tuning = result.report.tuning
    assert (result.report.method, tuning.ended, tuning.objective) == ("frozen", "no_time", "contrastive")
    assert any("time_budget is too short" in it.text for it in result.report.advice)
