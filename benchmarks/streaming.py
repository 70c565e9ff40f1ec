"""Learning while the stream is open: how soon a label counts, what publishing on the way costs, and whom it slows.

python -m benchmarks.streaming [--only live10k live100k same beside backpressure]

Parts that are left out keep the figures of their last run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np

import graft
from benchmarks import load
from benchmarks.backpressure import backpressure
from benchmarks.datasets import Texts, banking77, clinc150, few_shot
from benchmarks.harness import RESULTS, Figure, Server, at_least, at_most, server, write
from benchmarks.load import Load, predict_requests, write_requests

ARRIVALS = 20
LOAD_S, WINDOW_S = 20.0, 5.0
TRAINING = {"reading", "selecting", "comparing", "publishing", "published"}
"""The stages of a commit's job, once its features are there."""
Pairs = list[tuple[str, str]]


def main() -> None:
    parts = {it.__name__: it for it in (live10k, live100k, same, beside, backpressure)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")
    figures = [figure for name in parser.parse_args().only for figure in parts[name]()]
    names = {it.what for it in figures}
    write("streaming", "Learning while the stream is open", [*_earlier(names), *figures])


def live10k() -> list[Figure]:
    """All of Banking77 behind the interim head."""
    data = banking77()
    rows = [(text, data.classes[label]) for text, label in zip(data.train, data.train_labels, strict=True)]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    test = [(text, data.classes[label]) for text, label in zip(data.test, data.test_labels, strict=True)]
    return asyncio.run(_live("10,003", [(str(text), str(label)) for text, label in rows], test))


def live100k() -> list[Figure]:
    """100,000 short texts: Banking77's shortest 5,000, each in 20 forms."""
    data = banking77()
    shortest = sorted(range(len(data.train)), key=lambda row: len(data.train[row]))[:5_000]
    rows = [
        (f"{data.train[row]} {form}", data.classes[data.train_labels[row]])
        for form in range(20)
        for row in shortest
    ]
    return asyncio.run(_live("100,000", rows, []))


async def _live(behind: str, rows: Pairs, test: Pairs) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        with server(store=store) as running:
            seconds, accuracy, prequential = await _arrivals(running, rows, test)
        with server(store=store) as again:
            rebuilt_s = await _first_answer(again)
    what = f"label sent to interim head that knows it, {behind} examples behind"
    figures = [
        at_most(
            f"{what}, median of {ARRIVALS}",
            float(np.median(seconds)),
            1.0,
            "s",
            f"worst {max(seconds):.3f} s",
        ),
        Figure(f"first answer of an interim head after a restart, {behind} examples behind", rebuilt_s, "s"),
    ]
    if test:
        reference = f"prequential over the whole stream: {100 * prequential:.1f}%; a published version: 93.9%"
        figures.append(
            Figure("accuracy of the interim head after Banking77's 10,003", accuracy, "%", "", reference)
        )
    return figures


async def _arrivals(running: Server, rows: Pairs, test: Pairs) -> tuple[list[float], float, float]:
    """How long each late label took; and the accuracy on a test, in percent, and prequentially before that."""
    late: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    learned = asyncio.Event()
    metrics: dict[str, float] = {}

    async def examples() -> AsyncIterator[tuple[str, str]]:
        for row in rows:
            yield row
        while True:
            yield await late.get()

    def told(progress: graft.AdaptProgress) -> None:
        metrics.update(progress.metrics)
        if progress.metrics.get("examples", 0) >= len(rows):
            learned.set()

    async with graft.AsyncClient(running.target) as client:
        streaming = asyncio.create_task(client.adapt("live", examples(), adaptation_id="a", on_progress=told))
        await learned.wait()
        prequential = metrics.get("prequential_accuracy_total", 0.0)
        await client.predict("live", ["hello"], adaptation_id="a")
        accuracy = await _accuracy(client, test)
        seconds = []
        for number in range(ARRIVALS):
            began = time.perf_counter()
            await late.put((f"a text about late subject number {number}", f"late subject {number}"))
            while True:
                answer = await client.predict("live", ["a text"], adaptation_id="a", top_k=1)
                if answer.next_sequence > len(rows) + number:
                    break
            seconds.append(time.perf_counter() - began)
        streaming.cancel()  # the adaptation stays open
        await asyncio.gather(streaming, return_exceptions=True)
    return seconds, accuracy, prequential


async def _accuracy(client: graft.AsyncClient, test: Pairs) -> float:
    if not test:
        return 0.0
    answers = await client.predict("live", [text for text, _ in test], adaptation_id="a", top_k=1)
    return 100 * float(np.mean([it.label == label for it, (_, label) in zip(answers, test, strict=True)]))


async def _first_answer(running: Server) -> float:
    async with graft.AsyncClient(running.target) as client:
        began = time.perf_counter()
        await client.predict("live", ["hello"], adaptation_id="a", timeout=300)
        return time.perf_counter() - began


def same() -> list[Figure]:
    """Publishing on the way against one commit at the end, on the same examples with the same seed."""
    data = banking77()
    rows = np.random.default_rng(0).permutation(few_shot(data.train_labels, 16, 0))
    examples = [(data.train[row], data.classes[data.train_labels[row]]) for row in rows]
    versions: list[graft.Outcome] = []
    with server() as running, graft.Client(running.target) as client:
        client.adapt("once", examples, seed=1)
        client.adapt("often", _slowly(examples), seed=1, publish_every=300, on_published=versions.append)
        scores = [_scores(client, model, data) for model in ("once", "often")]
        accuracy = [100 * client.evaluate(model, _test(data)).accuracy for model in ("once", "often")]
    off = float(np.abs(scores[0] - scores[1]).max())
    return [
        at_most(
            "publishing every 300 of 1,232 examples: test probabilities, off one commit at the end",
            off, 1e-3, "", f"{len(versions)} versions; accuracy {accuracy[1]:.2f}%, at once {accuracy[0]:.2f}%",
        ),
    ]  # fmt: skip


def beside() -> list[Figure]:
    """Predict at half of what the server can do, while 15,000 examples are adapted to, over without."""
    data, asked = clinc150(), banking77()
    rows = np.random.default_rng(0).permutation(len(data.train))
    examples = [(data.train[row], data.classes[data.train_labels[row]]) for row in rows]
    few = [
        (asked.train[row], asked.classes[asked.train_labels[row]])
        for row in few_shot(asked.train_labels, 8, 0)
    ]
    with tempfile.TemporaryDirectory() as folder, server() as running, graft.Client(running.target) as client:
        client.adapt("asked", few)
        requests = write_requests(Path(folder) / "one", predict_requests(["asked"], asked.test, 1))
        capacity = load.run(Load(running.target, requests, 1, 6_000, 64)).texts_per_s
        rate = capacity / 2

        def ask(seconds: float) -> list[float]:
            return load.run(
                Load(running.target, requests, 1, int(rate * seconds), 256, rate=rate)
            ).latencies_ms

        quiet = ask(LOAD_S / 2)
        stage = [""]
        work = threading.Thread(
            target=lambda: client.adapt("beside", examples, on_progress=lambda it: stage.append(it.stage))
        )
        began = time.perf_counter()
        work.start()
        latencies: dict[bool, list[float]] = {False: [], True: []}
        asked_for = 0
        while work.is_alive():
            training = stage[-1] in TRAINING
            asked_for += int(rate * WINDOW_S)
            latencies[training] += ask(WINDOW_S)
        took = time.perf_counter() - began
        quiet += ask(LOAD_S / 2)  # before and after: what else the machine does changes from minute to minute
    both = latencies[False] + latencies[True]
    p99, without = (float(np.percentile(it, 99)) for it in (both, quiet))
    parts = ", ".join(
        f"{np.percentile(found, 99):.1f} ms while it {what}"
        for what, found in (("comes in", latencies[False]), ("is trained on", latencies[True]))
        if found
    )
    return [
        at_most(
            "p99 of Predict at half load while 15,000 examples are adapted to, over without",
            p99 / without, 1.5, "x",
            f"{p99:.1f} ms over {took:.0f} s ({parts}); without {without:.1f} ms, {rate:.0f}/s",
        ),
        at_least("the same: share of requests that were answered", len(both) / asked_for, 1.0, ""),
    ]  # fmt: skip


def _slowly(examples: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The examples in parts, with time for a version after each."""
    for number, example in enumerate(examples):
        if number and number % 300 == 0:
            time.sleep(4)
        yield example


def _scores(client: graft.Client, model: str, data: Texts) -> np.ndarray:
    """Probabilities of all classes on the test texts, in the order of the classes."""
    answers = client.predict(model, data.test[:1_000], top_k=len(data.classes))
    return np.array([[it.probability for it in sorted(p.scores, key=lambda s: s.label)] for p in answers])


def _test(data: Texts) -> Iterator[tuple[str, str]]:
    return ((text, data.classes[label]) for text, label in zip(data.test, data.test_labels, strict=True))


def _earlier(replaced: set[str]) -> list[Figure]:
    """The figures of other parts, as they were last written."""
    path = RESULTS / "streaming.json"
    if not path.exists():
        return []
    figures = [Figure(**it) for it in json.loads(path.read_text())["figures"]]
    return [it for it in figures if it.what not in replaced]


if __name__ == "__main__":
    main()
