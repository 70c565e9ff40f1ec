"""Convolutional image encoders: ResNet and ConvNeXt, all sizes.

Their layers, as far as views and fine-tuning are concerned, are the stages: blocks of one resolution. "pooled" is
the mean over the last stage's places, and the second view that of the stage before, which has more of texture
and less of what the checkpoint's own classes were. Both forget where something was seen. The third one does not: the
means over the cells of a grid, of the stage before that, which sees parts. It tells apart what stands alike in every
image (products, scans, documents): `benchmarks/results/transfer.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.torch import pictures
from graft_server.backbones.torch.family import Graph, load, unit
from graft_server.backbones.torch.pictures import Pixels, Views, places
from graft_server.domain.views import POOLED

GRID_CELLS = 4
"""Cells of each side of the grid, at most."""
GRID_DIMENSION = 2048
"""Numbers of the view of a grid, at most: as many as ResNet-50's "pooled" has."""


class Convolutional:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model."""
        return load(backbone)

    def graph(self, backbone: Backbone) -> Graph:
        """Stage by stage."""
        module = _Stages(self.load(backbone))
        views = (POOLED, f"layer{backbone.layers - 1}", f"grid{backbone.layers - 2}")
        return pictures.graph(backbone, module, views, module.stages)

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Pixels]
    ) -> list[NDArray[Any]]:
        """As transformers computes it."""

        def look(pixel_values: torch.Tensor) -> Views:
            output = model(pixel_values, output_hidden_states=True)
            hidden = output.hidden_states
            return output.pooler_output.flatten(1), places(hidden[-2]), cells(hidden[-3])

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
        for stage in self.stages[:-2]:
            hidden = stage(hidden)
        lower = self.stages[-2](hidden)
        last = self.stages[-1](lower)
        return unit(self.normalise(places(last))), unit(places(lower)), unit(cells(hidden))


def cells(hidden: torch.Tensor) -> torch.Tensor:
    """The means over the cells of a grid, (images, channels x cells), of (images, channels, height, width).

    The grid is as fine as GRID_CELLS, GRID_DIMENSION and the places allow.
    """
    channels, edge = hidden.shape[1], min(hidden.shape[2:])
    sides = max(1, min(GRID_CELLS, edge, math.isqrt(GRID_DIMENSION // channels)))
    return adaptive_avg_pool2d(hidden, sides).flatten(1)
