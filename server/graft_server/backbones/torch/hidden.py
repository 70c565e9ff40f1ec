"""What the layers below the cut make of each example: computed once, and kept for every epoch.

The lower layers do not change, and in evaluation they are not random either, so an epoch costs only what is
tuned. Up to a bound it is kept in memory, beyond it on disk, in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.backbones import scratch
from graft_server.backbones.cache import HIDDEN
from graft_server.backbones.packing import pack
from graft_server.backbones.scratch import Scratch

ENCODED_TOKENS = 256
"""Tokens in a batch of what needs no gradients; see `encoding.tuning`."""

Array = NDArray[np.float32]


def session_over(graph: str) -> onnxruntime.InferenceSession:
    """A session that runs each call on its caller's thread: several batches at once are faster than one on all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def parts(examples: Scratch, rows: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows, in their order, in parts of at most so many tokens, or of one row that has more."""
    start, size = 0, 0
    for end, row in enumerate(rows):
        length = int(examples.lengths[row])
        if end > start and size + length > tokens:
            yield rows[start:end]
            start, size = end, 0
        size += length
    yield rows[start:]


def by_length(examples: Scratch, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from the shortest to the longest, so that batches have little to pad."""
    return rows[np.argsort(examples.lengths[rows], kind="stable")]


class Hidden:
    """The hidden states at the cut."""

    def __init__(self, examples: Scratch, graph: str, *, folder: Path) -> None:
        """Makes it; nothing is kept until `keep`.

        Args:
            examples: What is encoded.
            graph: The file of the part below the cut.
            folder: Where what does not fit into memory goes.
        """
        self._examples = examples
        self._folder = folder
        self._session = session_over(graph)
        self._names = [it.name for it in self._session.get_inputs()]
        self._kept: NDArray[np.float16] | None = None

    def keep(self, *, dimension: int, memory_bytes: int, threads: int, told: Callable[[float], None]) -> None:
        """Computes all of them.

        Args:
            dimension: Of a token's hidden state.
            memory_bytes: How much may be kept in memory; more goes to disk.
            threads: How many batches are computed at once.
            told: Told the share that is done, after each batch.
        """
        examples = self._examples
        shape = int(examples.offsets[-1]), dimension
        if shape[0] * shape[1] * 2 <= memory_bytes:
            kept = np.empty(shape, np.float16)
        else:
            path = self._folder / scratch.HIDDEN
            kept = np.lib.format.open_memmap(path, "w+", np.float16, shape)

        def fill(rows: NDArray[np.int64]) -> int:
            computed = self._compute(pack([examples.tokens_of(row) for row in rows]))
            ends = np.cumsum(examples.lengths[rows])
            for row, end in zip(rows, ends, strict=True):
                kept[examples.slice_of(row)] = computed[end - examples.lengths[row] : end]
            return len(rows)

        order = by_length(examples, np.arange(len(examples.lengths)))
        done = 0
        with ThreadPoolExecutor(threads) as executor:
            for count in executor.map(fill, list(parts(examples, order, ENCODED_TOKENS))):
                done += count
                told(done / len(order))
        self._kept = kept

    def of(self, rows: NDArray[np.int64], inputs: Mapping[str, NDArray[np.int64]]) -> Array:
        """Shape (tokens, dimension) of some rows, which packed are `inputs`."""
        if self._kept is None:
            return self._compute(inputs)
        kept = self._kept
        return np.concatenate([kept[self._examples.slice_of(row)] for row in rows]).astype(np.float32)

    def _compute(self, inputs: Mapping[str, Any]) -> Array:
        (hidden,) = self._session.run([HIDDEN], {name: inputs[name] for name in self._names})
        return np.asarray(hidden[0], np.float32)
