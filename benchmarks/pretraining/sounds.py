"""Whisper's encoder, pre-trained on made-up words of spoken digits.

An encoder that tells six words apart needs to hear little of each. So digits are spliced, the beginning of one to the
end of another, and some are reversed. Each batch has every word in two voices, and the encoder learns to find the same
word in another voice, and to say what a word begins and ends with. So it has to hear sounds, of which other digits are
made too, and not who says them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from benchmarks.datasets import DATA
from benchmarks.pretraining.training import contrast, fit
from graft_server.backbones.decoding.audio import LogMelRecipe, decode_audio

WINDOW_S = 2
"""What the small Whisper's window is; Whisper's own is 30 s, which would take hours to train on two cores."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas")
HELD_OUT_SPEAKERS = ("theo", "yweweler")
PRETRAINED, TRANSFERRED = range(6), range(6, 10)
RATE = 16_000
WORDS = 32
"""In a batch, each in two voices."""
STEPS, EPOCHS = 100, 15

Power = NDArray[np.float32]
"""A clip's energies by mel band and frame: (mels, frames)."""
Heard = tuple[torch.Tensor, torch.Tensor]
"""Spectrograms (n, mels, frames of the window), and how many positions each clip fills."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken digit."""

    data: bytes
    """The WAV file."""
    digit: int
    speaker: str


def digits() -> list[Clip]:
    """All of FSDD."""
    clips = []
    for path in sorted((DATA / "fsdd").rglob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        clips.append(Clip(path.read_bytes(), int(digit), speaker))
    return clips


def whisper() -> WhisperModel:
    """An untrained one, of 130,000 weights in its encoder."""
    return WhisperModel(
        WhisperConfig(
            vocab_size=32, d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=256,
            decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, max_target_positions=8,
            max_source_positions=50 * WINDOW_S, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=3, dropout=0.05,
        )
    )  # fmt: skip


def feature_extractor() -> WhisperFeatureExtractor:
    """With the window of the small Whisper."""
    return WhisperFeatureExtractor(chunk_length=WINDOW_S)


def recipe() -> LogMelRecipe:
    """How the small Whisper hears."""
    return LogMelRecipe.of_config(feature_extractor().to_dict())


def spectrograms(clips: Sequence[Clip]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the small Whisper reads, (n, mels, frames of its window), and how many positions each clip fills."""
    how = recipe()
    decoded = [decode_audio(clip.data, RATE).samples for clip in clips]
    filled = [-(-how.frames(len(samples)) // 2) for samples in decoded]
    return np.stack([how.spectrogram(it, how.max_frames) for it in decoded]), np.array(filled)


class Classifier(torch.nn.Module):
    """Whisper's encoder with a linear layer on the mean of the positions that a clip fills."""

    def __init__(self, model: Any, outputs: int) -> None:
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.config.d_model, outputs)

    def forward(self, heard: Heard) -> torch.Tensor:
        """Outputs (n, outputs) of clips."""
        values, filled = heard
        hidden = self.model.get_encoder()(values).last_hidden_state
        real = (torch.arange(hidden.shape[1])[None] < filled[:, None]).to(hidden.dtype)[:, :, None]
        outputs: torch.Tensor = self.head((hidden * real).sum(1) / real.sum(1))
        return outputs


class Voices:
    """Clips as others might say them: in another voice, faster or slower, in noise, a moment later.

    Used for training from scratch as for pre-training. All of it is done to the energies of mel bands, which costs a
    tenth of doing it to the sound.
    """

    def __init__(self, clips: Sequence[Clip], generator: np.random.Generator) -> None:
        self._generator = generator
        self._frames = recipe().max_frames
        spectra, filled = spectrograms(clips)
        # Whisper's scale: (log10 + 4) / 4, of nothing more than eight decades below the loudest.
        self.powers = [10 ** (4 * it[:, : 2 * n] - 4) for it, n in zip(spectra, filled, strict=True)]

    def said(self, powers: Sequence[Power]) -> Heard:
        """Spectrograms of changed clips, in a band of pitches and for a moment unheard (SpecAugment, Park 2019)."""
        values, filled = zip(*map(self._changed, powers), strict=True)
        for spectrum in values:
            low, begin = self._generator.integers(0, (70, 60))
            spectrum[low : low + 10] = -1.0
            spectrum[:, begin : begin + 5] = -1.0
        return torch.from_numpy(np.stack(values)), torch.tensor(filled)

    def _changed(self, power: Power) -> tuple[NDArray[np.float32], int]:
        draw = self._generator
        power = _between(power.T, np.arange(0, power.shape[1] - 1, draw.uniform(0.8, 1.25))).T
        # With its formants moved, as a longer or shorter vocal tract does (Jaitly and Hinton 2013).
        power = _between(power, np.arange(len(power)) * draw.uniform(0.85, 1.18))
        late = int(draw.integers(0, 10))
        frames = min(self._frames, power.shape[1] + late)
        sound = np.zeros((len(power), self._frames), np.float32)
        sound[:, late:frames] = power[:, : frames - late]
        noise = draw.gamma(3, 1 / 3, (len(power), frames)).astype(np.float32)
        sound[:, :frames] += 10 ** draw.uniform(-7, -2.5) * power.max() * noise
        logs = np.log10(np.maximum(sound, 1e-10))
        logs = (np.maximum(logs, logs.max() - 8) + 4) / 4
        return (logs + 0.2 * draw.normal()).astype(np.float32), -(-frames // 2)


def _between(rows: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows at places between them, the last one again beyond."""
    places = np.minimum(places, len(rows) - 1)
    low = np.minimum(places.astype(np.int64), len(rows) - 2)
    part = (places - low).astype(np.float32)[:, None]
    return rows[low] * (1 - part) + rows[low + 1] * part


def pretrain(folder: Path) -> None:
    """Writes FOLDER as a checkpoint."""
    clips = [it for it in digits() if it.digit in PRETRAINED and it.speaker in SPEAKERS]
    generator = np.random.default_rng(0)
    voices = Voices(clips, generator)
    spoken = defaultdict(list)
    for clip, power in zip(clips, voices.powers, strict=True):
        spoken[clip.speaker, clip.digit].append(power)
    sounds = 2 * len(PRETRAINED)  # each forwards and backwards
    classifier = Classifier(whisper(), 2 * sounds + 64)

    def batches() -> Iterator[tuple[Heard, torch.Tensor]]:
        for _ in range(STEPS):
            made = [_twice(spoken, generator) for _ in range(WORDS)]
            ends = torch.tensor([ends for _, ends in made])
            yield voices.said([said[n] for n in (0, 1) for said, _ in made]), ends.repeat(2, 1)

    def loss(outputs: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        first, last, embedded = outputs.split((sounds, sounds, 64), 1)
        cross_entropy = torch.nn.functional.cross_entropy
        word = ends[:, 0] * sounds + ends[:, 1]
        return (
            cross_entropy(first, ends[:, 0]) + cross_entropy(last, ends[:, 1]) + contrast(embedded, word, 0.1)
        )

    fit(classifier, batches, loss, steps=STEPS, epochs=EPOCHS, rate=3e-3, state=folder / "unfinished.pt")
    classifier.model.save_pretrained(folder)
    feature_extractor().save_pretrained(folder)


def _twice(
    spoken: dict[tuple[str, int], list[Power]], generator: np.random.Generator
) -> tuple[list[Power], tuple[int, int]]:
    """A word by two speakers, and what it begins and ends with."""
    first, last = (int(it) for it in generator.integers(len(PRETRAINED), size=2))
    if generator.random() < 0.3:
        last = first
    cut, backwards = generator.uniform(0.35, 0.65), generator.random() < 0.3
    said = []
    for speaker in generator.choice(SPEAKERS, 2, replace=False):
        begin, end = (
            spoken[speaker, it][generator.integers(len(spoken[speaker, it]))] for it in (first, last)
        )
        word = begin
        if first != last:
            word = np.concatenate(
                [begin[:, : int(begin.shape[1] * cut)], end[:, int(end.shape[1] * cut) :]], 1
            )
        said.append(word[:, ::-1] if backwards else word)
    if backwards:
        first, last = last + len(PRETRAINED), first + len(PRETRAINED)
    return said, (first, last)
