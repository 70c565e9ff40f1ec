"""Vision transformers: ViT and DINOv2, with and without registers.

"pooled" is the last layer's CLS token, normalised as the model does it; "patches" is the mean of its patches, which
knows more of what is in the picture beside its main object; the third view is the mean of all tokens half-way up.

Position embeddings are interpolated to the images' size once, at export: the graph has them as a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.torch import pictures
from graft_server.backbones.torch.family import Graph, load
from graft_server.backbones.torch.pictures import Pixels, Views, preprocessor_of
from graft_server.domain.views import POOLED

_UNUSED = ("embeddings.mask_token",)
"""It hides patches in pre-training."""


class VisionTransformer:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model, without the pooler that ViT's checkpoints mostly have no weights for."""
        options = {"add_pooling_layer": False} if backbone.architecture == "vit" else {}
        return load(backbone, unused=_UNUSED, attn_implementation="eager", **options)

    def graph(self, backbone: Backbone) -> Graph:
        """The model with its positions fixed."""
        model: Any = self.load(backbone)
        fix_positions(model.embeddings, preprocessor_of(backbone).recipe.shape, _patches(model))
        module = pictures.UnitViews(model, backbone.middle_layer, _views)
        views = (POOLED, "patches", f"layer{backbone.middle_layer}")
        layers = model.layers if hasattr(model, "layers") else model.encoder.layer
        return pictures.graph(backbone, module, views, layers)

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Pixels]
    ) -> list[NDArray[Any]]:
        """As transformers computes it, positions interpolated each time."""
        return pictures.one_by_one(
            backbone, lambda pixel_values: _views(model, backbone.middle_layer, pixel_values), items
        )


FAMILY = VisionTransformer()


def _views(model: Any, layer: int, pixel_values: torch.Tensor) -> Views:
    options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    output = model(pixel_values, output_hidden_states=True, **options)
    last = output.last_hidden_state
    before = 1 + getattr(model.config, "num_register_tokens", 0)  # CLS, and registers that mean nothing
    return last[:, 0], last[:, before:].mean(1), output.hidden_states[layer].mean(1)


def _patches(model: Any) -> int:
    size = model.config.patch_size
    return int(size if isinstance(size, int) else size[0])


def fix_positions(embeddings: Any, shape: tuple[int, int], patch: int) -> None:
    """Has a model's embeddings give the positions of one size of image, computed now."""
    height, width = shape
    tokens = 1 + (height // patch) * (width // patch)
    with torch.no_grad():
        # Only the number of tokens and their dimension are read of the argument.
        like = torch.empty(1, tokens, _dimension(embeddings))
        fixed = embeddings.interpolate_pos_encoding(like, height, width).detach().clone()
    embeddings.register_buffer("fixed_positions", fixed, persistent=False)
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.fixed_positions


def _dimension(embeddings: Any) -> int:
    positions = getattr(embeddings, "position_embeddings", None)
    return int(embeddings.embed_dim if positions is None else positions.shape[-1])
