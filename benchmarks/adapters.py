"""Adapters: what cutting a tuning down to a low rank costs in accuracy, and what it saves at serving.

    python -m benchmarks.adapters            both parts
    python -m benchmarks.adapters serving    one of them
    python -m benchmarks.adapters accuracy

Serving runs the encoder alone, on one thread: models with adapters, with tuned graphs (full rows), and one model, in
turns; the processor's time counts, so that others on the machine disturb little. Adapters are random ones, and the
tuned graphs have the same in their weights, so that both have to give the same features.

Accuracy tunes by the production's own code, cuts down at several ranks, and fits a logistic regression on the features
of each: on GoEmotions by a head that is tuned along (the upper two layers), and on few examples by contrast.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.datasets import banking77, goemotions_single
from benchmarks.fewshot.sets import draw, load
from benchmarks.harness import CACHE, RESULTS, Figure, at_least, at_most, write
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.cross_fitted import LEFT_OUT
from graft_server.backbones.graphs.adapted import merged, products, with_adapters
from graft_server.backbones.graphs.adapters import Adapter, LowRank, product_key
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.compressing import RANK, Compressor
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning.cross_fitting import CrossFitting
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.torch.tuning.loop import Loop
from graft_server.backbones.torch.tuning.tuned_graph import features_of
from graft_server.backbones.tuning_contract import Recipe
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.report import TuningObjective
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import MEMORY_FACTOR, GraphPart, SplitEncoder, TunedLayers
from graft_server.training.solvers import logistic

PARTS = ("serving", "accuracy")
MODELS = 20
BATCH = 12
BATCHES = 10
ROUNDS = 3
RANKS = (4, 8, 16)
ROWS, TESTED = 1_500, 1_000
"""Of GoEmotions."""
FEW_SET = "emotions"
"""Eight emotions of GoEmotions."""
FEW = 16
"""Examples a class of the few-shot set."""
STRENGTHS = (1.0, 10.0, 100.0)

Array = NDArray[np.float32]


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(graph.SerializeToString())


def _part(graph: onnx.ModelProto | bytes) -> GraphPart:
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return GraphPart(data, device="cpu", threads=1)


# --- serving ------------------------------------------------------------------------------------------------------


def serving(models: int) -> list[Figure]:
    """Figures of models whose upper two layers are tuned, and of models whose layers all are."""
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    path = EncoderCache(CACHE).graph(backbone.encoder_id)
    data = banking77()
    rows = np.random.default_rng(0).permutation(len(data.train))[: BATCH * BATCHES]
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens)
    texts = [it.item for it in tokenizer.many([data.train[row] for row in rows])]
    found = []
    for below, what in ((backbone.layers - 2, "2 of 6 layers"), (0, "all layers")):
        found += _served(backbone, path, below, what=what, texts=texts, models=models)
    return found


def _served(
    backbone: Backbone, path: Path, below: int, *, what: str, texts: Sequence[Any], models: int
) -> list[Figure]:
    whole = onnx.load(str(path))
    split = SplitEncoder(Encoder(path, device="cpu", threads=1), backbone.preprocessor())
    graph = whole
    if below:
        parts = cut(_copy(whole), boundary_of(whole, below, backbone.name))
        split.add_cut(below, _part(parts.below), _part(parts.above))
        graph = parts.above
    split.add_adapted(below, _part(with_adapters(_copy(graph), backbone.name)))
    adapters = [_random(graph, seed) for seed in range(models)]
    graphs = [merged(_copy(graph), it).SerializeToString() for it in adapters]
    low = [TunedLayers(below, Adapter.decode("a", it.encoded())) for it in adapters]
    full = [TunedLayers(below, _part(it)) for it in graphs]
    batches = [texts[it : it + BATCH] for it in range(0, len(texts), BATCH)]
    worst = _difference(split, low, full, batches[0])

    def mixed(of: Sequence[TunedLayers]) -> Callable[[], None]:
        def run() -> None:
            generator = np.random.default_rng(0)
            for batch in batches:
                own = generator.integers(len(of), size=len(batch))
                split.encode_with(batch, {of[it]: np.flatnonzero(own == it) for it in np.unique(own)})

        return run

    def single(of: TunedLayers) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                split.encode_by(of, batch[:1])

        return run

    times = _times(
        {
            "one": mixed(full[:1]),
            "low": mixed(low),
            "full": mixed(full),
            "one low": mixed(low[:1]),
            "single": single(full[0]),
            "single low": single(low[0]),
        }
    )
    rate = len(texts)
    held, rows = adapters[0].nbytes / 1e6, MEMORY_FACTOR * len(graphs[0]) / 1e6
    return [
        at_most(f"{what}: an adapter of rank {RANK} in memory", held, 0.1 * rows, "MB",
                f"full rows {rows:.0f} MB; stored {len(adapters[0].encoded()) / 1e6:.2f} and "
                f"{len(graphs[0]) / 1e6:.1f} MB"),
        at_least(f"{what}: {models} adapters in mixed batches of {BATCH}, over one model with full rows",
                 times["one"] / times["low"], times["one"] / times["full"], "×",
                 f"full rows {times['one'] / times['full']:.2f}; {rate / times['low']:.0f}, "
                 f"{rate / times['full']:.0f} and {rate / times['one']:.0f} texts/s of processor time"),
        Figure(f"{what}: one adapter alone in batches of {BATCH}, over one model with full rows",
               times["one"] / times["one low"], "×"),
        Figure(f"{what}: a text alone, with an adapter", 1e3 * times["single low"] / len(batches), "ms", "",
               f"full rows {1e3 * times['single'] / len(batches):.2f} ms"),
        at_most(f"{what}: features in a mixed batch, and by merged weights: largest difference", worst, 1e-3, ""),
    ]  # fmt: skip


def _random(graph: onnx.ModelProto, seed: int) -> Adapter:
    """An adapter of the size of tuned ones."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return (0.02 * rng.standard_normal(shape)).astype(np.float16).astype(np.float32)

    shapes = {product_key(it.matrix): it.matrix.shape for it in products(graph)}
    return Adapter(
        {it: LowRank(normal(a, RANK), normal(RANK, b), normal(b)) for it, (a, b) in shapes.items()}
    )


def _difference(
    split: SplitEncoder, low: Sequence[TunedLayers], full: Sequence[TunedLayers], texts: Sequence[Any]
) -> float:
    """Between features of rows with different adapters in one batch, and those by each one's merged weights alone."""
    count = min(len(low), len(texts))
    found = split.encode_with(texts[:count], {low[it]: np.array([it]) for it in range(count)})
    worst = 0.0
    for row in range(count):
        right = split.encode_by(full[row], [texts[row]])["pooled"][0]
        worst = max(worst, float(np.abs(found[low[row]]["pooled"][row] - right).max()))
    return worst


def _times(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of the processor that each takes at best, in turns."""
    best = dict.fromkeys(runs, np.inf)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.thread_time()
            run()
            best[name] = min(best[name], time.thread_time() - started)
    return best


# --- accuracy -----------------------------------------------------------------------------------------------------


def accuracy(few: Sequence[str]) -> list[Figure]:
    """Figures of tunings at several ranks: of GoEmotions, and of a draw of each of some few-shot sets."""
    backbone = open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)
    rng = np.random.default_rng(0)
    data = goemotions_single()
    rows, tested = rng.permutation(len(data.train))[:ROWS], rng.permutation(len(data.test))[:TESTED]
    train = [data.train[it] for it in rows], data.train_labels[rows]
    test = [data.test[it] for it in tested], data.test_labels[tested]
    recipe = Recipe(below=backbone.layers - 2, epochs=2, learning_rate=3e-4)
    found = _tuned(f"GoEmotions, {ROWS:,} rows, 2 of 6 layers", backbone, recipe, train, test)
    for name in few:
        some = load(name)
        rows, tested = draw(some, FEW, 0), rng.permutation(len(some.test_texts))[:TESTED]
        train = [some.texts[it] for it in rows], some.labels[rows]
        test = [some.test_texts[it] for it in tested], some.test_labels[tested]
        objective = TuningObjective.CONTRASTIVE
        recipe = Recipe(
            below=0, epochs=0, learning_rate=0.0, layer_decay=0.0, objective=objective, to_the_end=True
        )
        found += _tuned(f"{name}, {FEW} a class, by contrast, all layers", backbone, recipe, train, test)
    return found


Rows = tuple[list[str], NDArray[np.int32]]


def _tuned(what: str, backbone: Backbone, recipe: Recipe, train: Rows, test: Rows) -> list[Figure]:
    """Figures of one tuning: the tuned graph's test log-loss and accuracy, and those at each rank."""
    texts, labels = [*train[0], *test[0]], np.concatenate([train[1], test[1]]).astype(np.int32)
    count, classes = len(train[0]), int(labels.max()) + 1
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens)
    items = [it.item for it in tokenizer.many(texts)]
    path = EncoderCache(CACHE).graph(backbone.encoder_id)
    frozen = _encoded(Encoder(path, device="cpu", threads=1), items)
    part = np.full(len(labels), Part.LEFT_OUT, np.int8)
    part[:count] = Part.TRAIN
    part[:count:10] = Part.STOP
    folds = np.full(len(labels), LEFT_OUT, np.int32)
    folds[:count] = np.arange(count) % 2
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        Examples.write(
            folder,
            items=items,
            labels=labels,
            weights=np.ones(len(labels)),
            part=part,
            head=_head(frozen[:count], labels[:count], classes, 10.0),
            fold_of=folds,
        )
        graph, below = path, None
        if recipe.below:
            whole = onnx.load(str(path))
            parts = cut(_copy(whole), boundary_of(whole, recipe.below, backbone.name))
            graph, below = folder / "above.onnx", folder / "below.onnx"
            onnx.save(parts.above, str(graph))
            onnx.save(parts.below, str(below))
        ground = Ground(
            backbone=backbone,
            recipe=recipe,
            examples=Examples.read(folder),
            graph=graph,
            below_graph=below,
            folder=folder,
        )
        run: Loop | CrossFitting
        if recipe.objective is TuningObjective.CONTRASTIVE:
            unknown = np.full((len(labels), classes), 1 / classes, np.float32)
            run = CrossFitting(ground, _untold, frozen=unknown, bound=np.arange(len(labels)))
        else:
            run = Loop(ground, _untold)
        run.run()
        tuned, original = run.model.tuned(), run._original  # noqa: SLF001 - the benchmark looks inside
        results = {"frozen": _tested(frozen, labels, count, classes)}
        results["full rows"] = _tested(run.finish().astype(np.float32), labels, count, classes)
        sizes = {"full rows": graph.stat().st_size}
        for rank in RANKS:
            adapter = Compressor(graph, original, rank=rank).adapter(tuned)
            low = folder / f"low-{rank}.onnx"
            onnx.save(merged(onnx.load(str(graph)), adapter), str(low))
            found = features_of(low, run.set, run.hidden, run.preprocessor, threads=1, told=lambda _: None)
            results[f"rank {rank}"] = _tested(found, labels, count, classes)
            sizes[f"rank {rank}"] = len(adapter.encoded())
    figures, full = [], results["full rows"]
    for name, (losses, right) in results.items():
        more = losses - full[0]
        error = float(more.std() / np.sqrt(len(more)))
        note = (
            ""
            if name == "full rows"
            else f"log-loss {more.mean():+.4f} over full rows (standard error {error:.4f})"
        )
        size = f"{sizes[name] / 1e6:.2f} MB; " if name in sizes else ""
        figures.append(
            Figure(f"{what}: {name}, accuracy", 100 * float(right.mean()), "%", "",
                   f"{size}log-loss {losses.mean():.4f}{'; ' if note else ''}{note}")
        )  # fmt: skip
        print(figures[-1], flush=True)
    return figures


def _untold(_: Any) -> None:
    pass


def _encoded(encoder: Encoder, items: Sequence[Any]) -> Array:
    order = np.argsort([len(it) for it in items], kind="stable")
    found = np.empty((len(items), 384), np.float32)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        found[rows] = encoder.encode([items[it] for it in rows])["pooled"]
    return found


def _head(features: Array, labels: NDArray[np.int32], classes: int, strength: float) -> tuple[Array, Array]:
    axes = logistic.principal_axes(features)
    kept = np.ones((1, len(labels)), np.float32)
    found = logistic.fit(axes, labels, kept, classes, strength=strength, start=None)
    weight = axes.rotation @ found.weight[0]
    return weight.astype(np.float32), (found.bias[0] - axes.centre @ weight).astype(np.float32)


def _tested(features: Array, labels: NDArray[np.int32], count: int, classes: int) -> tuple[Array, Array]:
    """Each test row's loss, and whether it is right, by the regression of the strength that is best on average."""
    best: tuple[Array, Array] | None = None
    for strength in STRENGTHS:
        weight, bias = _head(features[:count], labels[:count], classes, strength)
        logits = features[count:] @ weight + bias
        logits -= logits.max(axis=1, keepdims=True)
        wanted = logits[np.arange(len(logits)), labels[count:]]
        losses = np.log(np.exp(logits).sum(axis=1)) - wanted
        found = losses, (logits.argmax(axis=1) == labels[count:]).astype(np.float32)
        if best is None or losses.mean() < best[0].mean():
            best = found
    assert best is not None
    return best


def main() -> None:
    """Measures, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=[], help="serving, accuracy (default: both)")
    parser.add_argument("--models", type=int, default=MODELS, help=f"that are served (default: {MODELS})")
    parser.add_argument("--few", nargs="*", default=[FEW_SET], help=f"few-shot sets (default: {FEW_SET})")
    asked = parser.parse_args()
    kept: dict[str, list[Any]] = {}
    path = RESULTS / "adapters.json"
    if path.exists():
        for it in json.loads(path.read_text())["figures"]:
            kept.setdefault(it["part"], []).append(Figure(**it))
    for part in asked.parts or PARTS:
        found = serving(asked.models) if part == "serving" else accuracy(asked.few)
        kept[part] = [replace(it, part=part) for it in found]
    notes = [
        "Accuracy is on test rows, of a logistic regression on features of the tuned graph (full rows), and of what",
        "that is cut down to; its strength is the best of three on the test rows, for each alike.",
    ]
    write("adapters", "Adapters", [it for part in PARTS for it in kept.get(part, [])], notes)


if __name__ == "__main__":
    main()
