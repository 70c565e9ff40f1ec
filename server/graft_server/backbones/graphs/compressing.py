"""From tuned weights to an adapter: what tuning changed in each product, cut down to a low rank.

Tuning first and cutting down afterwards takes as long as tuning alone, and finds the directions that matter, where
low-rank updates that are trained have to be given a rank and a rate beforehand. What is left of a change is scaled to
the size of the whole: without that, tuned features are drawn back towards the frozen ones, and classes are less apart.

Changes of other weights (embeddings, normalisations, convolutions) are left out.

Imports onnx, so workers alone import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from graft_server.backbones.graphs.adapted import products
from graft_server.backbones.graphs.adapters import Adapter, LowRank, product_key

RANK = 8
_MORE, _ITERATIONS = 8, 3
"""How many directions more than the rank are looked for, and how often they are turned towards the largest."""

Array = NDArray[np.float32]
_WEIGHT, _BIAS = "weight", "bias"


class Compressor:
    """Cuts tunings of the same weights down."""

    def __init__(self, graph: Path, original: Mapping[str, Array], *, rank: int = RANK) -> None:
        """Finds the products among the weights.

        Args:
            graph: The encoder's graph in float32, or its part above the cut.
            original: The weights that are tuned, as they were before, by name.
            rank: How many directions of a change are kept.
        """
        known = {product_key(it.matrix) for it in products(onnx.load(str(graph)))}
        self._original, self._rank = original, rank
        self._products: dict[str, tuple[str, bool]] = {}
        """Name to key, and whether the weights are held as (out, in)."""
        for name, weights in original.items():
            for transposed in (True, False) if weights.ndim == 2 else ():
                key = product_key(weights.T if transposed else weights)
                if key in known:
                    self._products[name] = key, transposed
                    break

    def adapter(self, tuned: Mapping[str, Array]) -> Adapter:
        """What tuning added. Weights that two products shared, and that became different, are left as they were."""
        found: dict[str, LowRank] = {}
        twins = set[str]()
        for name, (key, transposed) in self._products.items():
            change = tuned[name] - self._original[name]
            low = _low_rank(
                change.T if transposed else change, self._offset(name, tuned, transposed), self._rank
            )
            if key in found and not np.array_equal(found[key].matrix, low.matrix):
                twins.add(key)
            found[key] = low
        return Adapter({key: it for key, it in found.items() if key not in twins and it.matrix.any()})

    def weights(self, adapter: Adapter) -> dict[str, Array]:
        """The weights with what an adapter adds in them, by name."""
        found = dict(self._original)
        for name, (key, transposed) in self._products.items():
            low = adapter.products.get(key)
            if low is None:
                continue
            found[name] = self._original[name] + (low.matrix.T if transposed else low.matrix)
            bias = name.removesuffix(_WEIGHT) + _BIAS
            if low.offset.any():
                found[bias] = self._original[bias] + low.offset
        return found

    def _offset(self, name: str, tuned: Mapping[str, Array], transposed: bool) -> Array:
        shape = self._original[name].shape
        out = shape[0] if transposed else shape[1]
        bias = name.removesuffix(_WEIGHT) + _BIAS
        if name.endswith(_WEIGHT) and bias in tuned and tuned[bias].shape == (out,):
            return tuned[bias] - self._original[bias]
        return np.zeros(out, np.float32)


def _low_rank(change: Array, offset: Array, rank: int) -> LowRank:
    """The directions in which a change of shape (in, out) is largest, at its size."""
    wide = change.shape[0] > change.shape[1]
    matrix = change.T if wide else change
    left = _largest(matrix, rank)
    right = left.T @ matrix
    kept, whole = float((right**2).sum()), float((matrix**2).sum())
    scale = np.sqrt(whole / kept) if kept else 0.0
    # Both sides about as large: they are stored in half precision.
    sizes = np.sqrt(np.maximum(np.linalg.norm(right, axis=1), 1e-12) * max(scale, 1e-12)).astype(np.float32)
    left, right = left * sizes, right * np.float32(scale) / sizes[:, None]
    down, up = (right.T, left.T) if wide else (left, right)
    down, up = down.astype(np.float16).astype(np.float32), up.astype(np.float16).astype(np.float32)
    return LowRank(down, up, offset.astype(np.float32))


def _largest(matrix: Array, rank: int) -> Array:
    """The left singular vectors of the largest values, by subspace iteration (Halko et al. 2011): shape (in, rank)."""
    random = np.random.default_rng(0).standard_normal((matrix.shape[1], rank + _MORE)).astype(np.float32)
    space, _ = np.linalg.qr(matrix @ random)
    for _ in range(_ITERATIONS):
        space, _ = np.linalg.qr(matrix @ (matrix.T @ space))
    within, _, _ = np.linalg.svd(space.T @ matrix, full_matrices=False)
    found: Array = (space @ within)[:, :rank]
    return found
