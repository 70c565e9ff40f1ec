"""Fine-tuning: what a step costs beside a plain PyTorch loop, what keeping activations saves, and mixed serving.

    python -m benchmarks.finetuning [--examples 640]

Figures are ratios within this run. All trainings see the same examples of Banking77, in the same batches of 32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from benchmarks.datasets import banking77
from benchmarks.harness import CACHE, RESULTS
from graft_server.backbones.cache import EncoderCache
from graft_server.backbones.cutting import boundary_of, cut
from graft_server.backbones.scratch import Part, Scratch
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, Backbone, open_backbone
from graft_server.backbones.text import TextTokenizer
from graft_server.backbones.torch import tuning
from graft_server.cores import usable_cores
from graft_server.encoding.grafting import Grafted, Segment, Top
from graft_server.encoding.runtime import Encoder

LAYERS = 2
MODELS = 20
ROUNDS = 2
"""Each is timed so often, in turns; the fastest counts, since others may use the machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=640)
    args = parser.parse_args()
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    graph = EncoderCache(CACHE).graph(backbone.encoder_id)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = _cut(graph, backbone, place)
        tokens = _prepare(place, backbone, args.examples)
        lines = [*_training(place, backbone, graph, parts), _mixed(parts, graph, tokens)]
    text = "\n".join([*_HEADER, *lines, ""])
    (RESULTS / "finetuning-speed.md").write_text(text)
    print(text)


_HEADER = (
    "# Fine-tuning: speed",
    "",
    f"Measured on {usable_cores()} cores; the fastest of {ROUNDS} rounds of each. The machine may have had other work.",
    "",
    "| what | ratio | target |",
    "|---|---|---|",
)


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
    Scratch.write(
        place,
        tokens=tokens,
        labels=data.train_labels[rows],
        weights=np.ones(examples),
        part=part,
        head=(weight, np.zeros(classes, np.float32)),
    )
    return tokens


def _training(place: Path, backbone: Backbone, graph: Path, parts: tuple[Path, Path]) -> list[str]:
    shared: dict[str, Any] = {
        "backbone": backbone.payload(),
        "scratch": str(place),
        "threads": usable_cores(),
        "epochs": 1,
    }
    partial = {
        "graph": str(parts[1]),
        "below_graph": str(parts[0]),
        "below": backbone.layers - LAYERS,
    }
    cached = _Loop({**shared, **partial})
    uncached = _Loop({**shared, **partial, "cached": False})
    full = _Loop({**shared, "graph": str(graph)})
    plain = _PlainLoop(backbone, full.run.set)
    times: dict[str, list[float]] = {name: [] for name in ("cached", "uncached", "full", "plain")}
    for _ in range(ROUNDS):
        for name, loop in (("cached", cached), ("uncached", uncached), ("full", full), ("plain", plain)):
            times[name].append(loop.epoch())
    best = {name: min(it) for name, it in times.items()}
    count = len(full.run._train)  # noqa: SLF001
    filled = cached.filled_s
    four = 4 * best["uncached"] / (filled + 4 * best["cached"])
    own = count / best["plain"]
    rows = (
        (f"full: over a plain PyTorch loop ({own:.0f} examples/s)", best["plain"] / best["full"], "≥ 0.95"),
        ("partial, k = 2: over the plain loop that trains all", best["plain"] / best["cached"], "more"),
        ("partial: an epoch, over one without kept activations", best["uncached"] / best["cached"], "≥ 1.6"),
        ("partial: 4 epochs with filling, over the same without", four, "≥ 1.25"),
        ("partial over full: time of an epoch", best["cached"] / best["full"], "≤ 0.45"),
    )
    return [f"| {what} | {ratio:.2f} | {target} |" for what, ratio, target in rows]


class _Loop:
    """Our own loop, an epoch at a time, with everything but the evaluations."""

    def __init__(self, payload: dict[str, Any]) -> None:
        torch.set_num_threads(usable_cores())
        self.run = tuning.Tuning(tuning.msgspec.convert(payload, tuning.Task), lambda _: None)
        started = time.monotonic()
        if self.run._below is not None and self.run.task.cached:  # noqa: SLF001
            self.run._fill_cache()  # noqa: SLF001
        self.filled_s = time.monotonic() - started
        self.run._begin()  # noqa: SLF001
        self.optimizer = torch.optim.AdamW(self.run._groups, fused=True)  # noqa: SLF001

    def epoch(self) -> float:
        started = time.monotonic()
        for batch in self.run._epoch(0):  # noqa: SLF001
            self.run._backward(batch)  # noqa: SLF001
            torch.nn.utils.clip_grad_norm_([p for g in self.run._groups for p in g["params"]], 1.0)  # noqa: SLF001
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.monotonic() - started


class _PlainLoop:
    """What one writes by hand: padded random batches of 32, mean pooling, a linear layer, AdamW."""

    def __init__(self, backbone: Backbone, data: Scratch) -> None:
        self.data = data
        self.rows = np.flatnonzero(data.part == Part.TRAIN)
        self.model = AutoModel.from_pretrained(backbone.folder, dtype=torch.float32).train()
        self.head = torch.nn.Linear(backbone.dimension, data.head[1].shape[0])
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def epoch(self) -> float:
        started = time.monotonic()
        order = np.random.default_rng(0).permutation(self.rows)
        for batch in np.array_split(order, -(-len(order) // 32)):
            ids = [torch.from_numpy(self.data.tokens_of(row)) for row in batch]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            mask = (torch.arange(padded.shape[1]) < torch.tensor([len(it) for it in ids])[:, None]).long()
            last = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
            wide = mask[:, :, None].to(last.dtype)
            features = torch.nn.functional.normalize((last * wide).sum(1) / wide.sum(1), dim=-1)
            labels = torch.from_numpy(self.data.labels[batch].astype(np.int64))
            torch.nn.functional.cross_entropy(self.head(features), labels).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.monotonic() - started


def _mixed(parts: tuple[Path, Path], graph: Path, tokens: list[NDArray[np.int64]]) -> str:
    """Batches of 12 texts, each of another of 20 models, beside batches of one such model."""
    grafted = Grafted(Encoder(graph, device="cpu", threads=1))
    below, above = (Segment(it, device="cpu", threads=1) for it in parts)
    cut_at = 6 - LAYERS
    grafted.add_cut(cut_at, below, above)
    tops = [Top(cut_at, Segment(parts[1], device="cpu", threads=1)) for _ in range(MODELS)]
    batches = [tokens[start : start + 12] for start in range(0, 360, 12)]
    generator = np.random.default_rng(0)

    def run(models: int) -> float:
        started = time.monotonic()
        for batch in batches:
            own = generator.integers(models, size=len(batch))
            grafted.encode_with(batch, {tops[it]: np.flatnonzero(own == it) for it in np.unique(own)})
        return time.monotonic() - started

    run(MODELS)
    one, many = min(run(1) for _ in range(ROUNDS)), min(run(MODELS) for _ in range(ROUNDS))
    return f"| {MODELS} models with k = {LAYERS} in mixed batches, over one such model | {one / many:.2f} | ≥ 0.8 |"


if __name__ == "__main__":
    main()
