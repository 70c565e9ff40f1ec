"""Text encoders over packed tokens: BERT and its kin.

The graph reads packed tokens: the tokens of all texts of a batch in one row, without padding, so that the
matrix products, where 9/10 of the time goes, never touch a padding token. Only attention, which must not cross
from one text into another, is computed on a padded copy (the idea of ByteTransformer, Zhai et al. 2022), so its
cost is that of the texts' own lengths rather than of the square of the packed row.

    input_ids     (tokens,) int64         the texts' token ids, one text after the other; if the model tells
                                          the texts of a pair apart, -1 - id is a token of the second
    position_ids  (tokens,) int64         each token's place in its text, from 0
    rows          (texts, longest) int64  which token stands at each place of each text; -1: none
    cells         (tokens,) int64         the reverse: text * longest + place of each token
    pooled        (texts, dimension)      the last layer, float32, unit-norm
    layerN        (texts, dimension)      the mean of layer N, half-way up, float32, unit-norm

The second view costs next to nothing, and helps where meaning is not topic: what the upper layers have already
thrown away (measured in benchmarks/heads).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.torch.family import Graph, load, one_by_one, unit
from graft_server.backbones.torch.padded_text import UNUSED, transformer_layers
from graft_server.domain.views import POOLED

PACKED = "graft_packed"


class PackedText:
    """See the module's docstring."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model."""
        return load(backbone, unused=UNUSED, attn_implementation="eager")

    def graph(self, backbone: Backbone) -> Graph:
        """The packed graph."""
        layer = backbone.middle_layer
        model = load(backbone, unused=UNUSED, attn_implementation=PACKED)
        module = _PackedText(model, backbone.pooling, layer).eval()
        free = torch.export.Dim.DYNAMIC
        return Graph(
            module=module,
            items=[np.arange(1, 1 + length) for length in (5, 7, 3)],
            dynamic={
                "input_ids": {0: free},
                "position_ids": {0: free},
                "rows": {0: free, 1: free},
                "cells": {0: free},
            },
            views=(POOLED, f"layer{layer}"),
            layers=transformer_layers(model),
        )

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Both views, one text at a time."""

        def views(ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            output = model(**read_of(model, torch.from_numpy(ids)[None]), output_hidden_states=True)
            last = output.last_hidden_state[0]
            pooled = last[0] if backbone.pooling == "cls" else last.mean(0)
            return pooled, output.hidden_states[backbone.middle_layer][0].mean(0)

        return one_by_one(views, items)


FAMILY = PackedText()


def read_of(model: torch.nn.Module, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the model is given of ids as the graph reads them: see `backbones.text.preprocessor.with_token_types`."""
    if getattr(model.config, "type_vocab_size", 0) < 2:
        return {"input_ids": input_ids}
    second = input_ids < 0
    return {"input_ids": torch.where(second, -1 - input_ids, input_ids), "token_type_ids": second.long()}


def first_position(model: torch.nn.Module) -> int:
    """The position of a text's first token: RoBERTa's come behind that of padding."""
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


class _PackedText(torch.nn.Module):
    """A text encoder over packed tokens, with pooling and normalisation inside."""

    def __init__(self, model: torch.nn.Module, pooling: str, layer: int) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.layer = layer
        self.first_position = first_position(model)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        rows: torch.Tensor,
        cells: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # transformers hands further keywords down to the attention function.
        output = self.model(
            **read_of(self.model, input_ids[None]),
            position_ids=position_ids[None] + self.first_position,
            output_hidden_states=True,
            rows=rows,
            cells=cells,
        )
        last = output.last_hidden_state[0]
        pooled = last.index_select(0, rows[:, 0]) if self.pooling == "cls" else mean_of_texts(last, rows)
        middle = mean_of_texts(output.hidden_states[self.layer][0], rows)
        return unit(pooled), unit(middle)


def mean_of_texts(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The mean of each text's tokens, shape (texts, dimension), of packed tokens."""
    texts, longest = rows.shape
    padded = hidden.index_select(0, rows.clamp(min=0).reshape(-1)).reshape(texts, longest, -1)
    real = (rows >= 0).to(hidden.dtype)[:, :, None]
    return (padded * real).sum(1) / real.sum(1)


def _packed_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    rows: torch.Tensor,
    cells: torch.Tensor,
    scaling: float,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text. Query, key and value have shape (1, heads, tokens, head dimension)."""
    texts, longest = rows.shape
    _, heads, tokens, dimension = query.shape
    places = rows.clamp(min=0).reshape(-1)

    def padded(packed: torch.Tensor) -> torch.Tensor:
        flat = packed[0].transpose(0, 1).reshape(tokens, heads * dimension)
        return flat.index_select(0, places).reshape(texts, longest, heads, dimension).transpose(1, 2)

    bias = torch.where(rows >= 0, 0.0, -1e9)[:, None, None, :].to(query.dtype)
    scores = torch.matmul(padded(query) * scaling, padded(key).transpose(2, 3)) + bias
    mixed = torch.matmul(torch.softmax(scores, -1), padded(value))
    flat = mixed.transpose(1, 2).reshape(texts * longest, heads * dimension)
    return flat.index_select(0, cells).reshape(1, tokens, heads, dimension), None


ALL_ATTENTION_FUNCTIONS.register(PACKED, _packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, lambda *_, **__: None)
