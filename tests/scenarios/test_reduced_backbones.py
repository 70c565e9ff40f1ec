"""Backbones of every modality in int8: near to float32, or refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tests.backbones.kinds import each, rare
from tests.conftest import check_for_older_runtimes

import graft
from graft_server.backbones.source import DEFAULT_NAME

TEXTS, IMAGES, CLIPS = ("deberta-v2", "llama", "t5"), ("clip", "convnext", "vit"), ("wav2vec2", "whisper")


@pytest.fixture(scope="module")
def reduced(serving_many, media_checkpoints, text_checkpoints) -> Iterator[graft.Client]:
    sources = {name: text_checkpoints / name for name in (*TEXTS, "gpt2")}
    sources |= {name: media_checkpoints / name for name in (*IMAGES, *CLIPS, "resnet")}
    with (
        serving_many(sources, "--precision=int8", on_use=rare(sources)) as wire,
        graft.Client(wire.target) as client,
    ):
        yield client


def made(name: str, label: int, seed: int) -> Any:
    """An input of one of two kinds that is easily told from the other."""
    generator, file = np.random.default_rng(seed), io.BytesIO()
    if name in TEXTS:
        return ("the lock is stuck", "my bill is wrong")[label] + f" {seed}"
    if name in IMAGES:
        values = generator.integers(0, 120, (40, 50, 3)) + np.eye(3, dtype=int)[label] * 130
        Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    else:
        times = np.arange(12_000) / 16_000
        tone = np.sin(2 * np.pi * (150, 4_000)[label] * times) + generator.normal(0, 0.05, len(times))
        soundfile.write(file, 0.3 * tone, 16_000, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("name", each([*TEXTS, *IMAGES, *CLIPS]))
def test_a_backbone_in_int8_is_adapted_and_its_bundle_answers_the_same(reduced, tmp_path, name):
    rows = [(made(name, label, seed), "ab"[label]) for seed in range(6) for label in (0, 1)]
    assert reduced.adapt(f"tests/int8/{name}", rows, backbone=name).report.examples == len(rows)
    (backbone,) = [it for it in reduced.backbones() if it.name == name]
    assert backbone.state == "ready", backbone.error
    answers = reduced.predict(f"tests/int8/{name}", [made(name, label, 50) for label in (0, 1)])
    assert [it.label for it in answers] == ["a", "b"]
    # Exporting compares the bundle with what is served, and hands out none that differs.
    reduced.export(f"tests/int8/{name}", tmp_path / "bundle")
    check_for_older_runtimes(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("name", ["gpt2", "resnet"])
def test_a_backbone_that_int8_brings_nothing_is_refused_and_stops_no_other(reduced, name):
    states = {it.name: it for it in reduced.backbones()}
    assert states[name].state == "failed"
    assert "no matrix products that int8 would speed up" in states[name].error
    assert "--precision fp32" in states[name].error
    assert states[DEFAULT_NAME].state == "ready"
