"""Backbones of every modality with tuned layers through the real server: tuned, published, asked, exported, run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import graft

WORDS = {"lock": "the lock is stuck", "bill": "my bill is wrong", "both": "the bill is stuck"}
RATE = 16_000
ISOLATED = """
import json, sys
sys.path[:] = [it for it in sys.path if "graft" not in it] + [sys.argv[1]]
from pathlib import Path
from predict import predict
inputs = [Path(it) if Path(it).is_file() else it for it in sys.argv[2:]]
answers = predict(inputs)
wrong = [it for it in ("graft_server", "graft", "torch", "transformers") if it in sys.modules]
print(json.dumps([[dict(it.scores) for it in answers], wrong]))
"""


def text(label: str, seed: int) -> str:
    return f"{WORDS[label]} {'abcdefghij'[seed % 10]} {seed}"


def picture(label: str, seed: int) -> bytes:
    """Noise that is a little brighter in one colour."""
    values = np.random.default_rng(seed).integers(0, 200, (40, 50, 3))
    values[:, :, list(WORDS).index(label)] += 25
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def sound(label: str, seed: int) -> bytes:
    """A hum of one of three pitches in noise, of 0.4 to 1.2 seconds."""
    generator = np.random.default_rng(seed)
    times = np.arange(int(RATE * generator.uniform(0.4, 1.2))) / RATE
    pitch = {"lock": 150, "bill": 1_000, "both": 4_000}[label] * generator.uniform(0.8, 1.2)
    samples = 0.1 * np.sin(2 * np.pi * pitch * times) + generator.normal(0, 0.05, len(times))
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


MADE = {"gpt2": text, "vit": picture, "whisper": sound}


@pytest.fixture(scope="module")
def client(serving_many, text_checkpoints, media_checkpoints) -> Iterator[graft.Client]:
    folders = {name: text_checkpoints if made is text else media_checkpoints for name, made in MADE.items()}
    sources = {name: folder / name for name, folder in folders.items()}
    with serving_many(sources) as wire, graft.Client(wire.target) as client:
        yield client


@pytest.mark.parametrize(
    ("backbone", "method"), [*((backbone, "partial") for backbone in MADE), ("vit", "full")]
)
def test_tuned_layers_are_served_and_exported(client, backbone, method, tmp_path):
    made: Any = MADE[backbone]
    # A fifth of the labels is wrong, so that a head on frozen features is not perfect already.
    generator = np.random.default_rng(0)
    rows = [
        (made(label, seed), label if generator.random() > 0.2 else "bill")
        for seed in range(60)
        for label in WORDS
    ]
    model = f"tests/tuned-{backbone}-{method}"
    # On a toy it is chance which rate improves anything; what is then served and exported is not.
    for rate in (3e-4, 1e-3, 3e-3, 1e-4):
        tuning = graft.FineTuning(epochs=8, learning_rate=rate)
        report = client.adapt(model, rows, backbone=backbone, method=method, fine_tuning=tuning).report
        if report.tuning is not None and report.tuning.kept:
            break
    assert (report.method, report.tuning.kept) == (method, True), report.warnings
    inputs = [made(label, 1_000 + seed) for seed in range(3) for label in WORDS]
    together = client.predict(model, inputs, include_features=True)
    for value, company in zip(inputs, together, strict=True):
        (alone,) = client.predict(model, [value], include_features=True)
        np.testing.assert_allclose(alone.features, company.features, atol=1e-4)
    frozen = client.adapt(f"{model}-frozen", rows, backbone=backbone, method="frozen").model
    others = client.predict(frozen, inputs, include_features=True)
    tuned, before = (np.array([it.features for it in found]) for found in (together, others))
    assert np.abs(tuned - before).max() > 1e-3
    client.export(model, tmp_path / "bundle")
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
