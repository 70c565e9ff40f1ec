"""Adapters: what tuning changed in the matrix products of a backbone, as products of low rank.

A tuned product is x W' + b' = x W + b + (x A) B + c, with A of shape (in, r), B of shape (r, out), and c of shape
(out,): beside the weights that all models share, a model holds A, B and c alone (LoRA, Hu et al. 2022). Rows of several
models go through one pass: what differs is computed in lanes, each of which holds tokens of one model, and added to
what is shared (as Punica, Chen et al. 2024, and S-LoRA, Sheng et al. 2024, do on GPUs). The graph that does so is made
by `adapted`.

A product is named by a digest of the weights that it had before (`product_key`), which are the same wherever the
encoder has the same identity.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.graphs.cache import HIDDEN
from graft_server.domain.errors import CorruptError
from graft_server.store.objects.formats import FIRST, require_format

LANES, CELLS, OWN = "lanes", "lane_cells", "lane_own"
"""Inputs of an adapted graph beside those of the graph that it was made of; see `in_lanes`."""
DOWN, UP, OFFSET = "down/", "up/", "offset/"
"""What the inputs of a product begin with; the rest is its key."""
LEAST_LANE = 16
"""Lanes are at least that many places long: shorter ones are more products without being less work."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What is added to one product."""

    down: Array
    """A, shape (in, r)."""
    up: Array
    """B, shape (r, out)."""
    offset: Array
    """c, shape (out,)."""

    @property
    def matrix(self) -> Array:
        """What is added to the weights, shape (in, out)."""
        return self.down @ self.up


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What is added to the products of a backbone, by their keys."""

    products: Mapping[str, LowRank]

    @property
    def nbytes(self) -> int:
        """How much memory it takes, in bytes."""
        return sum(it.down.nbytes + it.up.nbytes + it.offset.nbytes for it in self.products.values())

    @property
    def rank(self) -> int:
        """The largest of its products."""
        return max((it.down.shape[1] for it in self.products.values()), default=0)

    def encoded(self) -> bytes:
        """As bytes, in half precision: what is added is a hundredth of the weights or less."""
        arrays: dict[str, NDArray[Any]] = {"format": np.array(FIRST)}
        for key, it in self.products.items():
            arrays |= {DOWN + key: it.down, UP + key: it.up, OFFSET + key: it.offset}
        data = io.BytesIO()
        halves = {
            name: it.astype(np.float16) if it.dtype == np.float32 else it for name, it in arrays.items()
        }
        np.savez(data, allow_pickle=False, **halves)
        return data.getvalue()

    @classmethod
    def decode(cls, key: str, data: bytes) -> Self:
        """Reads what `encoded` wrote.

        Args:
            key: The object that it is, for the message.
            data: The bytes.

        Raises:
            CorruptError: It is no adapter.
            NewerError: A newer release wrote it.
        """
        try:
            found = dict(np.load(io.BytesIO(data)))
            require_format(key, int(found.pop("format")))
            keys = [it.removeprefix(DOWN) for it in found if it.startswith(DOWN)]
            parts = {
                it: LowRank(*(found[kind + it].astype(np.float32) for kind in (DOWN, UP, OFFSET)))
                for it in keys
            }
        except (ValueError, KeyError, OSError) as error:
            raise CorruptError(
                f"Object {key} of the store is no adapter.", reason="OBJECT_CORRUPT"
            ) from error
        return cls(parts)


def product_key(weights: NDArray[Any]) -> str:
    """The name of a product by its weights before tuning, shape (in, out)."""
    digest = hashlib.sha256(repr(weights.shape).encode())
    digest.update(np.ascontiguousarray(weights, np.float32).tobytes())
    return digest.hexdigest()[:24]


def room_of(shapes: Mapping[str, Sequence[Any]]) -> dict[str, tuple[int, int]]:
    """The products of a graph that have room for adapters: key to (in, out), by the shapes of its inputs by name."""
    keys = [it.removeprefix(DOWN) for it in shapes if it.startswith(DOWN)]
    return {it: (int(shapes[DOWN + it][1]), int(shapes[UP + it][2])) for it in keys}


def places_of(items: Sequence[Any], arrays: Mapping[str, NDArray[Any]], *, packed: bool) -> list[int]:
    """How many places (tokens) each of n items has in the graph.

    Args:
        items: The preprocessor's items.
        arrays: What the graph reads of them: hidden states, shape (n, places, d), or token ids, shape (n, places).
        packed: Whether tokens of all items lie in one row, without padding.
    """
    if packed:
        return [len(it) for it in items]
    hidden = arrays.get(HIDDEN)
    shape = arrays["input_ids"].shape[1:] if hidden is None else hidden.shape[1:-1]
    return [math.prod(shape)] * len(items)


def in_lanes(
    adapters: Sequence[Adapter | None], places: Sequence[int], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, NDArray[Any]]:
    """The inputs of an adapted graph for rows that lie one after the other, each with its adapter.

    A product of a lane costs what its places cost, filled or not. So lanes are as long as what an adapter has on
    average, and one with more has several.

    Args:
        adapters: The adapter of each group of rows; None: the frozen backbone. At least one is not None.
        places: How many places (tokens) each group has.
        shapes: Key to (in, out) of the products of the graph.

    Returns:
        LANES, shape (m, l): which places are in each lane; CELLS, shape (t,): where in the lanes each place is; OWN,
        shape (t, 1): 1 where a place has an adapter, and otherwise 0; and DOWN, UP and OFFSET of each product by lane:
        shapes (m, in, r), (m, r, out) and (m, 1, out).
    """
    of = [it for it in adapters if it is not None]
    total = sum(places)
    own = np.repeat(np.array([it is not None for it in adapters]), places)
    length = max(LEAST_LANE, math.ceil(int(own.sum()) / len({id(it) for it in of})))
    lanes: list[NDArray[np.int64]] = []
    cells = np.zeros(total, np.int64)
    of_lane: list[Adapter] = []
    start = 0
    for adapter, count in zip(adapters, places, strict=True):
        for first in range(start, start + count, length) if adapter is not None else ():
            last = min(first + length, start + count)
            cells[first:last] = len(lanes) * length + np.arange(last - first)
            lanes.append(np.minimum(np.arange(first, first + length), last - 1))
            of_lane.append(adapter)  # type: ignore[arg-type]
        start += count
    inputs: dict[str, NDArray[Any]] = {
        LANES: np.stack(lanes),
        CELLS: cells,
        OWN: own[:, None],
    }
    for key, (width, out) in shapes.items():
        parts = [it.products.get(key) for it in of_lane]
        rank = max((it.down.shape[1] for it in parts if it is not None), default=1)
        down, up = (
            np.zeros((len(parts), width, rank), np.float32),
            np.zeros((len(parts), rank, out), np.float32),
        )
        offset = np.zeros((len(parts), 1, out), np.float32)
        for lane, it in enumerate(parts):
            if it is not None:
                own_rank = it.down.shape[1]
                down[lane, :, :own_rank], up[lane, :own_rank], offset[lane, 0] = it.down, it.up, it.offset
        inputs |= {DOWN + key: down, UP + key: up, OFFSET + key: offset}
    return inputs
