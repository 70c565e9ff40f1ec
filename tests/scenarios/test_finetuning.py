"""Tuning the backbone, over the wire."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import check_for_older_runtimes

import graft
from graft_server.training.tasks.single_label.noise import is_beyond_noise

SHORT = graft.FineTuning(unfrozen_layers=1, epochs=1)
UNLABELLED = ("is there a student discount?", "the app does not open on my phone")


@pytest.fixture(scope="module")
def client(server) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


@pytest.fixture(scope="module")
def partial(client: graft.Client, intents: list[tuple[str, str]]) -> graft.AdaptResult:
    """A version with two tuned layers, and two unlabelled examples; before it there is a frozen one."""
    rows = [*intents, *map(graft.Example, UNLABELLED)]
    return client.adapt("tests/partial", rows, method="partial", fine_tuning=graft.FineTuning(epochs=2))


def test_a_partial_version_answers_from_its_tuned_layers(client, partial, intents):
    texts = [text for text, _ in intents]
    frozen = client.adapt("tests/partial-frozen", intents, method="frozen")
    tuned = np.array([it.features for it in client.predict(partial.model, texts[:20], include_features=True)])
    other = np.array([it.features for it in client.predict(frozen.model, texts[:20], include_features=True)])
    assert np.abs(tuned - other).max() > 1e-3
    right = [
        it.label == label
        for it, (_, label) in zip(client.predict(partial.model, texts), intents, strict=True)
    ]
    assert np.mean(right) > 0.9


def test_its_report_says_what_tuning_did(partial):
    tuning = partial.report.tuning
    assert partial.version == 2
    assert (partial.report.method, partial.report.evaluation) == ("partial", "held_out")
    assert (tuning.method, tuning.kept, tuning.unfrozen_layers, tuning.layers) == ("partial", True, 2, 6)
    # Two layers of six, or what an adapter adds to them.
    share = tuning.bytes / tuning.full_bytes if tuning.rank else 1
    assert tuning.own_share == pytest.approx(share / 3)
    assert tuning.bytes < 1_000_000 if tuning.rank else tuning.bytes > 10_000_000
    assert [it.epoch for it in tuning.history] == [0, 0.5, 1, 1.5, 2, 2, 2, 2]
    assert partial.report.evaluated_examples == tuning.measured > 10


def test_its_bundle_is_one_graph_that_answers_as_the_server_does(client, partial, intents, tmp_path):
    texts = [text for text, _ in intents[:5]]
    client.export(partial.model, tmp_path)
    check_for_older_runtimes(tmp_path)
    command = [sys.executable, str(tmp_path / "predict.py"), *texts]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, served in zip(lines, client.predict(partial.model, texts), strict=True):
        label, probability, _ = line.split("\t")
        assert label == served.label
        assert float(probability) == pytest.approx(served.probability, abs=2e-4)


def test_tuned_and_frozen_models_are_asked_side_by_side(client, partial, few_model):
    models = [partial.model, few_model] * 20
    alone = {name: client.predict(name, "my bill is wrong")[0].scores for name in set(models)}
    with ThreadPoolExecutor(16) as executor:
        answers = executor.map(
            lambda name: (name, client.predict(name, "my bill is wrong")[0].scores), models
        )
    for name, scores in answers:
        assert [it.label for it in scores] == [it.label for it in alone[name]]
        np.testing.assert_allclose(
            [it.probability for it in scores], [it.probability for it in alone[name]], atol=1e-4
        )


def test_stored_examples_are_ranked_by_what_tuned_layers_make_of_them(client, partial, few):
    found = client.suggest(partial.model, [few[0][0]], stored=True, n=9)
    assert (found.version, found.candidates) == (partial.version, len(UNLABELLED) + 1)
    assert {it.input for it in found} <= {few[0][0], *UNLABELLED}


def test_another_server_serves_tuned_layers_from_the_store(server, serve, client, partial):
    before = client.predict(partial.model, "my bill is wrong")[0]
    with graft.Client(serve(store=server.store).target) as other:
        after = other.predict(partial.model, "my bill is wrong")[0]
        assert other.version(partial.model).report.method == "partial"
    assert after.probability == pytest.approx(before.probability, abs=1e-4)


@pytest.mark.slow
def test_auto_publishes_the_frozen_head_first_and_then_says_what_tuning_brought(client, intents):
    result = client.adapt("tests/auto", intents, method="auto", time_budget=600, fine_tuning=SHORT, seed=1)
    frozen = client.version("tests/auto", version=1)
    assert frozen.report.method == "frozen"
    by_objective = {it.objective: it for it in (result.report.tuning, *result.report.other_tunings)}
    contrastive, tuning = by_objective["contrastive"], by_objective["cross_entropy"]
    assert result.version == 2 + contrastive.kept
    assert (contrastive.folds > 0, tuning.folds) == (contrastive.measured > 0, 0)
    gain = tuning.frozen_log_loss - tuning.tuned_log_loss
    # As many gains with the mean and the standard error that the report has: of the true ones no more counts.
    spread = np.arange(tuning.measured) - (tuning.measured - 1) / 2
    gains = gain + spread * tuning.gain_error * np.sqrt(tuning.measured) / spread.std(ddof=1)
    better = is_beyond_noise(gains, np.ones(len(gains)), result.report.classes)
    assert contrastive.kept or tuning.kept == better
    assert result.report.method == ("partial" if contrastive.kept or tuning.kept else "frozen")


@pytest.mark.slow
def test_auto_tries_the_upper_layers_and_then_all(client, intents):
    fine_tuning = graft.FineTuning(epochs=1)
    result = client.adapt("tests/auto-both", intents, method="auto", time_budget=600, fine_tuning=fine_tuning)
    report = result.report
    tried = {(it.objective, it.method): it for it in (*report.other_tunings, report.tuning)}
    order = [("contrastive", "full"), ("cross_entropy", "partial"), ("cross_entropy", "full")]
    assert set(tried) == set(order)
    kept = [it for it in order if tried[it].kept]
    assert report.method == (kept[-1][1] if kept else "frozen")
    assert report.tuning.kept == bool(kept)
    methods = [
        client.version("tests/auto-both", version=it + 1).report.method for it in range(result.version)
    ]
    between = [method for it, method in order[:2] if (it, method) in kept]
    assert methods == ["frozen", *between, report.method]
    assert client.predict("tests/auto-both", intents[0][0])[0].label == intents[0][1]


@pytest.mark.slow
def test_auto_keeps_the_frozen_head_where_labels_are_chance(client, intents):
    labels = [label for _, label in intents]
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    rows = [(text, label) for (text, _), label in zip(intents, shuffled, strict=True)]
    model = "tests/auto-chance"
    result = client.adapt(model, rows, method="auto", time_budget=600, fine_tuning=SHORT, promote=False)
    assert (result.report.method, result.report.tuning.kept) == ("frozen", False)
    assert client.model(model).aliases == {}, "neither the version on the way nor the last one is live"


class Meanwhile:
    """Does something once, as soon as layers are being tuned."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.done = threading.Event()

    def __call__(self, progress: graft.AdaptProgress) -> None:
        if progress.stage == "tuning" and not self.done.is_set():
            self.done.set()
            self._act()


@pytest.mark.parametrize(("method", "budget"), [("auto", 3600), ("partial", None)])
@pytest.mark.slow
def test_cancelling_in_the_middle_keeps_what_was_published_so_far(server, client, intents, method, budget):
    model = f"tests/cancelled-{method}"
    other = graft.Client(server.target)
    meanwhile = Meanwhile(lambda: other.cancel(model, "tuning"))
    with other, pytest.raises(graft.GraftError, match="cancelled"):
        client.adapt(
            model, intents, adaptation_id="tuning", method=method, time_budget=budget,
            fine_tuning=graft.FineTuning(epochs=100), on_progress=meanwhile,
        )  # fmt: skip
    assert meanwhile.done.is_set()
    cancelled = client.adaptation(model, "tuning")
    assert (cancelled.state, [it.state for it in cancelled.publications]) == ("cancelled", ["cancelled"])
    assert client.version(model).report.method == "frozen"
    assert client.predict(model, intents[0][0])[0].label == intents[0][1]


@pytest.fixture(scope="module")
def tuned_again(
    client: graft.Client, few: list[tuple[str, str]], intents: list[tuple[str, str]]
) -> graft.AdaptResult:
    """The second version of a model; one of its classes has a single example."""
    client.adapt("tests/again", few)
    rows = [*intents, ("do you sell gift cards?", "gift_card")]
    return client.adapt("tests/again", rows, method="partial", fine_tuning=SHORT)


@pytest.mark.slow
def test_a_model_that_answers_already_gets_no_frozen_version_before_what_was_asked_for(client, tuned_again):
    assert tuned_again.version == 2
    assert client.version(tuned_again.model).report.tuning is not None


def test_a_class_of_a_single_example_is_tuned_along(client, tuned_again, intents):
    report = tuned_again.report
    assert report.tuning.ended in ("done", "no_gain")
    assert report.classes == len({label for _, label in intents}) + 1
    scores = client.predict(tuned_again.model, "gift cards", top_k=100)[0].scores
    assert "gift_card" in {it.label for it in scores}


def tuning_workers(server: Any) -> list[int]:
    """The server's processes that have torch: those that tune."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.process.pid and "libtorch" in (folder / "maps").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_is_followed_by_one_that_goes_on(server, client, intents):
    killed: list[int] = []

    def kill() -> None:
        for pid in tuning_workers(server):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    result = client.adapt(
        "tests/killed", intents, method="partial", fine_tuning=graft.FineTuning(epochs=3),
        on_progress=Meanwhile(kill),
    )  # fmt: skip
    assert killed
    assert result.report.tuning.ended in ("done", "no_gain")
    assert [it.epoch for it in result.report.tuning.history[:3]] == [0, 0.5, 1]
    assert client.predict("tests/killed", intents[0][0])[0].label == intents[0][1]


@pytest.mark.parametrize(
    ("fine_tuning", "methods"),
    [
        (SHORT, {"partial"}),
        (graft.FineTuning(epochs=2), {"partial", "full"}),
    ],
    ids=["short", "both"],
)
@pytest.mark.slow
def test_a_server_that_is_killed_while_it_tunes_is_followed_by_one_that_goes_on(
    serve, intents, fine_tuning, methods
):
    server = serve()
    asked: dict[str, Any] = {
        "adaptation_id": "a", "method": "auto", "time_budget": 600, "fine_tuning": fine_tuning
    }  # fmt: skip
    with graft.Client(server.target, resume_timeout=1) as client, pytest.raises(graft.GraftError):
        client.adapt("m", intents, on_progress=Meanwhile(server.kill), **asked)
    with graft.Client(serve(store=server.store).target) as client:
        result = client.adapt("m", intents, **asked)
        tried = [*result.report.other_tunings, result.report.tuning]
        assert {it.method for it in tried} == methods
        assert all(it.ended in ("done", "no_gain") for it in tried), tried
        assert client.version("m", version=1).report.method == "frozen"
        assert client.predict("m", intents[0][0])[0].label == intents[0][1]


@pytest.mark.slow
def test_a_commit_whose_tuning_another_server_has_ended_and_cleared_is_carried_out_anew(
    server, client, intents
):
    cleared: list[Path] = []

    def clear() -> None:
        for path in (server.store / "tunings").rglob("*.npz"):
            path.unlink()
            cleared.append(path)

    result = client.adapt(
        "tests/cleared",
        intents,
        method="partial",
        fine_tuning=graft.FineTuning(epochs=2),
        on_progress=Meanwhile(clear),
    )
    assert cleared
    assert result.report.tuning.kept
    assert not [it for it in (server.store / "tunings").rglob("*") if it.is_file()]


@pytest.mark.parametrize("method", ["partial", "full"])
@pytest.mark.parametrize(
    ("task", "target"), [("multi_label", {"lock", "bill"}), ("regression", 3.0)], ids=["labels", "values"]
)
def test_other_tasks_than_one_label_an_example_are_not_tuned_and_say_so(client, method, task, target):
    with pytest.raises(graft.InvalidArgumentError, match="one label an example") as raised:
        client.adapt("tests/other-task", [("the lock is stuck", target)], task=task, method=method)
    assert raised.value.reason == "METHOD_UNSUPPORTED"


def test_auto_without_a_time_budget_tunes_nothing(client, few):
    assert client.adapt("tests/auto-frozen", few).report.tuning is None


def test_too_few_examples_keep_the_frozen_head(client, few):
    report = client.adapt("tests/too-few", few, method="partial").report
    assert (report.method, report.tuning.ended, report.tuning.kept) == ("frozen", "too_few", False)
    assert any("or 100 training examples in all" in it for it in report.warnings)


def test_examples_that_are_features_already_keep_the_frozen_head(client):
    generator = np.random.default_rng(0)
    rows = [
        (generator.normal(size=384).astype(np.float32) + label, str(label))
        for label in (0, 1)
        for _ in range(60)
    ]
    report = client.adapt("tests/features", rows, method="partial").report
    assert (report.method, report.tuning.ended, report.tuning.kept) == ("frozen", "features", False)
    assert any("features of it already" in it for it in report.warnings)


@pytest.mark.slow
def test_a_budget_for_less_than_an_epoch_keeps_the_frozen_head_and_says_so(client, intents):
    result = client.adapt("tests/no-time", intents, method="partial", time_budget=0.001)
    assert (result.report.method, result.report.tuning.ended) == ("frozen", "no_time")
    assert [it.kind for it in result.report.advice if "time_budget is too short" in it.text] == ["time"]
    assert client.predict("tests/no-time", "my bill is wrong")[0].label


@pytest.mark.slow
def test_a_rate_at_which_training_diverges_is_lowered_and_reported(client, intents):
    fine_tuning = graft.FineTuning(unfrozen_layers=1, epochs=2, learning_rate=0.1)
    result = client.adapt("tests/diverging", intents, method="partial", fine_tuning=fine_tuning)
    assert result.report.tuning.diverged > 0
    assert any("diverged" in it for it in result.report.warnings)
    assert client.predict("tests/diverging", intents[0][0])[0].probability > 0


@pytest.mark.parametrize(
    ("method", "fine_tuning", "says"),
    [
        ("partial", {"unfrozen_layers": 6}, "has 6 layers"),
        ("partial", {"unfrozen_layers": -1}, "is -1"),
        ("auto", {"unfrozen_layers": 7}, "METHOD_FULL"),
        ("full", {"unfrozen_layers": 2}, "leave it out"),
        ("full", {"epochs": 101}, "1 to 100"),
        ("full", {"learning_rate": 0.5}, "at most 0.1"),
        ("full", {"learning_rate": float("nan")}, "is nan"),
        ("full", {"layer_decay": 1.5}, "at most 1"),
        ("frozen", {"epochs": 2}, "tunes nothing"),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(client, few, method, fine_tuning, says):
    with pytest.raises(graft.InvalidArgumentError, match=says) as raised:
        client.adapt("tests/refused", few, method=method, fine_tuning=graft.FineTuning(**fine_tuning))
    assert raised.value.reason in ("FINE_TUNING_INVALID", "FINE_TUNING_UNUSED")


def test_a_negative_time_budget_is_refused(client, few):
    with pytest.raises(graft.InvalidArgumentError, match=r"time_budget is -1 s"):
        client.adapt("tests/refused", few, method="full", time_budget=-1)
