"""Backbones of every modality with tuned layers through the real server: tuned, published, asked, exported, run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image
from tests.conftest import check_for_older_runtimes

import graft

RATE = 16_000
ISOLATED = """
import json, sys
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from pathlib import Path
from predict import predict
inputs = [Path(it) if Path(it).is_file() else it for it in sys.argv[2:]]
answers = predict(inputs)
wrong = [it for it in ("torch", "transformers") if it in sys.modules]
print(json.dumps([[dict(it.scores) for it in answers], wrong]))
"""


def text(generator: np.random.Generator) -> str:
    """Letters, as words."""
    return " ".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), generator.integers(3, 20)))


def picture(generator: np.random.Generator) -> bytes:
    """Noise in a colour."""
    values = generator.integers(0, 156, (40, 50, 3)) + generator.integers(0, 100, 3)
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def sound(generator: np.random.Generator) -> bytes:
    """A hum in noise, of 0.4 to 1.2 seconds."""
    times = np.arange(int(RATE * generator.uniform(0.4, 1.2))) / RATE
    hum = generator.uniform(0, 0.2) * np.sin(2 * np.pi * np.exp(generator.uniform(4.6, 8.5)) * times)
    file = io.BytesIO()
    soundfile.write(file, hum + generator.normal(0, 0.01, len(times)), RATE, format="WAV")
    return file.getvalue()


MADE: dict[str, Callable[[np.random.Generator], Any]] = {"gpt2": text, "vit": picture, "whisper": sound}


@pytest.fixture(scope="module")
def client(serving_many, text_checkpoints, media_checkpoints) -> Iterator[graft.Client]:
    folders = {name: text_checkpoints if made is text else media_checkpoints for name, made in MADE.items()}
    sources = {name: folder / name for name, folder in folders.items()}
    with serving_many(sources) as wire, graft.Client(wire.target) as client:
        yield client


@pytest.fixture(scope="module")
def frozen(client) -> Callable[[str], str]:
    """Gives the name of a model on a backbone as it is: it answers with the backbone's features."""

    @cache
    def make(backbone: str) -> str:
        generator = np.random.default_rng(0)
        rows = [(MADE[backbone](generator), label) for _ in range(5) for label in ("one", "other")]
        return client.adapt(f"tests/frozen-{backbone}", rows, backbone=backbone, method="frozen").model

    return make


def features_of(client: graft.Client, model: str, inputs: list[Any]) -> NDArray[np.float32]:
    return np.array([it.features for it in client.predict(model, inputs, include_features=True)], np.float32)


def beyond_a_line(features: NDArray[np.float32]) -> list[str]:
    """Labels of which a linear head learns a part: on which side of a parabola features lie, in their main plane."""
    along = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)[0][:, :2]
    along *= np.sqrt(len(features))
    side = along[:, 1] + along[:, 0] ** 2
    return np.where(side > np.median(side), "outside", "inside").tolist()


@pytest.mark.parametrize(
    ("backbone", "method", "rate"),
    [
        pytest.param("vit", "full", 3e-4, marks=pytest.mark.slow),
        pytest.param("whisper", "partial", 1e-3, marks=pytest.mark.slow),
        pytest.param("gpt2", "partial", 3e-4, marks=pytest.mark.slow),
        pytest.param("vit", "partial", 3e-4, marks=pytest.mark.slow),
    ],
)
def test_tuned_layers_are_served_and_exported(client, frozen, tmp_path, *, backbone, method, rate):
    generator = np.random.default_rng(1)
    made: list[Any] = [MADE[backbone](generator) for _ in range(600)]
    rows = list(zip(made, beyond_a_line(features_of(client, frozen(backbone), made)), strict=True))
    model = f"tests/tuned-{backbone}-{method}"
    tuning = graft.FineTuning(epochs=8, learning_rate=rate)
    report = client.adapt(model, rows, backbone=backbone, method=method, fine_tuning=tuning).report
    assert (report.method, report.tuning.kept) == (method, True), report.warnings
    losses = [it.log_loss for it in report.tuning.history]
    assert min(losses) < 0.97 * losses[0]
    inputs = [MADE[backbone](generator) for _ in range(9)]
    together = client.predict(model, inputs, include_features=True)
    for value, company in zip(inputs, together, strict=True):
        (alone,) = client.predict(model, [value], include_features=True)
        np.testing.assert_allclose(alone.features, company.features, atol=1e-4)
    tuned = np.array([it.features for it in together])
    assert np.abs(tuned - features_of(client, frozen(backbone), inputs)).max() > 1e-3
    client.export(model, tmp_path / "bundle")
    check_for_older_runtimes(tmp_path / "bundle")
    for served, scores in zip(together, bundled(tmp_path, inputs), strict=True):
        assert {it.label: it.probability for it in served.scores} == pytest.approx(scores, abs=1e-3)


def bundled(folder: Path, inputs: list[Any]) -> list[dict[str, float]]:
    """What a bundle's own runner answers, in a process without Graft and torch."""
    given = []
    for number, value in enumerate(inputs):
        if isinstance(value, bytes):
            (folder / f"input-{number}").write_bytes(value)
        given.append(str(folder / f"input-{number}") if isinstance(value, bytes) else value)
    command = [sys.executable, "-P", "-c", ISOLATED, str(folder / "bundle"), *given]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=folder)
    scores, wrong = json.loads(ended.stdout)
    assert wrong == []
    found: list[dict[str, float]] = scores
    return found
