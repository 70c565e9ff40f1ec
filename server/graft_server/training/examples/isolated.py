"""Examples whose nearest neighbours are near copies because nothing else is nearly as close.

A clip that is shifted by some milliseconds, or a text with another word, may be as far from its original as other
inputs of a large set are from each other. It is still far closer to it than to anything else: the distance to the
neighbours jumps behind the copies. Such a jump is chance in few dimensions, where neighbours are at all distances, and
hardly ever seen in many (the ratio test of Lowe 2004).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graft_server.training.examples.near import ROWS_AT_ONCE, SAMPLE, Array, Rows, Space
from graft_server.training.solvers.threads import side_by_side

FAR = 0.4
"""The largest distance of a near copy, in typical distances between examples of the set."""
JUMP = 0.65
"""The largest share of the distance to the next neighbour behind the copies that the distance to a copy may be."""
COPIES = 8
"""The most near copies of one example that are found."""
LEAST_DIMENSIONS = 4.0
"""With fewer dimensions jumps are chance."""
SKETCHED = 64
"""The dimensions of the random projection in which neighbours are sought first."""


def isolated_pairs(space: Space, cells: Iterator[Rows], n: int, seed: int) -> tuple[Rows, Rows]:
    """Returns pairs of rows, one < other, each of which is among the other's nearest, before the jump.

    Args:
        space: The features of n examples, no two of them the same.
        cells: The rows that are compared with each other.
        n: How many examples there are.
        seed: The seed of the projection.
    """
    none = np.empty(0, np.int64)
    if space.flat or n < 3 or dimensions(space, n, seed) < LEAST_DIMENSIONS:
        return none, none
    found = [_of_cell(space, cell, seed) for cell in cells]
    directed = np.unique(np.concatenate([one * n + other for one, other in found]))
    one, other = np.divmod(directed, n)
    mutual = (one < other) & np.isin(other * n + one, directed)
    return one[mutual], other[mutual]


def dimensions(space: Space, n: int, seed: int) -> float:
    """Returns in about how many dimensions examples differ: the participation ratio of their principal components."""
    rows = np.arange(n)
    if n > SAMPLE // 4:
        rows = np.random.default_rng(seed).choice(n, SAMPLE // 4, replace=False)
    places = space.rows(rows)
    places -= places.mean(axis=0)
    products = places @ places.T
    return float(np.trace(products) ** 2 / max(float((products**2).sum()), 1e-12))


def _of_cell(space: Space, cell: Rows, seed: int) -> tuple[Rows, Rows]:
    """Returns rows of a cell, each with one of its nearest before the jump, both as rows of the set."""
    wide = space.rows(cell)
    among = min(COPIES + 1, len(cell) - 1)
    if among < 2:
        return cell[:0], cell[:0]
    sketch = np.random.default_rng(seed).standard_normal((wide.shape[1], SKETCHED)).astype(np.float32)
    narrow = wide @ (sketch / np.float32(np.sqrt(SKETCHED)))
    halves, negative = np.einsum("nd,nd->n", narrow, narrow) / 2, np.ascontiguousarray(-narrow.T)

    def of_block(start: int) -> tuple[Rows, Rows]:
        block = np.arange(start, min(start + ROWS_AT_ONCE, len(cell)))
        # Half the squared distances in the projection, less half the row's own norm.
        away = narrow[block] @ negative
        away += halves
        away[np.arange(len(block)), block] = np.inf
        first = wide[block] - wide[away.argmin(axis=1)]
        close = np.flatnonzero(np.einsum("nd,nd->n", first, first) <= FAR**2)
        nearest = np.argpartition(away[close], among - 1, axis=1)[:, :among]
        return _before_the_jump(wide, block[close], nearest)

    pairs = side_by_side(of_block, range(0, len(cell), ROWS_AT_ONCE))
    one, other = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return cell[one], cell[other]


def _before_the_jump(wide: Array, rows: Rows, nearest: Rows) -> tuple[Rows, Rows]:
    """Returns each row with those of its nearest that come before the farthest jump, one pair after the other."""
    distances = np.linalg.norm(wide[rows][:, None] - wide[nearest], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")
    nearest, distances = (np.take_along_axis(it, order, axis=1) for it in (nearest, distances))
    jumps = (distances[:, :-1] <= FAR) & (distances[:, :-1] <= JUMP * distances[:, 1:])
    before = np.where(jumps.any(axis=1), jumps.shape[1] - jumps[:, ::-1].argmax(axis=1), 0)
    row, place = np.nonzero(np.arange(nearest.shape[1]) < before[:, None])
    return rows[row], nearest[row, place]
