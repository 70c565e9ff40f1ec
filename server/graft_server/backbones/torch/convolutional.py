"""Convolutional image encoders: ResNet and ConvNeXt, all sizes.

Their layers, as far as views and fine-tuning are concerned, are the stages: blocks of one resolution. "pooled" is
the mean over the last stage's places, and the second view that of the stage before, which has more of texture
and less of what the checkpoint's own classes were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from graft_server.backbones.source import Backbone
from graft_server.backbones.torch import pictures
from graft_server.backbones.torch.family import Graph, load, unit
from graft_server.backbones.torch.pictures import Pixels, Views, places


class Convolutional:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model."""
        return load(backbone)

    def graph(self, backbone: Backbone) -> Graph:
        """Stage by stage."""
        module = _Stages(self.load(backbone))
        return pictures.graph(backbone, module, ("pooled", f"layer{backbone.layers - 1}"), module.stages)

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Pixels]
    ) -> list[NDArray[Any]]:
        """As transformers computes it."""

        def look(pixel_values: torch.Tensor) -> Views:
            output = model(pixel_values, output_hidden_states=True)
            return output.pooler_output.flatten(1), places(output.hidden_states[-2])

        return pictures.one_by_one(backbone, look, items)


FAMILY = Convolutional()


class _Stages(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed = model.embedder if hasattr(model, "embedder") else model.embeddings
        self.stages = model.encoder.stages
        # ConvNeXt normalises the mean, ResNet does not.
        self.normalise = getattr(model, "layernorm", torch.nn.Identity())

    def forward(self, pixel_values: torch.Tensor) -> Views:
        hidden = self.embed(pixel_values)
        for stage in self.stages[:-1]:
            hidden = stage(hidden)
        last = self.stages[-1](hidden)
        return unit(self.normalise(places(last))), unit(places(hidden))
