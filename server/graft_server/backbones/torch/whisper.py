"""Whisper's encoder, on as much of its window as a clip fills.

Whisper reads windows of 30 s, whatever a clip's length. Here positions are cut to the clip, and clips of one batch
need not be equally long: attention does not see what pads the shorter ones, and no convolution reaches into it, so
features do not depend on who shares the batch.

    input_features  (clips, mels, longest) float32  log-mel frames, an even number, 0 behind a clip's own
    attended        (clips,) int64                  positions that belong to a clip, two frames each
    heard           (clips,) int64                  those of them that sound fills: the rest is silence
    pooled          (clips, dimension)              the mean of the last layer where there is sound, unit-norm
    layerN          (clips, dimension)              that of layer N, half-way up, unit-norm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.audio import Heard
from graft_server.backbones.torch.family import Graph, load, one_by_one, unit
from graft_server.domain.views import POOLED


class Whisper:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model, and leaves its decoder."""
        model: Any = load(backbone, unused=("decoder.",), attn_implementation="eager")
        encoder: torch.nn.Module = model.get_encoder()
        return encoder

    def graph(self, backbone: Backbone) -> Graph:
        """The encoder on cut positions."""
        free = torch.export.Dim.DYNAMIC
        preprocessor, generator = backbone.preprocessor(), np.random.default_rng(0)
        model: Any = self.load(backbone)
        return Graph(
            module=_Encoder(model, backbone.middle_layer).eval(),
            items=[preprocessor.made_up(generator, length) for length in (90, 170, 40)],
            # Frames come in pairs: one position is two of them.
            dynamic={
                "input_features": {0: free, 2: 2 * torch.export.Dim("positions", min=2)},
                "attended": {0: free},
                "heard": {0: free},
            },
            views=(POOLED, f"layer{backbone.middle_layer}"),
            layers=model.layers,
        )

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Heard]
    ) -> list[NDArray[Any]]:
        """As transformers computes it of a model that has as many positions as the clip, one clip at a time."""

        def views(item: Heard) -> tuple[torch.Tensor, torch.Tensor]:
            cut, values = _cut(model, len(item) // 2), torch.from_numpy(item.values.T)[None]
            output, heard = cut(values, output_hidden_states=True), -(-item.heard // 2)
            middle = output.hidden_states[backbone.middle_layer]
            return output.last_hidden_state[0, :heard].mean(0), middle[0, :heard].mean(0)

        return one_by_one(views, items)


FAMILY = Whisper()


class _Encoder(torch.nn.Module):
    def __init__(self, model: Any, layer: int) -> None:
        super().__init__()
        self.model = model
        self.layer = layer

    def forward(
        self, input_features: torch.Tensor, attended: torch.Tensor, heard: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        hidden = torch.nn.functional.gelu(model.conv1(input_features))
        hidden = torch.nn.functional.gelu(model.conv2(hidden)).permute(0, 2, 1)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        mask = attention_bias(places, attended)
        middle = hidden
        for number, layer in enumerate(model.layers, start=1):
            hidden = layer(hidden, mask)
            if number == self.layer:
                middle = hidden
        return (
            unit(mean_of_first(model.layer_norm(hidden), heard)),
            unit(mean_of_first(middle, heard)),
        )


def attention_bias(places: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """What is added to attention's logits so that only the first `attended` places are seen: (n, 1, 1, places)."""
    return torch.where(places[None] < attended[:, None], 0.0, -1e9)[:, None, None, :]


def mean_of_first(hidden: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The mean of each row's first places, of (n, places, d)."""
    places = torch.arange(hidden.shape[1], device=hidden.device)
    real = (places[None] < counts[:, None]).to(hidden.dtype)[:, :, None]
    return (hidden * real).sum(1) / real.sum(1)


def _cut(model: Any, positions: int) -> Any:
    """The same model, with its first positions only."""
    whole = model.__dict__.setdefault("_whole_positions", model.embed_positions.weight)
    model.config.max_source_positions = positions
    model.embed_positions = torch.nn.Embedding(positions, whole.shape[1], _weight=whole[:positions])
    return model
