"""How fast images and clips are served, over the same work in a bare loop in the same run.

python -m benchmarks.media

Speed does not depend on what the weights are, so they are random: a ResNet-50, and an encoder of Whisper-tiny's shape.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import graft
from benchmarks.datasets import DATA
from benchmarks.harness import CACHE, Figure, at_least, server, write
from graft_server.backbones.audio.preprocessor import AudioPreprocessor
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.audio import LogMelRecipe
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.image.preprocessor import ImagePreprocessor
from graft_server.backbones.source import open_backbone
from graft_server.onnx_runtime import onnxruntime

MAKE = """
import sys, torch
from transformers import ResNetConfig, ResNetModel, WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
torch.manual_seed(0)
ResNetModel(ResNetConfig()).save_pretrained(sys.argv[1] + "/resnet-50")
ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(sys.argv[1] + "/resnet-50")
WhisperModel(WhisperConfig()).save_pretrained(sys.argv[1] + "/whisper-tiny")
WhisperFeatureExtractor().save_pretrained(sys.argv[1] + "/whisper-tiny")
"""
MADE = CACHE / "benchmarks" / "media"
IN_FLIGHT = 16
IMAGES = 96
ROUNDS = 3
WORKERS = 2


def main() -> None:
    if not (MADE / "whisper-tiny" / "preprocessor_config.json").is_file():
        MADE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, str(MADE)], check=True)
    flags = [f"--backbone={name}={MADE / name}" for name in ("resnet-50", "whisper-tiny")]
    with server(*flags) as running, graft.Client(running.target) as client:
        figures = [_images(client), *_clips()]
    write("media", "Images and clips", figures, ["Random weights, fp32, one input a request."])


def _jpegs() -> list[bytes]:
    """Photographs of 224 × 224 pixels."""
    files = []
    for path in sorted((DATA / "grocery_store_subset").rglob("*.jpg"))[:: 1_400 // IMAGES][:IMAGES]:
        with Image.open(path) as photo:
            file = io.BytesIO()
            photo.convert("RGB").resize((224, 224)).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def _images(client: graft.Client) -> Figure:
    backbone = open_backbone("resnet-50", str(MADE / "resnet-50"))
    files = _jpegs()
    client.adapt("speed/images", [(it, "ab"[n % 2]) for n, it in enumerate(files[:12])], backbone="resnet-50")
    loops = {"server": lambda: _served(client, files), "loop": lambda: _looped(backbone, files)}
    for loop in loops.values():
        loop()
    rounds = [{name: loop() for name, loop in loops.items()} for _ in range(ROUNDS)]
    ratio = statistics.median(it["server"] / it["loop"] for it in rounds)
    best = {name: max(it[name] for it in rounds) for name in loops}
    reference = f"{best['loop']:.1f} images/s in a loop, {best['server']:.1f} served, {IN_FLIGHT} in flight"
    return at_least("Predict of 224×224 JPEGs, ResNet-50, over the bare loop", ratio, 0.9, "", reference)


def _served(client: graft.Client, files: list[bytes]) -> float:
    """Images a second through Predict, one a request."""
    started = time.monotonic()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda it: client.predict("speed/images", [it]), files))
    return len(files) / (time.monotonic() - started)


def _looped(backbone: Backbone, files: list[bytes]) -> float:
    """Images a second in this process: as many sessions of one thread as there are cores, batches of two."""
    preprocessor = backbone.preprocessor()
    assert isinstance(preprocessor, ImagePreprocessor)
    session = _session(EncoderCache(CACHE).graph(backbone.encoder_id))
    started = time.monotonic()

    def run(pair: list[bytes]) -> None:
        session.run(None, preprocessor.collate([preprocessor.recipe.item(it) for it in pair]))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(run, [files[n : n + 2] for n in range(0, len(files), 2)]))
    return len(files) / (time.monotonic() - started)


def _clips() -> list[Figure]:
    """What one second costs where Whisper reads one, over where it reads 30."""
    backbone = open_backbone("whisper-tiny", str(MADE / "whisper-tiny"))
    preprocessor = backbone.preprocessor()
    assert isinstance(preprocessor, AudioPreprocessor)
    assert isinstance(preprocessor.recipe, LogMelRecipe)
    session = _session(EncoderCache(CACHE).graph(backbone.encoder_id))
    second = np.random.default_rng(0).normal(0, 0.1, preprocessor.recipe.rate).astype(np.float32)
    whole = replace(preprocessor.recipe, whole_window=True)
    cut = replace(preprocessor.recipe, whole_window=False)

    def took(recipe: LogMelRecipe, times: int) -> float:
        started = time.monotonic()
        for _ in range(times):
            session.run(None, recipe.collate([recipe.heard(second)]))
        return (time.monotonic() - started) / times

    rounds = [(took(cut, 40), took(whole, 3)) for _ in range(1 + ROUNDS)][1:]
    ratio = statistics.median(long / short for short, long in rounds)
    short, long = min(it[0] for it in rounds), min(it[1] for it in rounds)
    reference = f"{1e3 * short:.1f} ms, {1e3 * long:.0f} ms over 30 s, spectrogram included, one thread"
    return [at_least("1 s clips, Whisper-tiny's shape, over the 30 s path", ratio, 8, "times", reference)]


def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
