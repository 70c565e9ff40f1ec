"""The hardware's limit: the exported encoder in a bare loop, without server, batcher or tokenizer.

Every way of driving it is tried: any order of the texts, packed batches of any size, any thread layout. Batches
cover the whole set, shuffled: a loop that stops among the short texts would flatter sorting.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import CACHE
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.packing import pack
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.onnx_runtime import onnxruntime

Tokens = NDArray[np.int64]
BUDGETS = (64, 128, 192, 256)
QUICK = 600
"""Texts on which all ways are tried; the best three are tried on the whole set."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A way of driving the encoder."""

    workers: int
    threads: int
    budget: int
    """Tokens a batch."""
    by_length: bool

    def __str__(self) -> str:
        """As a table shows it."""
        order = "sorted" if self.by_length else "arrival order"
        return f"{self.workers}x{self.threads} threads, {self.budget} tokens a batch, {order}"


def backbone() -> Backbone:
    """The default backbone."""
    return open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)


def fp32_graph() -> Path:
    """Its exported encoder; `graft-server prepare` makes it."""
    return EncoderCache(CACHE).graph(backbone().encoder_id)


def tokenized(texts: Sequence[str]) -> list[Tokens]:
    """The texts' token ids."""
    it = backbone()
    return [text.item for text in TextTokenizer(it.folder, it.max_tokens).many(texts)]


def session(threads: int, *, spinning: bool, graph: Path | None = None) -> onnxruntime.InferenceSession:
    """A session of its own, on the default backbone's graph unless another is given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(
        str(graph or fp32_graph()), options, providers=["CPUExecutionProvider"]
    )


def best_loop(texts: Sequence[Tokens], cores: int) -> tuple[Loop, float]:
    """The fastest way, and its texts per second."""
    loops = [
        Loop(workers, threads, budget, by_length)
        for (workers, threads), budget, by_length in itertools.product(
            dict.fromkeys([(cores, 1), (1, cores)]), BUDGETS, (False, True)
        )
    ]
    sessions = {threads: session(threads, spinning=threads > 1) for threads in (1, cores)}
    quick = {loop: rate(loop, sessions[loop.threads], texts[:QUICK]) for loop in loops}
    finalists = sorted(loops, key=lambda loop: -quick[loop])[:3]
    return max(
        ((loop, rate(loop, sessions[loop.threads], texts)) for loop in finalists), key=lambda it: it[1]
    )


def rate(loop: Loop, running: onnxruntime.InferenceSession, texts: Sequence[Tokens]) -> float:
    """Texts per second of one way, over all the texts."""
    remaining = iter(_batches(loop, texts))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                batch = next(remaining, None)
            if batch is None:
                return
            running.run(None, pack(batch))

    threads = [threading.Thread(target=work) for _ in range(loop.workers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(texts) / (time.perf_counter() - began)


def one_at_a_time(texts: Sequence[Tokens], threads: int) -> float:
    """The median time of a text alone, in ms, spinning between them."""
    running = session(threads, spinning=True)
    times = []
    for text in texts:
        began = time.perf_counter()
        running.run(None, pack([text]))
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times))


def _batches(loop: Loop, texts: Sequence[Tokens]) -> list[list[Tokens]]:
    batches: list[list[Tokens]] = [[]]
    tokens = 0
    for text in sorted(texts, key=len) if loop.by_length else texts:
        if batches[-1] and tokens + len(text) > loop.budget:
            batches.append([])
            tokens = 0
        batches[-1].append(text)
        tokens += len(text)
    order = np.random.default_rng(0).permutation(len(batches))
    return [batches[n] for n in order]
