"""What the families of image encoders have in common: images to look at, and how they are compared.

    pixel_values  (images, 3, height, width) float32  of the size that preprocessor_config.json says
    pooled        (images, dimension)                 what the architecture itself makes of an image, unit-norm
    layerN        (images, dimension of layer N)      the mean over the places of a layer below, unit-norm

Each family adds its further views.

All images of a backbone have one size; how many there are in a batch differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.image.preprocessor import ImagePreprocessor
from graft_server.backbones.torch.family import Graph, unit

Pixels = NDArray[np.uint8]
Views = tuple[torch.Tensor, ...]
Looks = Callable[[torch.Tensor], Views]
"""One image by torch alone: (1, 3, height, width) to the views before they are made unit-norm."""

INPUT = "pixel_values"


class UnitViews(torch.nn.Module):
    """A model from pixels to its views, each unit-norm: what is exported where a model runs as it is."""

    def __init__(self, model: torch.nn.Module, layer: int, views: Callable[..., Views]) -> None:
        """`views` takes the model, a layer and pixels, and gives the views before they are made unit-norm."""
        super().__init__()
        self.model = model
        self.layer = layer
        self.views = views

    def forward(self, pixel_values: torch.Tensor) -> Views:
        """The views of images."""
        return tuple(unit(view) for view in self.views(self.model, self.layer, pixel_values))


def preprocessor_of(backbone: Backbone) -> ImagePreprocessor:
    """The preprocessor of an image backbone."""
    preprocessor = backbone.preprocessor()
    assert isinstance(preprocessor, ImagePreprocessor)  # noqa: S101 - the family says so
    return preprocessor


def graph(
    backbone: Backbone, module: torch.nn.Module, views: tuple[str, ...], layers: Iterable[torch.nn.Module]
) -> Graph:
    """The graph of a module from pixels to views."""
    preprocessor, generator = preprocessor_of(backbone), np.random.default_rng(0)
    items = [preprocessor.typical(generator) for _ in range(3)]
    return Graph(module.eval(), items, {INPUT: {0: torch.export.Dim.DYNAMIC}}, views, list(layers))


def one_by_one(backbone: Backbone, looks: Looks, items: Sequence[Pixels]) -> list[NDArray[Any]]:
    """The unit-norm views of images, each looked at alone."""
    preprocessor = preprocessor_of(backbone)
    rows: list[Views] = []
    with torch.no_grad():
        for pixels in items:
            batch = torch.from_numpy(preprocessor.collate([pixels])[INPUT])
            rows.append(tuple(unit(view) for view in looks(batch)))
    return [torch.cat(view).numpy() for view in zip(*rows, strict=True)]


def places(hidden: torch.Tensor) -> torch.Tensor:
    """The mean over the places of (images, channels, height, width)."""
    return hidden.mean((-2, -1))
