"""Text models whose attention cannot be packed: decoders, T5, DeBERTa, MPNet, CLIP's text side.

    input_ids       (texts, longest) int64  padded on the right
    attention_mask  (texts, longest) int64  1 where there is a token
    pooled          (texts, dimension)      what the backbone says of the text, float32, unit-norm
    layerN          (texts, dimension)      the mean of layer N, half-way up, float32, unit-norm

Padding after a text does not change its features: decoders only look back, the others use the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, CLIPTextModelWithProjection, T5EncoderModel

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.torch.family import Graph, load, one_by_one, unit
from graft_server.domain.views import POOLED

_CLASSES = {"t5": T5EncoderModel, "clip_text_model": CLIPTextModelWithProjection}
"""Where transformers' Auto class would load more than the part that reads a text."""

UNUSED = ("pooler.",)
"""The head that BERT and its kin have on the first token: many checkpoints lack it, and no view reads it."""

_LAYERS = ("encoder.layer", "transformer.layer", "h", "layers", "encoder.block", "text_model.encoder.layers")


class PaddedText:
    """See the module's docstring."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model."""
        auto = _CLASSES.get(backbone.architecture, AutoModel)
        return load(backbone, auto, unused=UNUSED, attn_implementation="eager")

    def graph(self, backbone: Backbone) -> Graph:
        """The padded graph."""
        free = torch.export.Dim.DYNAMIC
        model = self.load(backbone)
        return Graph(
            module=_PaddedText(model, backbone).eval(),
            items=[np.arange(1, 1 + length) for length in (5, 7, 3)],
            dynamic={"input_ids": {0: free, 1: free}, "attention_mask": {0: free, 1: free}},
            views=(POOLED, f"layer{backbone.middle_layer}"),
            layers=transformer_layers(model),
        )

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Both views, one text at a time."""

        def views(ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            output = model(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True)
            return _alone(output, backbone.pooling), output.hidden_states[backbone.middle_layer][0].mean(0)

        return one_by_one(views, items)


FAMILY = PaddedText()


def transformer_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a transformer, from the bottom up, wherever its class keeps them."""
    for path in _LAYERS:
        try:
            return [*model.get_submodule(path).children()]
        except AttributeError:
            continue
    raise LookupError(f"{type(model).__name__} keeps its layers in none of {', '.join(_LAYERS)}")


def _alone(output: Any, pooling: str) -> torch.Tensor:
    """The pooled features of one text."""
    if pooling == "projection":
        return output.text_embeds[0]  # type: ignore[no-any-return]
    last = output.last_hidden_state[0]
    return {"cls": last[0], "last": last[-1], "mean": last.mean(0)}[pooling]  # type: ignore[no-any-return]


class _PaddedText(torch.nn.Module):
    """A text model over padded tokens, with pooling and normalisation inside."""

    def __init__(self, model: torch.nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.model = model
        self.pooling = backbone.pooling
        self.layer = backbone.middle_layer

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        pooled = self._pooled(output, attention_mask)
        middle = _mean(output.hidden_states[self.layer], attention_mask)
        return unit(pooled), unit(middle)

    def _pooled(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        if self.pooling == "projection":
            return output.text_embeds  # type: ignore[no-any-return]
        hidden = output.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]  # type: ignore[no-any-return]
        if self.pooling == "mean":
            return _mean(hidden, mask)
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, last)[:, 0]  # type: ignore[no-any-return]


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over each text's own tokens."""
    real = mask.to(hidden.dtype)[:, :, None]
    return (hidden * real).sum(1) / real.sum(1)
