"""Exports a text backbone to the ONNX graph that serves it, and checks that the graph tells the same.

The graph reads packed tokens: the tokens of all texts of a batch in one row, without padding, so that the
matrix products, where 9/10 of the time goes, never touch a padding token. Only attention, which must not cross
from one text into another, is computed on a padded copy (the idea of ByteTransformer, Zhai et al. 2022), so its
cost is that of the texts' own lengths rather than of the square of the packed row.

    input_ids     (tokens,) int64         the texts' token ids, one text after the other
    position_ids  (tokens,) int64         each token's place in its text, from 0
    rows          (texts, longest) int64  which token stands at each place of each text; -1: none
    cells         (tokens,) int64         the reverse: text * longest + place of each token
    pooled        (texts, dimension)      the last layer, float32, unit-norm
    layerN        (texts, dimension)      the mean of layer N, half-way up, float32, unit-norm

The second view costs next to nothing, and helps where meaning is not topic: what the upper layers have already
thrown away (measured in benchmarks/heads).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from transformers import AutoModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from graft_server.backbones.cache import GRAPH, EncoderCache
from graft_server.backbones.packing import pack
from graft_server.errors import BackboneError

_log = logging.getLogger(__name__)

OPSET = 18
PARITY = 1e-4
"""The largest absolute difference allowed between the graph's features and torch's, on unit-norm features."""

_PARITY_LENGTHS = ((2,), (3, 5), (17, 2, 31), (64, 3, 3, 9, 33, 7, 2), (5,) * 13, (129, 4))
_ATTENTION = "graft_packed"


class _PackedText(torch.nn.Module):
    """A text encoder over packed tokens, with pooling and normalisation inside."""

    def __init__(self, model: torch.nn.Module, pooling: str, layer: int) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.layer = layer

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        rows: torch.Tensor,
        cells: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # transformers hands further keywords down to the attention function.
        output = self.model(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            output_hidden_states=True,
            rows=rows,
            cells=cells,
        )
        last = output.last_hidden_state[0]
        pooled = last.index_select(0, rows[:, 0]) if self.pooling == "cls" else _mean(last, rows)
        middle = _mean(output.hidden_states[self.layer][0], rows)
        return _unit(pooled), _unit(middle)


def _mean(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The mean of each text's tokens, shape (texts, dimension), of packed tokens."""
    texts, longest = rows.shape
    padded = hidden.index_select(0, rows.clamp(min=0).reshape(-1)).reshape(texts, longest, -1)
    real = (rows >= 0).to(hidden.dtype)[:, :, None]
    return (padded * real).sum(1) / real.sum(1)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


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


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION, lambda *_, **__: None)


def export_encoder(
    payload: Mapping[str, Any], progress: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Exports one backbone into the cache. A job of `jobs`.

    Args:
        payload: `name`, `folder`, `pooling`, `layer` (of the second view), `encoder_id` and `max_tokens` of
            the backbone; `cache`: the cache's folder.
        progress: Told the stage.

    Returns:
        `parity`: the largest difference to torch that was seen.

    Raises:
        BackboneError: The architecture is not supported, or the graph does not agree with torch.
    """
    folder, pooling, layer = Path(payload["folder"]), str(payload["pooling"]), int(payload["layer"])
    progress({"stage": "loading"})
    reference = _load(str(payload["name"]), folder, "eager")
    packed = _PackedText(_load(str(payload["name"]), folder, _ATTENTION), pooling, layer).eval()
    with EncoderCache(Path(payload["cache"])).new_entry(str(payload["encoder_id"])) as entry:
        progress({"stage": "exporting"})
        _export(packed, entry / GRAPH)
        progress({"stage": "checking"})
        parity = _check(reference, packed, entry / GRAPH, int(payload["max_tokens"]))
        if not parity <= PARITY:
            raise BackboneError(
                f"Backbone {payload['name']}: the exported graph differs from torch by {parity:.1e} (at most "
                f"{PARITY:.0e} is accepted), so it is not served.",
                reason="EXPORT_PARITY",
            )
    return {"parity": parity}


def _load(name: str, folder: Path, attention: str) -> torch.nn.Module:
    try:
        return AutoModel.from_pretrained(  # type: ignore[no-any-return]
            folder,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        ).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        _log.exception("loading backbone %s", name)
        raise BackboneError(
            f"Backbone {name}: transformers cannot load it ({type(error).__name__}); the server's log has the "
            "details.",
            reason="BACKBONE_LOAD_FAILED",
        ) from error


def _export(packed: _PackedText, path: Path) -> None:
    lengths = (5, 7, 3)
    batch = pack([np.arange(1, 1 + length) for length in lengths])
    arguments = tuple(torch.from_numpy(array) for array in batch.values())
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            packed,
            arguments,
            str(path),
            dynamo=True,
            dynamic_shapes=({0: free}, {0: free}, {0: free, 1: free}, {0: free}),
            opset_version=OPSET,
            input_names=list(batch),
            output_names=["pooled", f"layer{packed.layer}"],
            external_data=False,
            verbose=False,
        )


def _check(reference: torch.nn.Module, packed: _PackedText, path: Path, max_tokens: int) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    vocabulary = int(reference.config.vocab_size)  # type: ignore[union-attr, arg-type]
    worst = 0.0
    for lengths in (*_PARITY_LENGTHS, (max_tokens, 1)):
        texts = [generator.integers(1, vocabulary, min(length, max_tokens)) for length in lengths]
        graph = session.run(None, pack(texts))
        for got, right in zip(graph, _reference(reference, packed, texts), strict=True):
            worst = max(worst, float(np.abs(got - right).max()))
    return worst


def _reference(
    model: torch.nn.Module, packed: _PackedText, texts: list[NDArray[np.int64]]
) -> list[NDArray[np.float32]]:
    """Both views by torch alone, one text at a time: no padding, no mask, nothing shared with the graph."""
    pooled, middle = [], []
    with torch.no_grad():
        for text in texts:
            output = model(input_ids=torch.from_numpy(text)[None], output_hidden_states=True)
            last = output.last_hidden_state[0]
            pooled.append(last[0] if packed.pooling == "cls" else last.mean(0))
            middle.append(output.hidden_states[packed.layer][0].mean(0))
    return [_unit(torch.stack(rows)).numpy() for rows in (pooled, middle)]
