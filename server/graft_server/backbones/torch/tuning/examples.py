"""The examples of a tuning where it runs: what the backbone's preprocessor made of their inputs, on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.decoding.audio import Heard

EXAMPLES = "examples.npz"
VALUES = "values.bin"
"""What the examples' items are made of."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a tuning. Row i of everything is example i."""

    values: NDArray[Any]
    """shape (v, ...): what the items are made of, one after the other: token ids of texts, rows of pixels, samples
    or frames of clips. Read from disk as it is needed."""
    offsets: NDArray[np.int64]
    """shape (n + 1,): where each item begins, and where the last one ends."""
    heard: NDArray[np.int64]
    """shape (n, 3): what `Heard` has besides values; of other modalities shape (n, 0)."""
    lengths: NDArray[np.int64]
    """shape (n,): what each counts for in a batch: the length of the item."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    part: NDArray[np.int8]
    """shape (n,): a `tuning_objects.Part` each."""
    head: tuple[NDArray[np.float32], NDArray[np.float32]]
    """Weight, shape (d, k), and bias, shape (k,), of the head to start from, calibrated."""
    digest: str
    """Of all of it."""
    fold_of: NDArray[np.int32] | None = None
    """shape (n,): the fold that holds each out, `cross_fitted.LEFT_OUT`, or `cross_fitted.NAME`: the names of classes
    come last, as examples of them. None: nothing is cross-fitted."""

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        items: Iterable[Any],
        labels: NDArray[np.int32],
        weights: NDArray[np.float64],
        part: NDArray[np.int8],
        head: tuple[NDArray[np.float32], NDArray[np.float32]],
        fold_of: NDArray[np.int32] | None = None,
    ) -> None:
        """Writes the examples.

        Args:
            folder: Where to; made if it is missing.
            items: Of each what its backbone's preprocessor made of it; taken one by one.
            labels: shape (n,).
            weights: shape (n,).
            part: shape (n,).
            head: See `Examples.head`.
            fold_of: See `Examples.fold_of`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        sizes: list[int] = []
        lengths: list[int] = []
        heard: list[tuple[int, ...]] = []
        first: NDArray[Any] = np.empty(0)
        with (folder / VALUES).open("wb") as file:
            for item in items:
                values = _values(item)
                data = values.tobytes()
                file.write(data)
                digest.update(data)
                first = values if not sizes else first
                sizes.append(len(values))
                lengths.append(len(item))
                heard.append((item.frames, item.heard, item.truncated) if isinstance(item, Heard) else ())
        arrays: dict[str, NDArray[Any]] = {
            "sizes": np.array(sizes, np.int64),
            "lengths": np.array(lengths, np.int64),
            "heard": np.array(heard, np.int64).reshape(len(sizes), -1),
            "labels": labels,
            "weights": weights,
            "part": part,
            "weight": head[0],
            "bias": head[1],
        }
        if fold_of is not None:
            arrays["fold_of"] = fold_of
        for name, array in sorted(arrays.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        arrays["kind"] = np.array([str(first.dtype), digest.hexdigest()])
        arrays["trailing"] = np.array(first.shape[1:], np.int64)
        np.savez(folder / EXAMPLES, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """Reads what `write` wrote. The files may be removed as soon as this returns."""
        found = dict(np.load(folder / EXAMPLES))
        kind, digest = (str(it) for it in found.pop("kind"))
        offsets = np.concatenate([[0], np.cumsum(found.pop("sizes"))])
        shape = (int(offsets[-1]), *found.pop("trailing"))
        values = np.memmap(folder / VALUES, kind, "r", shape=shape)
        head = found.pop("weight"), found.pop("bias")
        return cls(values=values, offsets=offsets, head=head, digest=digest, **found)

    def items(self, rows: NDArray[np.int64]) -> list[Any]:
        """What the preprocessor collates, of some examples."""
        return [self._item(int(row)) for row in rows]

    def _item(self, row: int) -> Any:
        values = self.values[self.offsets[row] : self.offsets[row + 1]]
        if self.heard.shape[1]:
            frames, heard, truncated = self.heard[row].tolist()
            return Heard(np.array(values), frames, heard, bool(truncated))
        return values.astype(np.int64) if values.dtype == np.int32 else np.array(values)


def _values(item: Any) -> NDArray[Any]:
    values: NDArray[Any] = item.values if isinstance(item, Heard) else item
    # Token ids are small.
    return np.ascontiguousarray(values, np.int32 if values.dtype == np.int64 else values.dtype)
