"""What a step costs beside a plain PyTorch loop, what keeping hidden states saves, and mixed serving.

Figures are ratios within one run: everything is timed in turns, an epoch each. All trainings see the same examples
of Banking77 in the same batches of 32, which have texts of about one length, and compute in the same precision.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from benchmarks.datasets import banking77
from benchmarks.harness import CACHE, Figure, at_least, at_most
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning import loop
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.tuning_contract import Recipe
from graft_server.backbones.tuning_objects import Part
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import GraphPart, SplitEncoder, TunedLayers
from graft_server.sharing.cores import usable_cores

LAYERS = 2
MODELS = 20
ROUNDS = 3
"""Each is timed so often, in turns; the fastest counts, since others may use the machine."""


def measure(examples: int) -> dict[str, Any]:
    """The cell."""
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    graph = EncoderCache(CACHE).graph(backbone.encoder_id)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = _cut(graph, backbone, place)
        tokens = _prepare(place, backbone, examples)
        figures = [
            *_training(place, backbone, graph, parts),
            _mixed(parts, graph, tokens, backbone.preprocessor()),
        ]
    for it in figures:
        print(f"{it.what}: {it.value:.3f} ({it.target}) {it.reference}", flush=True)
    return {"examples": examples, "cores": usable_cores(), "figures": [asdict(it) for it in figures]}


def _cut(graph: Path, backbone: Backbone, place: Path) -> tuple[Path, Path]:
    boundary = boundary_of(onnx.load(str(graph)), backbone.layers - LAYERS, backbone.name)
    parts = cut(onnx.load(str(graph)), boundary)
    below, above = place / "below.onnx", place / "above.onnx"
    onnx.save(parts.below, str(below))
    onnx.save(parts.above, str(above))
    return below, above


def _prepare(place: Path, backbone: Backbone, examples: int) -> list[NDArray[np.int64]]:
    data = banking77()
    rows = np.random.default_rng(0).permutation(len(data.train))[:examples]
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens)
    tokens = [it.item for it in tokenizer.many([data.train[row] for row in rows])]
    part = np.full(examples, Part.TRAIN, np.int8)
    part[:32] = Part.STOP
    classes = len(data.classes)
    weight = np.random.default_rng(1).normal(size=(backbone.dimension, classes)).astype(np.float32)
    Examples.write(
        place,
        items=tokens,
        labels=data.train_labels[rows],
        weights=np.ones(examples),
        part=part,
        head=(weight, np.zeros(classes, np.float32)),
    )
    return tokens


def _training(place: Path, backbone: Backbone, graph: Path, parts: tuple[Path, Path]) -> list[Figure]:
    whole = Ground(
        backbone=backbone,
        recipe=Recipe(epochs=1),
        examples=Examples.read(place),
        graph=graph,
        folder=place,
        threads=usable_cores(),
    )
    recipe = replace(whole.recipe, below=backbone.layers - LAYERS)
    partial = replace(whole, recipe=recipe, graph=parts[1], below_graph=parts[0])
    cached = _Loop(partial)
    full = _Loop(whole)
    loops: dict[str, _Loop | _PlainLoop] = {
        "cached": cached,
        "uncached": _Loop(replace(partial, cached=False)),
        "full": full,
        "plain": _PlainLoop(backbone, full.run, tuned=backbone.layers),
        "plain partial": _PlainLoop(backbone, full.run, tuned=LAYERS),
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, one in loops.items():
            times[name].append(one.epoch())
            print(name, times[name][-1], flush=True)
    best = {name: min(it) for name, it in times.items()}
    count = int((full.run.set.part == Part.TRAIN).sum())
    rates = ", ".join(f"{name} {count / it:.0f}" for name, it in best.items())
    four = 4 * best["uncached"] / (cached.filled_s + 4 * best["cached"])
    by_hand = 4 * best["plain partial"] / (cached.filled_s + 4 * best["cached"])
    kept = "an epoch with kept hidden states (k = 2 of 6), over one of"
    return [
        at_least("full: training over a plain PyTorch loop", best["plain"] / best["full"], 0.95, "×",
                 f"examples/s: {rates}"),
        at_least("partial (k = 2): training over a plain loop of the same",
                 best["plain partial"] / best["cached"], 0.95, "×"),
        at_least(f"{kept} the same without", best["uncached"] / best["cached"], 1.6, "×"),
        at_least("4 epochs with filling, over 4 of the same without", four, 1.25, "×",
                 f"filling took {cached.filled_s:.1f} s; over 4 of the plain loop {by_hand:.2f}"),
        at_most("partial (k = 2) over full: time of an epoch", best["cached"] / best["full"], 0.45, "×"),
    ]  # fmt: skip


class _Loop:
    """Our own loop, an epoch at a time, with everything but the evaluations."""

    def __init__(self, ground: Ground) -> None:
        torch.set_num_threads(usable_cores())
        self.run = loop.Loop(ground, lambda _: None)
        started = time.monotonic()
        self.run.keep_hidden()
        self.filled_s = time.monotonic() - started
        self.run.begin()
        self.optimizer = self.run.optimizer()

    def epoch(self) -> float:
        started = time.monotonic()
        for batch in self.run.epoch(0):
            self.run.learn(batch, self.optimizer)
        return time.monotonic() - started


class _PlainLoop:
    """What one writes by hand: padded batches, mean pooling, a linear layer, AdamW; frozen layers get no gradients."""

    def __init__(self, backbone: Backbone, same: loop.Loop, *, tuned: int) -> None:
        self.same, self.data = same, same.set
        self.model = AutoModel.from_pretrained(
            backbone.folder, dtype=torch.float32, add_pooling_layer=False
        ).train()
        if tuned < backbone.layers:
            for part in (self.model.embeddings, *self.model.encoder.layer[: backbone.layers - tuned]):
                part.requires_grad_(False)
        self.head = torch.nn.Linear(backbone.dimension, self.data.head[1].shape[0])
        found = [*self.model.parameters(), *self.head.parameters()]
        self.parameters = [it for it in found if it.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def epoch(self) -> float:
        started = time.monotonic()
        for batch in self.same.epoch(0):
            ids = [torch.from_numpy(it) for it in self.data.items(batch)]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            mask = (torch.arange(padded.shape[1]) < torch.tensor([len(it) for it in ids])[:, None]).long()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.same.mixed):
                last = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
                wide = mask[:, :, None].to(last.dtype)
                features = torch.nn.functional.normalize((last * wide).sum(1) / wide.sum(1), dim=-1)
                logits = self.head(features)
            labels = torch.from_numpy(self.data.labels[batch].astype(np.int64))
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.monotonic() - started


def _mixed(
    parts: tuple[Path, Path], graph: Path, tokens: list[NDArray[np.int64]], preprocessor: Preprocessor
) -> Figure:
    """Batches of 12 texts, each of another of 20 models, beside batches of one such model."""
    grafted = SplitEncoder(Encoder(graph, device="cpu", threads=1), preprocessor)
    below, above = (GraphPart(it, device="cpu", threads=1) for it in parts)
    cut_at = 6 - LAYERS
    grafted.add_cut(cut_at, below, above)
    tuned_layers = [TunedLayers(cut_at, GraphPart(parts[1], device="cpu", threads=1)) for _ in range(MODELS)]
    batches = [tokens[start : start + 12] for start in range(0, len(tokens) - 11, 12)]
    generator = np.random.default_rng(0)

    def run(models: int) -> float:
        started = time.monotonic()
        for batch in batches:
            own = generator.integers(models, size=len(batch))
            grafted.encode_with(batch, {tuned_layers[it]: np.flatnonzero(own == it) for it in np.unique(own)})
        return time.monotonic() - started

    run(MODELS)
    one, many = min(run(1) for _ in range(ROUNDS)), min(run(MODELS) for _ in range(ROUNDS))
    what = f"{MODELS} models with k = {LAYERS} in mixed batches of 12, over one such model"
    return at_least(
        what,
        one / many,
        0.8,
        "×",
        f"{12 * len(batches) / many:.0f} and {12 * len(batches) / one:.0f} texts/s, one thread",
    )
