"""What int8 gives and costs, on the CPU: throughput of the bare loop and accuracy, over fp32 in the same run.

python -m benchmarks.precision

The graphs are those that `graft-server prepare --precision int8` makes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Texts, banking77, few_shot
from benchmarks.harness import CACHE, Figure, at_least, write
from benchmarks.inprocess import Loop, rate, session, tokenized
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.domain.errors import StateError
from graft_server.domain.examples import Input
from graft_server.encoding.encoder import Encoder
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reduced_precision import Reference, admit
from graft_server.training.tasks.single_label.selection import select_single_label

LOOP = Loop(workers=2, threads=1, budget=192, by_length=False)
ROUNDS = 5
PER_CLASS = 8
DRAWS = 2
BATCH = 12
"""Texts that ride together where features are computed: in int8 it matters."""

Tokens = NDArray[np.int64]
Views = Mapping[str, NDArray[np.float32]]


def main() -> None:
    data = banking77()
    backbones = {it: open_backbone(DEFAULT_NAME, DEFAULT_SOURCE, precision=it) for it in ("fp32", "int8")}
    graphs = {it: EncoderCache(CACHE).graph(backbone.encoder_id) for it, backbone in backbones.items()}
    test = tokenized(data.test)
    figures = [_throughput(graphs, test)]
    encoded = {it: _features(graph, test) for it, graph in graphs.items()}
    cosines = (encoded["fp32"]["pooled"] * encoded["int8"]["pooled"]).sum(axis=1)
    figures.append(Figure("cosine of features in int8 to those in fp32, mean", float(cosines.mean()), ""))
    figures.append(Figure("the same, least", float(cosines.min()), ""))
    accuracies: dict[str, list[float]] = {it: [] for it in graphs}
    notes = []
    for seed in range(DRAWS):
        rows = few_shot(data.train_labels, PER_CLASS, seed)
        tokens = tokenized([data.train[row] for row in rows])
        for precision, graph in graphs.items():
            train = _training_set(data, rows, _features(graph, tokens))
            accuracies[precision].append(_accuracy(train, encoded[precision], data, seed))
            if precision == "int8":
                texts = [data.train[row] for row in rows]
                notes.append(
                    f"- draw {seed}: {_verdict(train, texts, graphs['fp32'], backbones['fp32'], seed)}"
                )
    means = {it: 100 * statistics.mean(found) for it, found in accuracies.items()}
    what = f"Banking77 accuracy in int8, {PER_CLASS} per class, mean of {DRAWS} draws"
    figures.append(Figure(what, means["int8"], "%", reference=f"{means['fp32']:.2f} % in fp32"))
    write("precision", "int8 over fp32", figures, ["What the server says of publishing:", "", *notes])


def _throughput(graphs: Mapping[str, Path], texts: Sequence[Tokens]) -> Figure:
    """The median ratio of rounds that alternate, so that a busy machine slows both."""
    sessions = {it: session(LOOP.threads, spinning=False, graph=graph) for it, graph in graphs.items()}
    for running in sessions.values():
        rate(LOOP, running, texts[:200])
    rounds = [{it: rate(LOOP, running, texts) for it, running in sessions.items()} for _ in range(ROUNDS)]
    ratio = statistics.median(it["int8"] / it["fp32"] for it in rounds)
    best = {it: max(one[it] for one in rounds) for it in sessions}
    reference = f"{best['fp32']:.0f} texts/s in fp32, {best['int8']:.0f} in int8, bare loop, {LOOP}"
    return at_least("int8 over fp32 throughput", ratio, 1.7, "", reference)


def _features(graph: Path, texts: Sequence[Tokens]) -> Views:
    encoder = Encoder(graph, device="cpu", threads=2)
    batches = [encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return {view: np.concatenate([batch[view] for batch in batches]) for view in encoder.views}


def _training_set(data: Texts, rows: NDArray[np.int64], features: Views) -> ClassifiedSet:
    n = len(rows)
    return ClassifiedSet(
        classes=data.classes,
        descriptions=("",) * len(data.classes),
        labels=data.train_labels[rows],
        weights=np.ones(n),
        validation=np.zeros(n, bool),
        groups=np.arange(n),
        ids=tuple(f"row-{row}" for row in rows),
        origins=tuple(("benchmark", i) for i in range(n)),
        input_digests=tuple(data.train[row].encode() for row in rows),
        features={view: array.astype(np.float16) for view, array in features.items()},
    )


def _accuracy(train: ClassifiedSet, test: Views, data: Texts, seed: int) -> float:
    head = select_single_label(train, seed=seed).head
    features = np.concatenate([test[view] for view in head.view.split("+")], axis=1)
    return float((head.scores(features).probabilities.argmax(axis=1) == data.test_labels).mean())


def _verdict(train: ClassifiedSet, texts: Sequence[str], graph: Path, backbone: Backbone, seed: int) -> str:
    reference = Reference(graph, backbone, "int8")
    try:
        return admit(train, [Input(text) for text in texts], "pooled", reference, seed=seed)
    except StateError as error:
        return error.message


if __name__ == "__main__":
    main()
