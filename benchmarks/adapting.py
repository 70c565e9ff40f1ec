"""The main job on Banking77, through the server: accuracy, speed of ingest, time to a served version, start-up.

python -m benchmarks.adapting [--draws 10]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

import graft
from benchmarks.datasets import Texts, banking77, few_shot
from benchmarks.harness import Figure, Server, at_least, at_most, server, write
from benchmarks.inprocess import best_loop, tokenized

STARTS = 5
Pairs = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=10, help="few-shot draws (default: 10)")
    draws = parser.parse_args().draws
    data = banking77()
    figures = [start_up()]
    with server() as running, graft.Client(running.target) as client:
        figures.append(fresh_memory(running, client, data))
        figures += few(client, data, draws)
        figures += everything(client, data)
    write("adapting", "The main job: Banking77 through Adapt and Predict", figures)


def start_up() -> Figure:
    """From starting the process to health SERVING, with the encoder in the cache."""
    seconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with server() as running, graft.Client(running.target) as client:
            assert client.health() == "serving"
            seconds.append(time.perf_counter() - began)
    what = f"server start to health SERVING, encoder cached, median of {STARTS}"
    return at_most(what, float(np.median(seconds)), 2.0, "s")


def fresh_memory(running: Server, client: graft.Client, data: Texts) -> Figure:
    """Of the serving process after a first small model and 1,000 predictions."""
    client.adapt("memory", _train(data, few_shot(data.train_labels, 8, 0)))
    client.predict("memory", data.test[:1000])
    return at_most("resident memory of the serving process", running.resident_mb(), 400, "MB")


def few(client: graft.Client, data: Texts, draws: int) -> list[Figure]:
    """8 examples of each class: accuracy, and the time from commit to a served version."""
    accuracies, at_once, ready = [], [], []
    for seed in range(draws):
        examples = _train(data, few_shot(data.train_labels, 8, seed))
        at_once.append(_commit_to_served(client, f"few/{seed}", examples, data, seed))
        ready.append(_commit_to_served(client, f"slow/{seed}", _slowly(examples), data, seed))
        accuracies.append(100 * client.evaluate(f"few/{seed}", _test(data)).accuracy)
    mean, spread = float(np.mean(accuracies)), float(np.std(accuracies))
    what = "commit to version served, 616 examples, 77 classes, median"
    return [
        at_least(f"8 per class: accuracy, mean of {draws} draws", mean, 83.0, "%", f"sd {spread:.2f}"),
        at_most(what, float(np.median(ready)), 2.0, "s", f"worst {max(ready):.2f} s"),
        at_most(
            f"{what}, where all 616 came in the moment before and are encoded first",
            float(np.median(at_once)), 2.0, "s", f"worst {max(at_once):.2f} s",
        ),
    ]  # fmt: skip


def _commit_to_served(
    client: graft.Client, model: str, examples: Iterable[tuple[str, str]], data: Texts, seed: int
) -> float:
    clock = _Stages()
    client.adapt(model, examples, seed=seed, on_progress=clock)
    # Served, not only said to be.
    client.predict(model, data.test[:1])
    return time.perf_counter() - clock.first("committed")


def _slowly(examples: Pairs) -> Iterator[tuple[str, str]]:
    """The examples as they come in from people: the encoder is done with them when the commit comes."""
    yield from examples
    time.sleep(5)


def everything(client: graft.Client, data: Texts) -> list[Figure]:
    """All 10,003 examples: accuracy, and speed of ingest over the encoder's own."""
    rows = np.random.default_rng(0).permutation(len(data.train))
    examples = _train(data, rows)
    loop, encoder_rate = best_loop(tokenized([text for text, _ in examples[:3080]]), cores=2)
    clock = _Stages()
    began = time.perf_counter()
    client.adapt("all", examples, on_progress=clock)
    acknowledged = len(examples) / (clock.acknowledged(len(examples)) - began)
    encoded = len(examples) / (clock.first("reading") - began)
    accuracy = 100 * client.evaluate("all", _test(data)).accuracy
    reference = f"best in-process loop: {encoder_rate:.0f} texts/s ({loop})"
    return [
        at_least("all 10,003 streamed: accuracy", accuracy, 92.5, "%"),
        at_least(
            "examples acknowledged durably, over the encoder's own speed",
            acknowledged / encoder_rate,
            0.9,
            "x",
            f"{acknowledged:.0f}/s; {reference}",
        ),
        at_least(
            "examples stored and encoded, over the encoder's own speed",
            encoded / encoder_rate,
            0.9,
            "x",
            f"{encoded:.0f}/s; {reference}",
        ),
    ]


class _Stages:
    """When an adaptation came to each stage."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._acknowledged: list[tuple[int, float]] = []

    def __call__(self, progress: graft.AdaptProgress) -> None:
        now = time.perf_counter()
        self._stages.setdefault(progress.stage, now)
        self._acknowledged.append((progress.acknowledged, now))

    def first(self, stage: str) -> float:
        return self._stages[stage]

    def acknowledged(self, count: int) -> float:
        return next(moment for done, moment in self._acknowledged if done >= count)


def _train(data: Texts, rows: NDArray[np.int64]) -> Pairs:
    return [(data.train[row], data.classes[data.train_labels[row]]) for row in rows]


def _test(data: Texts) -> Iterator[tuple[str, str]]:
    return ((text, data.classes[label]) for text, label in zip(data.test, data.test_labels, strict=True))


if __name__ == "__main__":
    main()
