"""wav2vec 2.0 and HuBERT: encoders of the samples themselves.

Clips of one batch need not be equally long. Behind a shorter clip's own frames nothing is seen: its convolutions
have no padding, the first one's normalisation takes means over the clip's own frames (transformers takes them over
the padding too, so that there features depend on who shares the batch), and attention is masked.

    input_values  (clips, longest) float32  samples, 0 behind a clip's own
    samples       (clips,) int64            how many are its own
    pooled        (clips, dimension)        the mean of the last layer, unit-norm
    layerN        (clips, dimension)        that of layer N, half-way up, unit-norm: it knows more of who speaks and
                                            of sounds, the last layer more of what is said
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import parametrize

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.audio import Heard
from graft_server.backbones.torch.family import Graph, load, one_by_one, unit
from graft_server.backbones.torch.whisper import attention_bias, mean_of_first
from graft_server.domain.views import POOLED

_UNUSED = ("masked_spec_embed",)
"""It hides frames in pre-training."""


class Waveform:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model."""
        return load(backbone, unused=_UNUSED, attn_implementation="eager")

    def graph(self, backbone: Backbone) -> Graph:
        """The encoder with masked means."""
        free = torch.export.Dim.DYNAMIC
        preprocessor, generator = backbone.preprocessor(), np.random.default_rng(0)
        model: Any = self.load(backbone)
        return Graph(
            module=_Encoder(model, backbone.middle_layer).eval(),
            items=[preprocessor.made_up(generator, length) for length in (15, 26, 10)],
            dynamic={"input_values": {0: free, 1: free}, "samples": {0: free}},
            views=(POOLED, f"layer{backbone.middle_layer}"),
            layers=model.encoder.layers,
        )

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Heard]
    ) -> list[NDArray[Any]]:
        """As transformers computes it, one clip at a time."""

        def views(item: Heard) -> tuple[torch.Tensor, torch.Tensor]:
            output = model(torch.from_numpy(item.values)[None], output_hidden_states=True)
            return output.last_hidden_state[0].mean(0), output.hidden_states[backbone.middle_layer][0].mean(0)

        return one_by_one(views, items)


FAMILY = Waveform()


class _Encoder(torch.nn.Module):
    def __init__(self, model: Any, layer: int) -> None:
        super().__init__()
        self.convolutions = model.feature_extractor.conv_layers
        self.project = model.feature_projection
        self.positions = model.encoder.pos_conv_embed
        _bake(self.positions.conv)
        self.layers = model.encoder.layers
        self.normalise = model.encoder.layer_norm
        self.last = bool(model.config.do_stable_layer_norm)
        """Whether the normalisation comes behind all layers, or before."""
        self.layer = layer

    def forward(self, input_values: torch.Tensor, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, frames = input_values[:, None], samples
        for convolution in self.convolutions:
            frames = (frames - convolution.conv.kernel_size[0]) // convolution.conv.stride[0] + 1
            hidden = _convolved(convolution, hidden, frames)
        hidden = self.project(hidden.transpose(1, 2))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        places = torch.arange(hidden.shape[1], device=hidden.device)
        # The positions' convolution reaches 64 frames to both sides: what is not the clip's must be 0.
        hidden = hidden * (places[None] < frames[:, None]).to(hidden.dtype)[:, :, None]
        hidden = hidden + self.positions(hidden)
        if not self.last:
            hidden = self.normalise(hidden)
        mask, middle = attention_bias(places, frames), hidden
        for number, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, attention_mask=mask)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            if number == self.layer:
                middle = hidden
        if self.last:
            hidden = self.normalise(hidden)
        return unit(mean_of_first(hidden, frames)), unit(mean_of_first(middle, frames))


def _convolved(convolution: Any, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """A convolution of the feature extractor; `frames` of what it gives are a clip's own."""
    if not isinstance(getattr(convolution, "layer_norm", None), torch.nn.GroupNorm):
        convolved: torch.Tensor = convolution(hidden)  # normalised frame by frame, or not at all
        return convolved
    hidden = convolution.conv(hidden)
    # One group a channel: each channel's mean and variance over time.
    norm = convolution.layer_norm
    places = torch.arange(hidden.shape[2], device=hidden.device)
    real = (places[None] < frames[:, None]).to(hidden.dtype)[:, None, :]
    count = real.sum(2, keepdim=True)
    mean = (hidden * real).sum(2, keepdim=True) / count
    variance = ((hidden - mean) ** 2 * real).sum(2, keepdim=True) / count
    hidden = (hidden - mean) / torch.sqrt(variance + norm.eps)
    activated: torch.Tensor = convolution.activation(
        hidden * norm.weight[None, :, None] + norm.bias[None, :, None]
    )
    return activated


def _bake(convolution: torch.nn.Module) -> None:
    """Makes weights that are computed each time (weight normalisation) constants."""
    if parametrize.is_parametrized(convolution, "weight"):
        parametrize.remove_parametrizations(convolution, "weight")
