"""Pairs of examples whose features are far closer than those of different inputs.

A cosine says little by itself: one backbone gives different inputs 0.2, another 0.98. So features are divided by the
typical distance between two examples of the set. They are those of an intermediate layer where the encoder computes
one: it keeps the wording, or the sounds, which the last layer leaves out, and tells a copy from an input of the same
meaning. With several views, a distance is the root mean square over them. A pair is a near copy only where the
neighbourhood ends with it: where twice as far there are many more neighbours, inputs are merely alike, as those of a
template or of few numbers are.
`benchmarks/copies.py` measures how many planted copies are found and how many different inputs are taken for copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.training.solvers.threads import side_by_side

NEAR = 0.15
"""Distance below which two examples may be near copies, in typical distances between examples of the set."""
BEYOND = 2.0
"""Multiple of NEAR within which a near copy has few neighbours more."""
MORE = 1.5
"""The most neighbours within BEYOND of a near copy, besides one, over those within NEAR. Where inputs lie along a line
there are twice as many, and in more dimensions more."""
LAYER = "layer"
"""What the names of views of intermediate layers begin with."""
ALIKE = 1e-3
"""Distance, as a share of the features' norm, that rounding to float16 and the company in a batch explain."""
NOTHING = 0.02
"""Rounding explains nothing beyond this share of the typical distance: features of other backbones are as close."""
DIRECTIONS = 48
"""The number of directions along which pairs are sought first."""
SAMPLE = 2_000
"""The most rows from which the directions are taken."""
MANY = 20_000
"""The pairs of a block from which one product of all its rows is less work than one difference per pair."""
MAX_COMPARED = 20_000
"""The most examples that are compared with each other: more are split along the directions first."""
OVERLAP = 0.3
"""Share of NEAR by which both sides of a split overlap: the difference of a near copy has many directions."""
MOST_OF_A_SPLIT = 0.55
"""The largest share of the rows on one side of a split: where no direction tells much apart, most rows are near it."""
PARTNERS = 16
"""The most pairs of one row with rows of later blocks that are kept: more bind the same rows."""
ROWS_AT_ONCE = 256

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of near rows, one < other."""

    one: Rows
    other: Rows
    distances: Array
    """In typical distances."""

    def of(self, kept: NDArray[np.bool_] | Rows) -> Pairs:
        """Returns some of them."""
        return Pairs(self.one[kept], self.other[kept], self.distances[kept])


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What one block of rows has near it: pairs, and for each row how many there are within and beyond."""

    pairs: Pairs
    within: Rows
    beyond: Rows


class Space:
    """The features of n examples, each view divided by the typical distance between two of them."""

    def __init__(self, views: Mapping[str, NDArray[np.float16]]) -> None:
        self._features = tuple(views.values())
        spread = {view: _spread(features) for view, features in views.items()}
        told = [view for view, (_, typical, norm) in spread.items() if typical > ALIKE * norm]
        layers = [view for view in told if view.startswith(LAYER)]
        self._views = [(views[view], *spread[view][:2]) for view in layers or told]

    @property
    def flat(self) -> bool:
        """Whether all examples have the same features, but for rounding."""
        return not self._views

    def rows(self, rows: Rows) -> Array:
        """Returns some rows, shape (m, d), with distances in typical distances: 1 between two at random."""
        scale = np.sqrt(len(self._views))
        parts = [
            (features[rows].astype(np.float32) - centre) / np.float32(typical * scale)
            for features, centre, typical in self._views
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def alike(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Returns whether each pair differs by no more than rounding and the company in a batch explain."""
        alike = pairs.distances <= NOTHING
        for features in self._features:
            for part in np.array_split(np.flatnonzero(alike), 1 + int(alike.sum()) // MANY):
                one, other = (features[rows[part]].astype(np.float32) for rows in (pairs.one, pairs.other))
                alike[part] = np.linalg.norm(one - other, axis=1) <= ALIKE * np.linalg.norm(one, axis=1)
        return alike


def projected_on(space: Space, n: int, seed: int) -> Array:
    """Returns the n examples on the DIRECTIONS along which they differ most; see `_directions` for the seed."""
    if space.flat:
        return np.zeros((n, 1), np.float32)
    directions = _directions(space, n, seed)
    return np.concatenate(
        [space.rows(rows) @ directions for rows in np.array_split(np.arange(n), -(-n // MAX_COMPARED))]
    )


def close_pairs(space: Space, projected: Array, reach: Array) -> tuple[Pairs, Pairs]:
    """Returns the pairs among n examples that rounding tells apart, and those of near copies, closest first.

    Of many pairs of one row only some are returned.

    Args:
        space: The features of the examples, no two of them the same.
        projected: The examples on few directions, as `projected_on` gives them.
        reach: shape (n,): how far a near copy of each may be, at most NEAR.
    """
    n = len(projected)
    if space.flat or n < 2:
        none = np.empty(0, np.int64)
        nothing = Pairs(none, none, np.empty(0, np.float32))
        return nothing, nothing
    found = [_of_cell(space, projected, reach, cell) for cell in cells_of(projected)]
    within, beyond = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for one in found:
        # An example near a split is in two cells: one of them has more of its neighbours.
        np.maximum(within, one.within, out=within)
        np.maximum(beyond, one.beyond, out=beyond)
    pairs = [one.pairs for one in found]
    every = Pairs(
        np.concatenate([it.one for it in pairs]),
        np.concatenate([it.other for it in pairs]),
        np.concatenate([it.distances for it in pairs]),
    )
    _, first = np.unique(every.one * n + every.other, return_index=True)
    every = every.of(first)
    every = every.of(np.argsort(every.distances, kind="stable"))
    ends = beyond <= MORE * within + 1
    near = every.of(ends[every.one] & ends[every.other])
    near = near.of(near.distances <= np.minimum(reach[near.one], reach[near.other]))
    return every.of(space.alike(every)), near


def _spread(features: NDArray[np.float16]) -> tuple[Array, float, float]:
    """Returns the centre, the typical distance between two rows, and the typical norm of a row."""
    centre = features.mean(axis=0, dtype=np.float32)
    about = norm = 0.0
    for part in np.array_split(features, -(-len(features) // MAX_COMPARED)):
        wide = part.astype(np.float32)
        norm += float(np.einsum("nd,nd->", wide, wide))
        wide -= centre
        about += float(np.einsum("nd,nd->", wide, wide))
    n = len(features)
    return centre, float(np.sqrt(2 * about / max(n - 1, 1))), float(np.sqrt(norm / n))


def _directions(space: Space, n: int, seed: int) -> Array:
    """Returns about the DIRECTIONS along which rows differ most, shape (d, r) (Halko et al. 2011).

    Projections are no farther apart than the rows themselves. Along these directions few pairs are close that are not
    close in all.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(n) if n <= SAMPLE else np.sort(rng.choice(n, SAMPLE, replace=False))
    sample = space.rows(rows)
    wanted = min(DIRECTIONS, *sample.shape)
    found = sample.T @ rng.standard_normal((len(sample), wanted)).astype(np.float32)
    for _ in range(2):
        found = sample.T @ (sample @ np.linalg.qr(found)[0])
    directions: Array = np.linalg.qr(found)[0]
    return directions


def cells_of(projected: Array) -> Iterator[Rows]:
    """Returns parts of n examples, of at most MAX_COMPARED each, that nearly all pairs of near copies are in."""
    return _cells(projected, np.arange(len(projected)))


def _cells(projected: Array, rows: Rows) -> Iterator[Rows]:
    """Splits rows at the middle of the direction in which they differ most, until few enough are left to compare."""
    if len(rows) <= MAX_COMPARED:
        yield rows
        return
    of_rows = projected[rows]
    along = of_rows[:, of_rows.var(axis=0).argmax()]
    order = np.argsort(along, kind="stable")
    along, half, most = along[order], len(rows) // 2, int(MOST_OF_A_SPLIT * len(rows))
    low = min(int(np.searchsorted(along, along[half] + OVERLAP * NEAR, "right")), most)
    high = max(int(np.searchsorted(along, along[half] - OVERLAP * NEAR)), len(rows) - most)
    yield from _cells(projected, np.sort(rows[order[:low]]))
    yield from _cells(projected, np.sort(rows[order[high:]]))


def _of_cell(space: Space, projected: Array, reach: Array, cell: Rows) -> _Found:
    """Compares the rows of a cell with each other."""
    wide, narrow = space.rows(cell), projected[cell]
    halves = np.einsum("nd,nd->n", narrow, narrow)[:, None] / 2
    ones = np.ones_like(halves)
    first, second = np.hstack([narrow, halves, ones]), np.hstack([narrow, -ones, -halves])
    farthest, own = np.float32(BEYOND * NEAR), np.maximum(reach[cell], np.float32(NOTHING))

    def of_block(start: int) -> tuple[Rows, Rows, Array, Rows, Rows]:
        block = slice(start, start + ROWS_AT_ONCE)
        # Products are minus half the squared distances along the directions.
        one, other = np.nonzero(first[block] @ second[start:].T >= -(farthest**2) / 2 - 1e-5)
        later = other > one
        one, other = one[later], other[later]
        distances = _distances(wide[block], wide[start:], one, other)
        limits = np.minimum(own[one + start], own[other + start])
        near = distances <= BEYOND * limits
        one, other, distances, limits = one[near] + start, other[near] + start, distances[near], limits[near]
        close = distances <= limits
        beyond = np.bincount(np.concatenate([one, other]), minlength=len(cell))
        one, other, distances = one[close], other[close], distances[close]
        within = np.bincount(np.concatenate([one, other]), minlength=len(cell))
        # `one` is sorted: a row's first partners follow each other.
        kept = np.arange(len(one)) - np.searchsorted(one, one) < PARTNERS
        return one[kept], other[kept], distances[kept], within, beyond

    ones_, others, distances, within, beyond = zip(
        *side_by_side(of_block, range(0, len(cell), ROWS_AT_ONCE)), strict=True
    )
    pairs = Pairs(cell[np.concatenate(ones_)], cell[np.concatenate(others)], np.concatenate(distances))
    counts = np.zeros((2, len(projected)), np.int64)
    counts[0, cell], counts[1, cell] = np.sum(within, axis=0), np.sum(beyond, axis=0)
    return _Found(pairs, counts[0], counts[1])


def _distances(block: Array, rest: Array, one: Rows, other: Rows) -> Array:
    """Returns the distances of pairs of a row of a block and a row of the rest."""
    if len(one) <= MANY:
        apart = block[one] - rest[other]
        near: Array = np.sqrt(np.einsum("nd,nd->n", apart, apart))
        return near
    squares = np.einsum("nd,nd->n", block, block)[:, None] + np.einsum("nd,nd->n", rest, rest)
    squares -= 2 * (block @ rest.T)
    all_of_them: Array = np.sqrt(np.maximum(squares[one, other], 0))
    return all_of_them
