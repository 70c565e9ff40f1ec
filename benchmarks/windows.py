"""What it costs Whisper to read less than its window: features and accuracy, cut against whole.

python -m benchmarks.pretraining FOLDER digits
python -m benchmarks.windows FOLDER

Digits that the encoder was not trained on, by speakers whom it has not heard, are told apart by logistic regression on
its features: of whole windows, and of windows cut to the clip with more or less silence behind it. The same examples
are drawn for all.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.datasets import few_shot
from benchmarks.harness import Figure, write
from benchmarks.pretraining import sounds
from graft_server.backbones.audio.preprocessor import AudioPreprocessor
from graft_server.backbones.decoding.audio import BUCKET_FRAMES, LogMelRecipe, cut_frames, decode_audio
from graft_server.backbones.source import open_backbone
from graft_server.backbones.torch.family import torch_family

SHOTS = {10: 20, 30: 10}
"""How often so many examples of each digit are drawn."""
SILENCES = (0, 25, 50)
"""Frames of silence, 10 ms each, that are left at least behind a clip in a cut window."""

Features = NDArray[np.float32]


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    clips = [it for it in sounds.digits() if it.digit in sounds.TRANSFERRED]
    whole = _features(Path(sys.argv[1]) / "digits", clips, None)
    figures = []
    for silence in SILENCES:
        cut = _features(Path(sys.argv[1]) / "digits", clips, silence)
        cosines = (whole * cut).sum(1)
        name = f"cut, at least {10 * silence} ms of silence"
        said = f"{np.quantile(cosines, 0.05):.4f} for 1 in 20"
        figures.append(Figure(f"{name}: cosine to whole", float(cosines.mean()), "", reference=said))
        for shots, draws in SHOTS.items():
            pairs = [_accuracies(clips, (whole, cut), shots, seed) for seed in range(draws)]
            off = [100 * (other - one) for one, other in pairs]
            accuracy = [100 * statistics.mean(column) for column in zip(*pairs, strict=True)]
            error = statistics.stdev(off) / draws**0.5
            reference = f"{accuracy[1]:.1f} %, whole {accuracy[0]:.1f} %, {draws} draws, ± {error:.1f}"
            figures.append(Figure(f"{name}: {shots} each", statistics.mean(off), "points", "", reference))
    notes = f"""\
A small encoder (windows of {sounds.WINDOW_S} s, `benchmarks/pretraining`), on digits that it was not trained on, taught
by four speakers and asked of two others. ±: the standard error of the mean difference. Cut windows are whole multiples
of {10 * BUCKET_FRAMES} ms.
"""
    write("windows", "Whisper: windows cut to short clips, over whole ones", figures, notes.splitlines())


def _features(folder: Path, clips: Sequence[sounds.Clip], silence: int | None) -> Features:
    """Unit-norm features (n, d); with None for silence, of whole windows."""
    backbone = open_backbone("digits", str(folder))
    preprocessor = backbone.preprocessor()
    assert isinstance(preprocessor, AudioPreprocessor)
    recipe = preprocessor.recipe
    assert isinstance(recipe, LogMelRecipe)
    module = torch_family(backbone).graph(backbone).module
    rows = []
    with torch.no_grad():
        for clip in clips:
            samples = decode_audio(clip.data, recipe.rate, recipe.seconds).samples
            heard, most = recipe.frames(len(samples)), recipe.max_frames
            frames = most if silence is None else cut_frames(heard, most, silence)
            values = torch.from_numpy(recipe.spectrogram(samples, frames))[None]
            rows.append(module(values, torch.tensor([frames // 2]), torch.tensor([-(-heard // 2)]))[0])
    return torch.cat(rows).numpy()


def _accuracies(
    clips: Sequence[sounds.Clip], features: Sequence[Features], shots: int, seed: int
) -> list[float]:
    """On held-out speakers, of the same examples in each kind of features."""
    labels = np.array([it.digit for it in clips], np.int32)
    known = np.flatnonzero([it.speaker in sounds.SPEAKERS for it in clips])
    asked = np.flatnonzero([it.speaker in sounds.HELD_OUT_SPEAKERS for it in clips])
    chosen = known[few_shot(labels[known], shots, seed)]
    found = []
    for kind in features:
        model = LogisticRegression(C=10, max_iter=1_000).fit(kind[chosen], labels[chosen])
        found.append(float(model.score(kind[asked], labels[asked])))
    return found


if __name__ == "__main__":
    main()
