"""CLIP: images and texts in one space.

"pooled" is the image's place in that space; "cls" is the token that it is projected from, with half as many numbers
again in the usual sizes; the third view is the mean of all tokens half-way up.

Its text encoder becomes a graph of its own, beside the one of images. Names of classes go through it, and so are
evidence before there is any example:

    input_ids  (texts, longest) int64  padded behind each text's end mark with that mark
    pooled     (texts, dimension)      their places, unit-norm
    scale      () float32              what cosines are multiplied with to be logits, as the checkpoint learned it
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPVisionModelWithProjection

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.image.class_names import collate
from graft_server.backbones.torch import pictures
from graft_server.backbones.torch.family import OPSET, Graph, load, unit
from graft_server.backbones.torch.pictures import Pixels, Views, preprocessor_of
from graft_server.backbones.torch.vision_transformer import fix_positions
from graft_server.domain.views import POOLED
from graft_server.onnx_runtime import onnxruntime


class Clip:
    """See the module's docstring, and `family.TorchFamily`."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the image side, with its projection."""
        return load(backbone, CLIPVisionModelWithProjection, attn_implementation="eager")

    def graph(self, backbone: Backbone) -> Graph:
        """The image side, with its positions fixed."""
        model: Any = self.load(backbone)
        shape = preprocessor_of(backbone).recipe.shape
        fix_positions(model.vision_model.embeddings, shape, model.config.patch_size)
        module = pictures.UnitViews(model, backbone.middle_layer, _views)
        views = (POOLED, "cls", f"layer{backbone.middle_layer}")
        return pictures.graph(backbone, module, views, model.vision_model.encoder.layers)

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Pixels]
    ) -> list[NDArray[Any]]:
        """As transformers computes it, positions interpolated each time."""
        return pictures.one_by_one(
            backbone, lambda pixel_values: _views(model, backbone.middle_layer, pixel_values), items
        )


FAMILY = Clip()


def _views(model: Any, layer: int, pixel_values: torch.Tensor) -> Views:
    output = model(pixel_values, output_hidden_states=True, interpolate_pos_encoding=True)
    cls = model.vision_model.post_layernorm(output.last_hidden_state[:, 0])
    return output.image_embeds, cls, output.hidden_states[layer].mean(1)


class _Names(torch.nn.Module):
    scale: torch.Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text, self.project = model.text_model, model.text_projection
        self.register_buffer("scale", model.logit_scale.detach().exp().clone())

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return unit(self.project(self.text(input_ids=input_ids).pooler_output)), self.scale + 0.0


def export_names(backbone: Backbone, path: Path) -> float:
    """Exports the text encoder, and returns its largest difference to torch, relative to the largest component."""
    model: Any = load(backbone, CLIPModel, attn_implementation="eager")
    generator, config = np.random.default_rng(0), model.config.text_config
    batches = [
        [_made_up(config, length, generator) for length in lengths] for lengths in ((5, 7, 4), (3,), (9, 3))
    ]
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Names(model).eval(),
            (torch.from_numpy(collate(batches[0])["input_ids"]),),
            str(path),
            dynamo=True,
            dynamic_shapes=({0: free, 1: free},),
            opset_version=OPSET,
            input_names=["input_ids"],
            output_names=[POOLED, "scale"],
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    off = []
    for texts in batches:
        found, scale = session.run(None, collate(texts))
        for row, text in zip(found, texts, strict=True):
            with torch.no_grad():
                alone = model.get_text_features(input_ids=torch.from_numpy(text)[None])
                right = unit(getattr(alone, "pooler_output", alone))[0].numpy()
            off.append(float(np.abs(row - right).max() / np.abs(right).max()))
        off.append(abs(float(scale) / float(model.logit_scale.detach().exp()) - 1))
    return max(off)


def _made_up(config: Any, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Random tokens, the last of which is an end mark."""
    # Configurations of the first releases have a wrong one; there the largest id is taken for it.
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    ids = generator.integers(3, config.vocab_size - 1, min(length, config.max_position_embeddings))
    return np.append(ids[:-1], end)
