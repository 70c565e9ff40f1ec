"""Low-rank adapters (LoRA, Hu et al. 2022) in the training's own loop, to see whether they would earn their place.

Every matrix product of every layer gets an adapter, those of attention and of the feed-forward part (in QLoRA,
Dettmers et al. 2023, it took all of them to reach full tuning), and the weights beneath stay as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from benchmarks.datasets import banking77
from benchmarks.harness import CACHE, Figure
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning.tunable import Tunable
from graft_server.encoding.encoder import Encoder

SCALE = 2.0
"""Alpha over the rank."""
MODELS = 20
TEXTS = 480
BATCH = 12
ROUNDS = 3


class Adapter(torch.nn.Module):
    """A linear layer that stays as it is, plus a product of low rank that starts at 0."""

    def __init__(self, base: torch.nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Parameter(torch.empty(rank, base.in_features))
        self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank))
        torch.nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Shape (..., out) of (..., in)."""
        low = torch.nn.functional.linear(torch.nn.functional.linear(values, self.down), self.up)
        found: torch.Tensor = self.base(values) + SCALE * low
        return found


def adapt(model: Tunable, rank: int) -> None:
    """Puts an adapter around every linear layer of the layers, and leaves only adapters and the head to be trained."""
    model.module.requires_grad_(False)
    (stack,) = {it for path, it in model.module.named_modules() if path == model._stack}  # noqa: SLF001
    for layer in stack.children():
        for path, module in list(layer.named_modules()):
            if isinstance(module, torch.nn.Linear):
                parent, _, name = path.rpartition(".")
                setattr(layer.get_submodule(parent), name, Adapter(module, rank))


def serving() -> dict[str, Any]:
    """What tuned weights in every layer cost at serving: the rows of a mixed batch part before the first layer.

    One session stands for those of all models, so that what changing between them costs in caches is left out: the
    figure is at most that of `full`, or of adapters that were merged into the weights.
    """
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    encoder = Encoder(EncoderCache(CACHE).graph(backbone.encoder_id), device="cpu", threads=1)
    data = banking77()
    rows = np.random.default_rng(0).permutation(len(data.train))[:TEXTS]
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens)
    tokens = [it.item for it in tokenizer.many([data.train[row] for row in rows])]
    generator = np.random.default_rng(0)

    def run(models: int) -> float:
        started = time.monotonic()
        for start in range(0, TEXTS, BATCH):
            batch, own = tokens[start : start + BATCH], generator.integers(models, size=BATCH)
            for model in np.unique(own):
                encoder.encode(_of(batch, own == model))
        return time.monotonic() - started

    run(1)
    one, many = min(run(1) for _ in range(ROUNDS)), min(run(MODELS) for _ in range(ROUNDS))
    figure = Figure(
        f"{MODELS} models tuned in every layer, in mixed batches of {BATCH}, over one such model",
        one / many,
        "×",
        "",
        f"{TEXTS / many:.0f} and {TEXTS / one:.0f} texts/s, one thread; at most that of `full`, or of merged adapters",
    )
    return {"figures": [asdict(figure)]}


def _of(batch: Sequence[Any], own: np.ndarray) -> list[Any]:
    return [it for it, is_own in zip(batch, own, strict=True) if is_own]
