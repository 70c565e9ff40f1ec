"""The folder through which the jobs of a tuning hand each other what they made.

The first job, which knows the store, writes the examples as arrays; the job that tunes, which knows torch,
writes the tuned graph and its features; the last one makes a version of them. All of it can be made again: the
folder is removed when the commit has an outcome.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EXAMPLES = "examples.npz"
TOP = "top.onnx"
"""The tuned graph: from the hidden states at the cut, or from tokens, to the view "pooled"."""
FEATURES = "features.npy"
"""The tuned graph's features of all examples, shape (n, d) float16."""
TUNED_HEAD = "head.npz"
"""The head that was tuned along: `weight` (d, k), `bias` (k,)."""
HIDDEN = "hidden.npy"
CHECKPOINT = "checkpoint.pt"


class Part(IntEnum):
    """Which part an example plays."""

    TRAIN = 0
    STOP = 1
    """Held out, to see when to stop."""
    MEASURE = 2
    """Held out, to measure what came out of it: nothing was chosen on these."""
    LEFT_OUT = 3
    """Marked for validation, or without weight."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """The examples of a tuning. Row i of everything is example i."""

    folder: Path
    tokens: NDArray[np.int32]
    """shape (t,): the token ids of all texts, one after the other."""
    lengths: NDArray[np.int64]
    """shape (n,): how many of them each has."""
    offsets: NDArray[np.int64]
    """shape (n + 1,): where each begins, and where the last one ends."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    part: NDArray[np.int8]
    """shape (n,): a `Part` each."""
    head: tuple[NDArray[np.float32], NDArray[np.float32]]
    """Weight, shape (d, k), and bias, shape (k,), of the head to start from, calibrated."""
    digest: str
    """Of all of it."""

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        tokens: Sequence[NDArray[np.int64]],
        labels: NDArray[np.int32],
        weights: NDArray[np.float64],
        part: NDArray[np.int8],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        """Writes the examples; what a killed tuning of the same ones left beside them stays."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{EXAMPLES}"
        with temporary.open("wb") as file:
            np.savez(
                file,
                tokens=np.concatenate(tokens).astype(np.int32),
                lengths=np.array([len(it) for it in tokens], np.int64),
                labels=labels,
                weights=weights,
                part=part,
                weight=head[0],
                bias=head[1],
            )
        temporary.replace(folder / EXAMPLES)

    @classmethod
    def read(cls, folder: Path) -> Scratch:
        """Reads what `write` wrote."""
        found = dict(np.load(folder / EXAMPLES))
        digest = hashlib.sha256()
        for name, array in sorted(found.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        offsets = np.concatenate([[0], np.cumsum(found["lengths"])])
        weight, bias = found.pop("weight"), found.pop("bias")
        return cls(folder=folder, offsets=offsets, head=(weight, bias), digest=digest.hexdigest(), **found)

    def tokens_of(self, row: int | np.int64) -> NDArray[np.int64]:
        """The token ids of an example, shape (length,)."""
        return self.tokens[self.slice_of(row)].astype(np.int64)

    def slice_of(self, row: int | np.int64) -> slice:
        """Where an example's tokens are among all."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))


def remove(folder: Path) -> None:
    """Removes a scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
