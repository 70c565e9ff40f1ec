"""Backbones that read sound: their description, and the preparation of clips.

Whisper was trained on windows of 30 s, mostly silence after a short clip, and reads them here too, unless its
checkpoint says otherwise: then it reads a clip and a little of the silence after it, in a small part of the time
(benchmarks/results/media.md). The loss of quality depends on the encoder (docs/images-and-audio.md), so it is not the
default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.checkpoint import Checkpoint, Described
from graft_server.backbones.decoding.audio import (
    READ_SECONDS,
    WAVEFORM_FRAME,
    AudioError,
    Heard,
    LogMelRecipe,
    Recipe,
    Samples,
    WaveformRecipe,
)
from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.backbones.preprocessing import Arrays, Budgets, Prepared, each_alone, wrong_modality
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Input, Kind, Modality

SPECTROGRAM_RECIPE, WAVEFORM_RECIPE = "spectrograms/3", "waveforms/1"
"""Name how the encoders' graphs are made. Change one whenever the same weights would give other features."""

PREPROCESSOR = "preprocessor_config.json"


def describe_whisper(checkpoint: Checkpoint) -> Described:
    """Describes a Whisper from its files. Raises BackboneError."""
    config = checkpoint.config
    return _described(
        checkpoint,
        int(config.get("encoder_layers", 4)),
        int(config.get("d_model", 384)),
        graph=SPECTROGRAM_RECIPE,
    )


def describe_waveform(checkpoint: Checkpoint) -> Described:
    """Describes a wav2vec 2.0 or HuBERT from its files. Raises BackboneError."""
    config = checkpoint.config
    return _described(
        checkpoint,
        int(config.get("num_hidden_layers", 12)),
        int(config.get("hidden_size", 768)),
        graph=WAVEFORM_RECIPE,
    )


def _described(checkpoint: Checkpoint, layers: int, dimension: int, graph: str) -> Described:
    return Described(
        layers=layers,
        dimension=dimension,
        pooling="mean",
        identity={"preprocessing": checkpoint.digest(PREPROCESSOR), "pooling": "mean", "graph": graph},
    )


class AudioPreprocessor:
    """Clips to spectrograms or samples. See `preprocessing.Preprocessor`.

    Attributes:
        recipe: The preparation of clips.
    """

    modality = Modality.AUDIO
    kinds = frozenset({Kind.AUDIO})
    always_reads = False
    warnings: tuple[str, ...] = ()

    def __init__(
        self, recipe: Recipe, frame: int, dimension: int, budgets: Budgets, limits: MediaLimits | None = None
    ) -> None:
        """Makes it.

        Args:
            recipe: What clips become.
            frame: The samples of one frame, the unit of an item's length.
            dimension: The dimension of the backbone's features.
            budgets: The budgets in frames.
            limits: The bounds of decoding.
        """
        self.recipe = recipe
        self.budgets = budgets
        self.longest = f"{self._seconds:g} s"
        self._frame = frame
        self._dimension = dimension
        self._limits = (limits or MediaLimits()).audio

    def within(self, limits: MediaLimits) -> AudioPreprocessor:
        """The same, with other limits."""
        return AudioPreprocessor(self.recipe, self._frame, self._dimension, self.budgets, limits)

    def prepare(self, value: Input) -> Prepared:
        """Decodes a clip: about 1 ms a second."""
        if value.kind is not Kind.AUDIO:
            raise wrong_modality(value.kind, self.modality, self.kinds)
        try:
            item = self.recipe.item(value.data, self._limits)
        except AudioError as error:
            raise InvalidError(str(error), reason=error.reason, field="audio") from error
        return Prepared(item, item.truncated)

    def many(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Decodes several."""
        return each_alone(self.prepare, inputs)

    def quick(self, inputs: Sequence[Input]) -> bool:  # noqa: ARG002
        """Never: a file may be anything."""
        return False

    def collate(self, items: Sequence[Heard]) -> Arrays:
        """Padded to the longest clip."""
        return self.recipe.collate(items)

    def price(self, count: int, total: int, longest: int) -> float:  # noqa: ARG002
        """In frames' worth of matrix products, of a batch that is padded to its longest clip; see `packing.cost`."""
        return count * longest * (1 + longest / (6 * self._dimension))

    def made_up(self, generator: np.random.Generator, length: int) -> Heard:
        """Noise of the given length in frames, up to the longest that is read; the graph takes any number of them."""
        recipe = self.recipe
        if isinstance(recipe, LogMelRecipe):
            recipe = replace(recipe, whole_window=False)
        return recipe.heard(self._noise(generator, length))

    def typical(self, generator: np.random.Generator) -> Heard:
        """Some words: 2 s in the middle, now and then 6."""
        seconds = float(np.clip(generator.lognormal(0.7, 0.5), 0.5, 8))
        return self.recipe.heard(self._noise(generator, round(seconds * self.recipe.rate / self._frame)))

    def shortest(self) -> Heard:
        """Almost nothing."""
        return self.made_up(np.random.default_rng(0), 2)

    @property
    def _seconds(self) -> float:
        return self.recipe.seconds if isinstance(self.recipe, LogMelRecipe) else READ_SECONDS

    def _noise(self, generator: np.random.Generator, frames: int) -> Samples:
        samples = min(frames * self._frame, int(self._seconds * self.recipe.rate))
        return generator.normal(0, 0.1, samples).astype(np.float32)


def spectrogram_preprocessor(backbone: Backbone) -> AudioPreprocessor:
    """Returns a backbone's preprocessor of clips to spectrograms. Raises BackboneError."""
    recipe = LogMelRecipe.of_config(_config(backbone))
    budgets = Budgets(cpu=(400, 200, 800, 1_600), gpu=(12_000, 6_000, 24_000, 48_000))
    return AudioPreprocessor(recipe, recipe.hop, backbone.dimension, budgets)


def waveform_preprocessor(backbone: Backbone) -> AudioPreprocessor:
    """Returns a backbone's preprocessor of clips to samples. Raises BackboneError."""
    budgets = Budgets(cpu=(200, 100, 400, 800), gpu=(6_000, 3_000, 12_000, 24_000))
    recipe = WaveformRecipe.of_config(_config(backbone))
    return AudioPreprocessor(recipe, WAVEFORM_FRAME, backbone.dimension, budgets)


def _config(backbone: Backbone) -> dict[str, Any]:
    return Checkpoint(backbone.name, backbone.folder).json(PREPROCESSOR)
