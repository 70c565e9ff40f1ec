"""Small backbones, pre-trained as large ones are: on some classes of a data set, to be transferred to others.

python -m benchmarks.pretraining FOLDER [fashion] [digits]

writes two checkpoints in Hugging Face format, FOLDER/fashion (a ResNet) and FOLDER/digits (Whisper's encoder, with
an untrained decoder), in some minutes on two cores. What they are trained on, `benchmarks.transfer` never
tests: six of Fashion-MNIST's ten classes, and six digits of FSDD by four of its six speakers.

An encoder that tells six words apart needs to hear little of each. So the digits are also spliced, the beginning of
one to the end of another, and reversed, and the encoder says what a clip begins and ends with: it has to hear sounds,
of which other digits are made too.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    ResNetConfig,
    ResNetModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from benchmarks.datasets import DATA
from graft_server.backbones.audio import LogMelRecipe, decode_audio
from graft_server.backbones.images import ImageRecipe

EDGE = 32
WINDOW_S = 2
"""What the small Whisper's window is; Whisper's own is 30 s, which would take hours to train on two cores."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas")
HELD_OUT_SPEAKERS = ("theo", "yweweler")
PRETRAINED, TRANSFERRED = range(6), range(6, 10)
PER_CLASS = 600
RATE = 16_000

Heard = tuple[torch.Tensor, torch.Tensor]
"""Spectrograms (n, mels, frames), and how many positions each clip fills."""

EPOCHS = 25
"""Of pre-training on digits."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken digit."""

    data: bytes
    """The WAV file."""
    digit: int
    speaker: str


def fashion(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) and their classes, 0 to 9; `split` is "train" or "t10k"."""
    folder = DATA / "fashion_mnist"
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)


def digits() -> list[Clip]:
    """All of FSDD."""
    clips = []
    for path in sorted((DATA / "fsdd").rglob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        clips.append(Clip(path.read_bytes(), int(digit), speaker))
    return clips


def resnet() -> ResNetModel:
    """An untrained one of 1.3 million weights."""
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic"
    )
    return ResNetModel(config)


def image_processor() -> Any:
    return ViTImageProcessorPil(size={"height": EDGE, "width": EDGE})


def pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the ResNet reads of grey or RGB images."""
    recipe = ImageRecipe.of_config(image_processor().to_dict())
    pictures = [Image.fromarray(image).convert("RGB") for image in images]
    return recipe.normalised([recipe.pixels(it) for it in pictures])


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
    return WhisperFeatureExtractor(chunk_length=WINDOW_S)


def spectrograms(clips: list[Clip]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the small Whisper reads, (n, mels, frames of its window), and how many positions each clip fills."""
    recipe = LogMelRecipe.of_config(feature_extractor().to_dict())
    decoded = [decode_audio(clip.data, RATE).samples for clip in clips]
    filled = [-(-recipe.frames(len(samples)) // 2) for samples in decoded]
    return np.stack([recipe.spectrogram(it, recipe.max_frames) for it in decoded]), np.array(filled)


class ImageClassifier(torch.nn.Module):
    """A ResNet with a linear layer on what it pools."""

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.config.hidden_sizes[-1], classes)

    def forward(self, values: torch.Tensor, _filled: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        logits: torch.Tensor = self.head(self.model(values).pooler_output.flatten(1))
        return logits


class AudioClassifier(torch.nn.Module):
    """Whisper's encoder with a linear layer on the mean of the positions that a clip fills."""

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.config.d_model, classes)

    def forward(self, values: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        """Logits of clips that fill so many positions."""
        hidden = self.model.get_encoder()(values).last_hidden_state
        real = (torch.arange(hidden.shape[1])[None] < filled[:, None]).to(hidden.dtype)[:, :, None]
        logits: torch.Tensor = self.head((hidden * real).sum(1) / real.sum(1))
        return logits


def fit(
    classifier: torch.nn.Module,
    values: NDArray[np.float32],
    filled: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    epochs: int,
    rate: float,
    change: Callable[[torch.Tensor], torch.Tensor],
    batch: int = 64,
) -> None:
    """Trains with AdamW and a one-cycle schedule, each batch changed a little each time."""
    steps = epochs * -(-len(labels) // batch)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    classifier.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels)).split(batch):
            if len(rows) < 2:  # of one image, batch normalisation can make nothing
                schedule.step()
                continue
            logits = classifier(change(torch.from_numpy(values[rows])), torch.from_numpy(filled[rows]))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += float(loss) * len(rows)
        if len(labels) > 1_000:
            print(
                f"epoch {epoch + 1} of {epochs}: loss {total / len(labels):.3f}", file=sys.stderr, flush=True
            )
    classifier.eval()


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Mirrored by chance, and moved by up to four pixels."""
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    down, right = torch.randint(-4, 5, (2,)).tolist()
    return torch.roll(images, (down, right), (2, 3))


def masked(spectra: torch.Tensor) -> torch.Tensor:
    """Louder or softer, in a band of pitches and for a moment unheard (SpecAugment, Park 2019)."""
    spectra = spectra + 0.2 * torch.randn(len(spectra), 1, 1)
    for row in spectra:
        low, begin = int(torch.randint(0, 70, ())), int(torch.randint(0, 60, ()))
        row[low : low + 10] = -1.0
        row[:, begin : begin + 5] = -1.0
    return spectra


class Voices:
    """Digits as others might say them: in another voice, faster or slower, in noise, a moment later.

    Used for training from scratch as for pre-training.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._recipe = LogMelRecipe.of_config(feature_extractor().to_dict())
        self.samples = [decode_audio(clip.data, RATE).samples for clip in clips]

    def batch(self, samples: Sequence[NDArray[np.float32]], generator: np.random.Generator) -> Heard:
        """Spectrograms of changed samples, and how many positions each fills."""
        values, filled = zip(*(self._changed(it, generator) for it in samples), strict=True)
        return masked(torch.from_numpy(np.stack(values))), torch.tensor(filled)

    def _changed(
        self, samples: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], int]:
        recipe = self._recipe
        speed = generator.uniform(0.8, 1.25)
        places = np.arange(0, len(samples) - 1, speed)
        samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
        late = np.zeros(int(generator.integers(0, RATE // 10)), np.float32)
        samples = np.concatenate([late, samples])[: recipe.max_frames * recipe.hop]
        loudness = 10 ** generator.uniform(-4.0, -1.5) * np.abs(samples).max()
        samples = samples + generator.normal(0, loudness, len(samples)).astype(np.float32)
        frames = recipe.frames(len(samples))
        spectrum = recipe.spectrogram(samples, recipe.max_frames)
        return _other_throat(spectrum, generator.uniform(0.85, 1.18)), -(-frames // 2)


def _other_throat(spectrum: NDArray[np.float32], stretch: float) -> NDArray[np.float32]:
    """With its formants moved, as a longer or shorter vocal tract does (Jaitly and Hinton 2013)."""
    bands = np.arange(len(spectrum))
    wanted = np.clip(bands * stretch, 0, len(spectrum) - 1)
    low = wanted.astype(np.int64)
    high, part = np.minimum(low + 1, len(spectrum) - 1), (wanted - low).astype(np.float32)[:, None]
    moved: NDArray[np.float32] = spectrum[low] * (1 - part) + spectrum[high] * part
    return moved


def pretrain_fashion(folder: Path) -> None:
    images, labels = fashion("train")
    rows = np.concatenate([np.flatnonzero(labels == it)[:PER_CLASS] for it in PRETRAINED])
    classifier = ImageClassifier(resnet(), len(PRETRAINED))
    nothing = np.zeros(len(rows), np.int64)
    fit(classifier, pixels(images[rows]), nothing, labels[rows], epochs=5, rate=3e-3, change=shifted)
    classifier.model.save_pretrained(folder)
    image_processor().save_pretrained(folder)


def pretrain_digits(folder: Path) -> None:
    clips = [it for it in digits() if it.digit in PRETRAINED and it.speaker in SPEAKERS]
    voices, generator = Voices(clips), np.random.default_rng(0)
    sounds = 2 * len(PRETRAINED)  # each forwards and backwards
    classifier = AudioClassifier(whisper(), 2 * sounds)

    def batches() -> Iterator[tuple[Heard, torch.Tensor]]:
        for rows in np.array_split(generator.permutation(len(clips)), len(clips) // 32):
            made = [_spliced(voices.samples, clips, int(row), generator) for row in rows]
            ends = torch.tensor([[first, last] for _, first, last in made])
            yield voices.batch([it for it, _, _ in made], generator), ends

    def loss(logits: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        first, last = logits.split(sounds, 1)
        cross_entropy = torch.nn.functional.cross_entropy
        return cross_entropy(first, ends[:, 0]) + cross_entropy(last, ends[:, 1])

    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "unfinished.pt"
    fit_heard(classifier, batches, loss, steps=len(clips) // 32, epochs=EPOCHS, rate=3e-3, state=state)
    state.unlink()
    classifier.model.save_pretrained(folder)
    feature_extractor().save_pretrained(folder)


def _spliced(
    samples: Sequence[NDArray[np.float32]], clips: Sequence[Clip], row: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], int, int]:
    """A clip, or its beginning and another's end, or that backwards; and what it begins and ends with."""
    made, first, last = samples[row], clips[row].digit, clips[row].digit
    if generator.random() < 0.6:
        other = int(generator.integers(len(clips)))
        here, there = (int(len(samples[it]) * generator.uniform(0.4, 0.6)) for it in (row, other))
        fade = min(RATE // 50, here, len(samples[other]) - there)
        up = np.linspace(0, 1, fade, dtype=np.float32)
        end = samples[other][there:]
        joint = made[here - fade : here] * (1 - up) + end[:fade] * up
        made, last = np.concatenate([made[: here - fade], joint, end[fade:]]), clips[other].digit
    if generator.random() < 0.3:
        return made[::-1], last + len(PRETRAINED), first + len(PRETRAINED)
    return made, first, last


def fit_heard(
    classifier: torch.nn.Module,
    batches: Callable[[], Iterator[tuple[Heard, torch.Tensor]]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    steps: int,
    epochs: int,
    rate: float,
    state: Path | None = None,
) -> None:
    """Trains on batches of changed clips, as `fit` does; `steps` of them are an epoch.

    What was cut off goes on from the last whole epoch, if there is a file for its `state`.
    """
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps * epochs)
    parts = {"classifier": classifier, "optimiser": optimiser, "schedule": schedule}
    begin = 0
    if state is not None and state.is_file():
        saved = torch.load(state, weights_only=True)
        begin = saved.pop("epoch")
        for name, content in saved.items():
            parts[name].load_state_dict(content)
    classifier.train()
    for epoch in range(begin, epochs):
        total = 0.0
        for (values, filled), answers in batches():
            found = loss(classifier(values, filled), answers)
            optimiser.zero_grad()
            found.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += float(found)
        if state is not None:
            print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.3f}", file=sys.stderr, flush=True)
            new = state.with_suffix(".new")
            torch.save({name: it.state_dict() for name, it in parts.items()} | {"epoch": epoch + 1}, new)
            new.replace(state)
    classifier.eval()


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    folder = Path(sys.argv[1])
    for name, pretrain in (("fashion", pretrain_fashion), ("digits", pretrain_digits)):
        if name in (sys.argv[2:] or [name]):
            torch.manual_seed(0)
            pretrain(folder / name)


if __name__ == "__main__":
    main()
