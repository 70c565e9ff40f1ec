"""One tuning on the rows of a set, by the training's own code, with test figures after each epoch.

What the server does around it is left out: the start is a logistic regression on the pooled features rather than the
best of all heads, so that hours of training can be looked into without one.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.finetuning import cells, lora
from benchmarks.finetuning.accuracy import SETS
from benchmarks.harness import CACHE
from benchmarks.heads.features import featured
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.torch.tuning.hidden import by_length, parts
from graft_server.backbones.torch.tuning.loop import Loop
from graft_server.backbones.tuning_contract import Recipe, Tuned
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.report import TuningPoint
from graft_server.evaluation import figures
from graft_server.sharing.cores import usable_cores
from graft_server.training.calibration.temperature import temperature
from graft_server.training.examples.folds import stratified_folds
from graft_server.training.solvers import logistic

STRENGTHS = (3.0, 10.0, 30.0)
"""Of the logistic regression; what is held out chooses."""
TOKENS = 2_048

Array = NDArray[np.float32]


def measure(
    name: str,
    *,
    layers: int,
    epochs: int,
    learning_rate: float,
    layer_decay: float,
    rank: int = 0,
    rows: int = 0,
) -> None:
    """Trains, and keeps a cell.

    Args:
        name: One of SETS.
        layers: How many upper layers; 0: all.
        rank: Of adapters in every layer, which are trained instead of the layers themselves; 0: none.
        rows: How many rows, drawn at random; 0: all.
        epochs: How often each example is seen.
        learning_rate: Of the uppermost layer.
        layer_decay: The rate of each layer over that of the one above.
    """
    method = f"lora{rank}" if rank else "partial" if layers else "full"
    of = f"{name}@{rows}" if rows else name
    key = f"{of}/{method}/{learning_rate:g}x{layer_decay:g}/{epochs}"
    folder = Path(tempfile.gettempdir()) / "graft-tuning" / key
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    _prepare(name, folder, backbone, rows)
    graph, below_graph = _graphs(folder, backbone, layers)
    ground = Ground(
        backbone=backbone,
        recipe=Recipe(
            below=backbone.layers - layers if layers else 0,
            epochs=epochs,
            learning_rate=learning_rate,
            layer_decay=layer_decay,
        ),
        examples=Examples.read(folder),
        graph=graph,
        below_graph=below_graph,
        folder=folder,
        threads=usable_cores(),
    )
    torch.set_num_threads(usable_cores())
    run = _Told(ground, key, layers, brief=bool(rows))
    if rank:
        lora.adapt(run.model, rank)
    result = run.run()
    run.keep(result)
    shutil.rmtree(folder)


def _prepare(name: str, folder: Path, backbone: Backbone, rows: int) -> None:
    """Puts the rows into a folder: test rows as ones that are left out."""
    data = featured(SETS[name]())
    texts = data.texts
    n = rows or len(texts.train)
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts.train))[:n])
    train, labels = [texts.train[row] for row in chosen], texts.train_labels[chosen]
    fold_of = stratified_folds(labels, np.arange(n), 20, 0)
    part = np.full(n, Part.TRAIN, np.int8)
    part[fold_of == 0], part[fold_of == 1] = Part.STOP, Part.MEASURE
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens)
    Examples.write(
        folder,
        items=(it.item for it in tokenizer.many([*train, *texts.test])),
        labels=np.concatenate([labels, texts.test_labels]).astype(np.int32),
        weights=np.ones(n + len(texts.test)),
        part=np.concatenate([part, np.full(len(texts.test), Part.LEFT_OUT, np.int8)]),
        head=_start(data.train["pooled"][chosen].astype(np.float32), labels, part, len(texts.classes)),
    )


def _start(
    features: Array, labels: NDArray[np.int32], part: NDArray[np.int8], classes: int
) -> tuple[Array, Array]:
    axes, stop = logistic.principal_axes(features), part == Part.STOP
    weights, best = np.ones(int(stop.sum())), (np.inf, np.empty(0), np.empty(0))
    for strength in STRENGTHS:
        kept = (part == Part.TRAIN).astype(np.float32)[None]
        found = logistic.fit(axes, labels, kept, classes, strength=strength, start=None)
        weight = axes.rotation @ found.weight[0]
        bias = found.bias[0] - axes.centre @ weight
        logits = features[stop] @ weight + bias
        warmth = np.float32(temperature(logits, labels[stop], weights))
        loss = figures.log_loss(_probabilities(logits / warmth), labels[stop], weights)
        best = min(best, (loss, weight / warmth, bias / warmth), key=lambda it: it[0])
    return best[1].astype(np.float32), best[2].astype(np.float32)


def _graphs(folder: Path, backbone: Backbone, layers: int) -> tuple[Path, Path | None]:
    """The graph to tune, and the part below the cut where there is one."""
    graph = EncoderCache(CACHE).graph(backbone.encoder_id)
    if not layers:
        return graph, None
    below = backbone.layers - layers
    found = cut(onnx.load(str(graph)), boundary_of(onnx.load(str(graph)), below, backbone.name))
    onnx.save(found.below, str(folder / "below.onnx"))
    onnx.save(found.above, str(folder / "above.onnx"))
    return folder / "above.onnx", folder / "below.onnx"


class _Told(Loop):
    """A tuning that measures each state that it evaluates on the test rows too, and keeps that in a cell.

    A brief one measures only the state after the last epoch.
    """

    def __init__(self, ground: Ground, key: str, layers: int, *, brief: bool) -> None:
        super().__init__(ground, lambda _: None)
        self._key, self._layers, self._brief = key, layers, brief
        self._states: list[dict[str, float]] = []
        self._measured_s = 0.0

    def _evaluate(self, epoch: float) -> TuningPoint:
        found = super()._evaluate(epoch)
        before = self.seconds
        tested = self._tested() if epoch == self.recipe.epochs or not self._brief else {}
        self._measured_s += self.seconds - before
        self._states.append(
            {
                "epoch": epoch,
                "train_loss": found.train_loss,
                "held_out_log_loss": found.log_loss,
                "held_out_accuracy": found.accuracy,
                **tested,
            }
        )
        print(self._key, " ".join(f"{k} {v:.4f}" for k, v in self._states[-1].items()), flush=True)
        self.keep(None)
        return found

    def _mix(self) -> None:
        if not self._brief:
            super()._mix()

    def _tested(self) -> dict[str, float]:
        """Figures on the test rows, at the temperature that is best on those to stop by."""
        self.model.eval()
        stop, test = (np.flatnonzero(self.set.part == it) for it in (Part.STOP, Part.LEFT_OUT))
        logits = self._logits(stop)
        warmth = np.float32(temperature(logits, self.set.labels[stop], np.ones(len(stop))))
        labels = self.set.labels[test]
        tested = figures.figures(_probabilities(self._logits(test) / warmth), labels, np.ones(len(test)))
        self.model.train()
        return {"accuracy": tested.accuracy, "macro_f1": tested.macro_f1, "log_loss": tested.log_loss}

    def _logits(self, rows: NDArray[np.int64]) -> Array:
        found = np.empty((len(rows), self.set.head[1].shape[0]), np.float32)
        order = by_length(self.set, rows)
        with torch.no_grad():
            every = [self.logits(it).numpy() for it in parts(self.set, order, TOKENS)]
        found[np.searchsorted(rows, order)] = np.concatenate(every)
        return found

    def keep(self, result: Tuned | None) -> None:
        """Keeps what is known so far; `result` is None until the end."""
        best = min(range(len(self._states)), key=lambda it: self._states[it]["held_out_log_loss"])
        recipe = self.recipe
        cells.keep(
            self._key,
            {
                "layers": self._layers,
                "epochs": recipe.epochs,
                "learning_rate": recipe.learning_rate,
                "layer_decay": recipe.layer_decay,
                "cores": len(os.sched_getaffinity(0)),
                "examples": int((self.set.part == Part.TRAIN).sum()),
                "states": self._states,
                "best": self._states[best],
                "ended": result.ended if result else "not yet",
                "parameters": result.parameters if result else 0,
                "examples_per_s": result.examples_per_s if result else 0.0,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
                "seconds": self.seconds - self._measured_s,
            },
        )


def _probabilities(logits: Array) -> Array:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = scaled / scaled.sum(axis=1, keepdims=True)
    return found
