"""The job that tunes few examples by contrast: what its trainings come to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.cross_fitted import LEFT_OUT, NAME
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.tuning_contract import Recipe
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.report import TuningObjective
from graft_server.jobs.job import Progress

BELOW = 5
"""One layer is tuned."""
COUNT, CLASSES, FOLDS = 24, 3, 4


@pytest.fixture(scope="module")
def graphs(
    encoder_cache: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Paths of the graphs below and above the cut."""
    graph = onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))
    found = cut(graph, boundary_of(graph, BELOW, backbone.name))
    folder = tmp_path_factory.mktemp("graphs")
    onnx.save(found.below, str(folder / "below.onnx"))
    onnx.save(found.above, str(folder / "above.onnx"))
    return {"graph": folder / "above.onnx", "below_graph": folder / "below.onnx"}


@pytest.fixture(scope="module")
def examples(intents, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Eight texts of each of three kinds, and the names of these."""
    names = sorted({label for _, label in intents})[:CLASSES]
    rows = [row for name in names for row in [it for it in intents if it[1] == name][:8]]
    kinds = [names.index(label) for _, label in rows]
    fold_of = np.arange(COUNT) % FOLDS
    return {
        "items": [it.item for it in tokenizer.many([text for text, _ in rows] + names)],
        "labels": np.array([*kinds, *range(CLASSES)], np.int32),
        "weights": np.ones(COUNT + CLASSES),
        "part": np.full(COUNT + CLASSES, Part.TRAIN, np.int8),
        "head": (np.zeros((384, CLASSES), np.float32), np.zeros(CLASSES, np.float32)),
        "fold_of": np.array([*fold_of, *[NAME] * CLASSES], np.int32),
    }


@pytest.fixture
def ground(tmp_path: Path, backbone: Backbone, graphs, examples) -> Callable[..., Any]:
    """Gives a `Ground` of the examples in a folder of its own."""
    from graft_server.backbones.torch.tuning.ground import Ground  # noqa: PLC0415 (torch only where it is needed)

    def make(name: str = "tuning", *, changed: dict[str, Any] | None = None, **recipe: Any) -> Ground:
        Examples.write(tmp_path / name, **{**examples, **(changed or {})})
        usual = {"below": BELOW, "epochs": 1, "learning_rate": 0.0, "layer_decay": 0.0, "to_the_end": True}
        return Ground(
            backbone=backbone,
            recipe=Recipe(**{**usual, "objective": TuningObjective.CONTRASTIVE, **recipe}),
            examples=Examples.read(tmp_path / name),
            folder=tmp_path / name,
            **graphs,
        )

    return make


ORDERED = np.repeat(np.arange(CLASSES), COUNT // CLASSES)


def frozen(right: float = 0.4, labels: NDArray[Any] = ORDERED) -> NDArray[np.float32]:
    """What a frozen head says that gives the right class this probability."""
    other = (1 - right) / (CLASSES - 1)
    return np.where(np.eye(CLASSES)[labels] > 0, right, other).astype(np.float32)


def told() -> dict[str, Any]:
    return {"frozen": frozen()}


def ignore(_told: Any) -> None:
    pass


def test_there_are_features_without_each_fold_and_of_all_and_names_are_no_examples(ground):
    from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted  # noqa: PLC0415

    progress: list[Progress] = []
    outcome = cross_fitted(ground(), progress.append, **told())
    assert (outcome.tuned.ended, outcome.tuned.best, outcome.tuned.folds) == ("done", 1, FOLDS)
    assert outcome.by_fold.shape == (FOLDS, COUNT, 384)
    assert outcome.features.shape == (COUNT, 384)
    assert outcome.top.exists()
    assert outcome.tuned.label_names
    every = [*outcome.by_fold, outcome.features]
    differ = [np.abs(one - other).max() > 1e-3 for one in every for other in every if one is not other]
    assert all(differ), "each training begins with the original weights and has examples of its own"
    assert [it.fraction for it in progress] == sorted(it.fraction for it in progress)
    assert {it.stage for it in progress} >= {"loading", "tuning", "encoding"}
    assert progress[-1].fraction == 1


def test_no_training_sees_its_fold_or_what_is_left_out_and_each_sees_the_rest(ground, examples):
    from graft_server.backbones.torch.tuning.cross_fitting import CrossFitting  # noqa: PLC0415

    fold_of = examples["fold_of"].copy()
    fold_of[:3] = LEFT_OUT
    one = CrossFitting(ground(changed={"fold_of": fold_of}), ignore, **told())
    for fold in range(FOLDS):
        seen = set(np.concatenate(one.batches(fold, 40)).tolist())
        assert seen == set(np.flatnonzero((fold_of != fold) & (fold_of != LEFT_OUT)).tolist())
    assert set(np.concatenate(one.batches(LEFT_OUT, 40)).tolist()) == set(range(3, COUNT + CLASSES))


def test_a_batch_that_does_not_fit_into_memory_has_the_same_gradients_in_parts(ground):
    from graft_server.backbones.torch.tuning.cross_fitting import CrossFitting  # noqa: PLC0415

    def gradients(tokens: int) -> tuple[NDArray[np.float32], float]:
        one = CrossFitting(ground(), ignore, **told())
        one.model.eval()  # without dropout, which would be another in each part
        one.state.tokens_at_once = tokens
        one.mixed = False
        loss = one._backward(one.batches(0, 1)[0], 0)
        found = [it.grad.numpy().ravel() for it in one.model.module.parameters() if it.grad is not None]
        return np.concatenate(found), loss

    (parted, one), (whole, other) = gradients(48), gradients(8192)
    assert np.abs(whole).max() > 1e-4
    np.testing.assert_allclose(parted, whole, atol=1e-5)
    assert one == pytest.approx(other, abs=1e-5)


def test_a_tuning_that_loses_on_the_first_fold_is_not_gone_on_with(ground):
    from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted  # noqa: PLC0415

    # The texts say nothing of these labels, and the frozen head knows most of them.
    labels = np.concatenate([np.arange(COUNT) % CLASSES, np.arange(CLASSES)]).astype(np.int32)
    sure = frozen(0.9, labels[:COUNT])
    sure[:2] = 1 / CLASSES  # there is something to gain
    sure[:2, 2] += 0.01
    given = {"frozen": sure}
    outcome = cross_fitted(ground(to_the_end=False, changed={"labels": labels}), ignore, **given)
    assert (outcome.tuned.ended, outcome.tuned.best, outcome.top) == ("no_gain", 0, None)
    assert 1 <= len(outcome.by_fold) < FOLDS


@pytest.mark.parametrize("seconds", [0.001, 2.5])
def test_a_budget_below_the_trainings_trains_nothing(ground, seconds):
    from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted  # noqa: PLC0415

    outcome = cross_fitted(ground(seconds=seconds, epochs=100), ignore, **told())
    assert (outcome.tuned.ended, outcome.tuned.folds, outcome.top) == ("no_time", 0, None)


def test_a_short_budget_has_fewer_steps_then_fewer_folds_and_then_none(ground):
    from graft_server.backbones.torch.tuning.cross_fitting import (  # noqa: PLC0415
        GRAPH_S,
        LEAST_FOLDS,
        MARGIN,
        CrossFitting,
    )

    def planned(share: float) -> tuple[bool, int, int]:
        """With a budget for so much of all steps."""
        one = CrossFitting(ground(epochs=100), ignore, **told())
        one._step_s, one._encode_s, one._batch = 1.0, 0.5, 12.0
        steps, trainings = 200, FOLDS + 1
        seconds = trainings * (share * steps * MARGIN + 0.5) + GRAPH_S
        one.recipe = replace(one.recipe, seconds=seconds + one.seconds)
        return one._plan(), one.state.folds, one.state.steps

    assert planned(1.5) == (True, FOLDS, 200)
    found, folds, steps = planned(0.7)
    assert (found, folds) == (True, FOLDS)
    assert 130 <= steps <= 140
    found, folds, steps = planned(0.4)
    assert found
    assert LEAST_FOLDS <= folds < FOLDS
    assert 100 <= steps < 140
    assert not planned(0.2)[0]


def test_a_rate_at_which_weights_explode_is_lowered_for_all_trainings_alike(ground, monkeypatch):
    from graft_server.backbones.torch.tuning import cross_fitting  # noqa: PLC0415

    one = cross_fitting.CrossFitting(ground(learning_rate=1e30, epochs=4), ignore, **told())
    result = one.run()
    assert (result.ended, result.diverged, result.best) == ("diverged", cross_fitting.MAX_DIVERGED, 0)
    assert len(one.by_fold) == 0


REBUILT = """
import json, os, sys
from pathlib import Path
import numpy as np
from graft_server.backbones.source import open_backbone
from graft_server.backbones.torch.tuning import cross_fitting
from graft_server.backbones.torch.tuning.checkpoint import Checkpoint
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.tuning_contract import Recipe
from graft_server.domain.report import TuningObjective

name, source, folder, graph, below_graph, recipe, frozen, number = json.loads(sys.argv[1])
recipe["objective"] = TuningObjective(recipe["objective"])
ground = Ground(
    backbone=open_backbone(name, source), recipe=Recipe(**recipe), examples=Examples.read(Path(folder)),
    graph=Path(graph), below_graph=Path(below_graph), folder=Path(folder),
)
cross_fitting.CHECKPOINT_S = 0.0
saved = 0
save = Checkpoint.save

def save_and_die(self, *arguments, **more):
    global saved
    save(self, *arguments, **more)
    saved += 1
    if saved == number:
        os.kill(os.getpid(), 9)

Checkpoint.save = save_and_die
frozen = np.array(frozen, np.float32)
cross_fitting.cross_fitted(ground, lambda _: None, frozen=frozen)
"""


@pytest.mark.parametrize("checkpoint", [2, 7])
@pytest.mark.slow
def test_one_that_was_killed_goes_on_from_its_checkpoint_to_the_same_weights(ground, checkpoint):
    from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted  # noqa: PLC0415

    whole, killed = ground("whole", epochs=2), ground("killed", epochs=2)
    expected = cross_fitted(whole, ignore, **told())
    paths = map(str, (killed.folder, killed.graph, killed.below_graph))
    given = [DEFAULT_NAME, DEFAULT_SOURCE, *paths, asdict(killed.recipe), frozen().tolist(), checkpoint]
    command = [sys.executable, "-c", REBUILT, json.dumps(given)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    found = cross_fitted(killed, ignore, **told())
    assert expected.tuned.resumed == 0
    assert found.tuned.resumed > 0
    np.testing.assert_array_equal(found.by_fold, expected.by_fold)
    np.testing.assert_array_equal(found.features, expected.features)
    assert found.top.read_bytes() == expected.top.read_bytes()
