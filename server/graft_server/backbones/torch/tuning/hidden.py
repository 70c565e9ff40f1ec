"""What the layers below the cut make of each example: computed once, and kept for every epoch.

The lower layers do not change, and in evaluation they are not random either, so an epoch costs only what is
tuned. Up to a bound it is kept in memory, beyond it on disk, in half precision.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.graphs.cache import HIDDEN
from graft_server.backbones.preprocessing import Arrays, Preprocessor
from graft_server.backbones.text.preprocessor import is_packed
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.onnx_runtime import onnxruntime

ENCODED_TOKENS = 256
"""Tokens in a batch of what needs no gradients; see `encoding.layout`."""

HIDDEN_FILE = "hidden.bin"

Array = NDArray[np.float32]


def session_over(graph: Path) -> onnxruntime.InferenceSession:
    """A session that runs each call on its caller's thread: several batches at once are faster than one on all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def parts(examples: Examples, rows: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows, in their order, in parts of at most `tokens` tokens, or of one longer row."""
    start, size = 0, 0
    for end, row in enumerate(rows):
        length = int(examples.lengths[row])
        if end > start and size + length > tokens:
            yield rows[start:end]
            start, size = end, 0
        size += length
    yield rows[start:]


def by_length(examples: Examples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from the shortest to the longest, so that batches have little to pad."""
    return rows[np.argsort(examples.lengths[rows], kind="stable")]


class Hidden:
    """The hidden states at the cut: of packed texts shape (1, tokens, d), of others (n, ...), a row each.

    Rows of others that are shorter than a batch's longest end in zeros, which nothing looks at: each is computed
    alone, so what is kept of it is its own.
    """

    def __init__(self, examples: Examples, graph: Path, preprocessor: Preprocessor, *, folder: Path) -> None:
        """Makes it; nothing is kept until `keep`.

        Args:
            examples: What is encoded.
            graph: The file of the part below the cut.
            preprocessor: The backbone's.
            folder: Where what does not fit into memory goes.
        """
        self._examples = examples
        self._folder = folder
        self._collate = preprocessor.collate
        self._packed = is_packed(preprocessor)
        self._session = session_over(graph)
        self._names = [it.name for it in self._session.get_inputs()]
        self._kept: NDArray[np.float16] | None = None

    def keep(self, *, memory_bytes: int, threads: int, told: Callable[[float], None]) -> None:
        """Computes all of them.

        Args:
            memory_bytes: How much may be kept in memory; more goes to disk.
            threads: How many batches are computed at once.
            told: Told the share that is done, after each batch; what it raises ends it.
        """
        examples = self._examples
        order = by_length(examples, np.arange(len(examples.lengths)))
        # Room for each as for the longest, in proportion: texts and clips have states by their length.
        shape = self._of(order[-1:])[0].shape
        each = -(-shape[0] // int(examples.lengths[order[-1]]))
        sizes = np.minimum(examples.lengths * each + 1, shape[0]) if len(shape) == 2 else shape[0]
        sizes = np.broadcast_to(sizes, len(order))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._sizes = np.zeros(len(order), np.int64)
        whole = (int(self._starts[-1]), *shape[1:])
        if math.prod(whole) * 2 <= memory_bytes:
            kept = np.empty(whole, np.float16)
        else:
            path = self._folder / HIDDEN_FILE
            with path.open("w+b") as file:
                path.unlink()  # it is there for as long as this process is
                # A full disk is an error here; where there is no room for a page of a mapped file, the process dies.
                os.posix_fallocate(file.fileno(), 0, math.prod(whole) * 2)
                kept = np.memmap(file, np.float16, "r+", shape=whole)

        def fill(rows: NDArray[np.int64]) -> int:
            for row, own in zip(rows, self._of(rows), strict=True):
                start = self._starts[row]
                self._sizes[row] = len(own)
                kept[start : start + len(own)] = own
            return len(rows)

        done = 0
        batches = list(parts(examples, order, ENCODED_TOKENS)) if self._packed else list(order[:, None])
        executor = ThreadPoolExecutor(threads)
        try:
            for count in executor.map(fill, batches):
                done += count
                told(done / len(order))
        finally:
            executor.shutdown(cancel_futures=True)  # where `told` raised, no more of them are computed
        self._kept = kept

    def of(self, rows: NDArray[np.int64], inputs: Arrays) -> Array:
        """Those of some rows, which collated are `inputs`."""
        if self._kept is None:
            return self.compute(inputs)
        kept = self._kept
        own = [kept[self._starts[row] : self._starts[row] + self._sizes[row]] for row in rows]
        if self._packed:
            return np.concatenate(own, dtype=np.float32)[None]
        states = np.zeros((len(rows), max(map(len, own)), *kept.shape[1:]), np.float32)
        for row, it in zip(states, own, strict=True):
            row[: len(it)] = it
        return states

    def _of(self, rows: NDArray[np.int64]) -> list[Array]:
        """Those of some rows, or, if texts are not packed, of one row: each its own."""
        states = self.compute(self._collate(self._examples.items(rows)))
        if not self._packed:
            return [states[0]]
        return np.split(states[0], np.cumsum(self._examples.lengths[rows])[:-1])

    def compute(self, inputs: Arrays) -> Array:
        """Those of a batch, whether they are kept or not."""
        (states,) = self._session.run([HIDDEN], {name: inputs[name] for name in self._names})
        return np.asarray(states, np.float32)
