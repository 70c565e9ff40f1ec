"""Chooses the candidates whose labels would teach most: weighted facility location, greedily.

A labelled example teaches about inputs like it. What a set of labelled examples covers is the sum over the pool of each
input's similarity to the nearest of them, weighted by how little the version knows of the input. The best next example
is the one that adds most to that sum; then the next, given that one. One figure so has all that matters:

- uncertainty: what the version is sure of has little weight;
- density: an example that many others are like adds for each of them, an outlier for itself alone;
- novelty: where nothing is labelled, everything is still to be added;
- diversity: what is like an example that was chosen before adds nothing more.

The sum is submodular, so that the greedy choice is within 1 - 1/e of the best one (Nemhauser et al., 1978), and gains
only shrink as more is chosen, so that few have to be computed again for each choice (lazy greedy: Minoux, 1978).
Facility location for active learning: Wei, Iyer and Bilmes, 2015.

On Banking77 and CLINC150 166 and 178 examples chosen so, 50 at a time, give the accuracy of 400 random ones; see
`benchmarks/results/labelling.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

COVERED = 4_000
"""The most inputs of the pool for which it is summed up; they are drawn at random from a larger one."""
CHOSEN_FROM = 20_000
"""The most candidates that are compared; of more, those of which less is known are likelier to be among them."""
FEATURE_BYTES = 96 << 20
"""The most memory of the features that are compared. Long features are compared of fewer candidates."""
KNOWN = 20_000
"""The most labelled inputs that candidates are compared with; they are drawn at random from more."""
LEAST_WEIGHT = 0.05
"""The weight of an input of which the version is sure, beside one of which it knows nothing: it may be wrong."""
COPY = 0.97
"""The similarity, where 0 is that of unrelated inputs and 1 of equal ones, from which an input is a near copy."""
NEIGHBOURS = 5
"""By so many nearest inputs of the pool it is found out which of them are outliers."""
BLOCK = 512
AT_ONCE = 32
"""Candidates whose gains are computed again at once."""


class LeftError(Exception):
    """Nobody waits for the choice any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """m <= count chosen rows. Entry i of everything is about the i-th."""

    rows: NDArray[np.int64]
    """shape (m,): the rows, the best first."""
    gains: NDArray[np.float64]
    """shape (m,): what each one adds, given those before it, as a share of what the first one adds; 0 to 1."""
    similar: NDArray[np.int64]
    """shape (m,): about how many inputs of the pool, itself included, are more like it than like any other labelled or
    chosen one."""


def choose(
    features: NDArray[np.floating[Any]],
    known: NDArray[np.floating[Any]],
    uncertainty: Array | None,
    count: int,
    *,
    seed: int = 0,
    left: Callable[[], bool] = lambda: False,
) -> Choice:
    """Chooses up to `count` rows whose labels would teach most; no near copies of labelled inputs or of each other.

    Args:
        features: shape (n, d), n >= 1, finite: the pool. Rows of any length and precision: cosines count, and only the
            rows that are compared are copied.
        known: shape (m, d), m >= 0: what is labelled.
        uncertainty: shape (n,), 0 to 1: how little is known of each; None: nothing is known of any.
        count: The number of rows; >= 1.
        seed: The seed of what is drawn at random, where the pool is large.
        left: Whether nobody waits any more. It is asked now and then.

    Raises:
        LeftError: Nobody waits any more.
    """
    n, dimension = features.shape
    rng = np.random.default_rng(seed)
    weights = np.ones(n, np.float32)
    if uncertainty is not None:
        weights = np.maximum(uncertainty, np.float32(LEAST_WEIGHT))
    most = max(1, min(CHOSEN_FROM, FEATURE_BYTES // (4 * dimension)))
    rows = _drawn(rng, n, most, weights)
    covered = np.sort(rng.choice(n, COVERED, replace=False)) if n > COVERED else np.arange(n)
    if len(known) > KNOWN:
        known = known[np.sort(rng.choice(len(known), KNOWN, replace=False))]
    greedy = _Greedy(_unit(features[rows]), _unit(features[covered]), left)
    greedy.weigh(weights[covered])
    greedy.know(_unit(known))
    chosen, gains = greedy.choose(count)
    return Choice(
        rows[chosen], gains, np.maximum(1, np.rint(greedy.owned() * n / len(covered))).astype(np.int64)
    )


def _drawn(rng: np.random.Generator, n: int, most: int, weights: Array) -> NDArray[np.int64]:
    """Returns all of n rows, or `most` of them, drawn without replacement in proportion to the weights, ascending."""
    if n <= most:
        return np.arange(n)
    # Efraimidis and Spirakis, 2006.
    keys = rng.exponential(size=n) / weights
    return np.sort(np.argpartition(keys, most)[:most])


def _unit(rows: NDArray[np.floating[Any]]) -> Array:
    """Returns the rows at length 1; of length 0 they stay."""
    unit = rows.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.float32(1e-12))
    return unit


class _Greedy:
    """One choice."""

    def __init__(self, candidates: Array, pool: Array, left: Callable[[], bool]) -> None:
        self._candidates = candidates
        self._pool = pool
        self._left = left
        self._reached = np.zeros(len(pool), np.float32)
        """How much of each input of the pool is covered, 0 to 1."""
        self._owner = np.full(len(pool), -1)
        """Which of the chosen ones covers it; -1: none."""
        self._weights = np.ones(len(pool), np.float32)
        self._barred = np.zeros(len(candidates), bool)
        """Which candidates are near copies of what is labelled or chosen."""
        self._chosen = 0
        half = len(pool) // 2
        between = np.einsum("ij,ij->i", pool[:half], pool[half : 2 * half])
        self._unrelated = (
            np.float32(min(max(float(np.median(between)), 0.0), 0.95)) if half else np.float32(0)
        )
        """The similarity of inputs that have nothing to do with each other: backbones differ in it."""

    def _similarities(self, rows: Array, others: Array) -> Array:
        """Shape (rows, others): 0, unrelated, to 1, equal."""
        if self._left():
            raise LeftError
        products: Array = rows @ others.T
        products -= self._unrelated
        products /= 1 - self._unrelated
        return np.maximum(products, 0, out=products)

    def weigh(self, weights: Array) -> None:
        """Gives the pool's inputs weights: less to outliers, which are like nothing in the pool."""
        n = len(self._pool)
        self._weights = weights.astype(np.float32)
        if n <= 2 * NEIGHBOURS:
            return
        near = np.empty(n, np.float32)
        for start in range(0, n, BLOCK):
            similar = self._similarities(self._pool[start : start + BLOCK], self._pool)
            # The nearest is the input itself.
            best = -np.partition(-similar, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
            near[start : start + BLOCK] = (best.sum(axis=1) - best.max(axis=1)) / NEIGHBOURS
        usual = float(np.median(near))
        if usual > 0:
            self._weights *= np.minimum(1, near / np.float32(usual)) ** 2

    def know(self, known: Array) -> None:
        """Notes what is labelled."""
        for start in range(0, len(known), BLOCK):
            block = known[start : start + BLOCK]
            np.maximum(self._reached, self._similarities(block, self._pool).max(axis=0), out=self._reached)
            for first in range(0, len(self._candidates), 4 * BLOCK):
                rows = slice(first, first + 4 * BLOCK)
                self._barred[rows] |= self._similarities(self._candidates[rows], block).max(axis=1) >= COPY

    def choose(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns the places of chosen candidates, and what each adds."""
        bounds = np.concatenate(
            [
                self._gains(np.arange(start, min(start + BLOCK, len(self._candidates))))[0]
                for start in range(0, len(self._candidates), BLOCK)
            ]
        )
        bounds[self._barred] = -1
        chosen: list[int] = []
        gains: list[float] = []
        while len(chosen) < count and (best := self._best(bounds)) is not None:
            chosen.append(best)
            gains.append(float(bounds[best]))
            self._take(best, bounds)
        return np.array(chosen, np.int64), np.array(gains, np.float64) / (
            gains[0] if gains and gains[0] else 1.0
        )

    def _best(self, bounds: Array) -> int | None:
        """Returns the candidate with the largest gain, and makes its bound exact; None: there is none left."""
        exact = np.zeros(len(bounds), bool)
        while True:
            most = int(bounds.argmax())
            if bounds[most] < 0:
                return None
            if exact[most]:
                return most
            at_once = min(AT_ONCE, len(bounds))
            some = np.argpartition(-bounds, at_once - 1)[:at_once]
            some = np.sort(some[(bounds[some] >= 0) & ~exact[some]])
            bounds[some] = self._gains(some)[0]
            exact[some] = True

    def _gains(self, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """What each of some candidates would add, and their similarities to the pool."""
        similar = self._similarities(self._candidates[places], self._pool)
        return np.maximum(similar - self._reached, 0) @ self._weights, similar

    def _take(self, place: int, bounds: Array) -> None:
        """Takes a candidate."""
        similar = self._similarities(self._candidates[place : place + 1], self._pool)[0]
        nearer = similar > self._reached
        self._reached[nearer] = similar[nearer]
        self._owner[nearer] = self._chosen
        self._chosen += 1
        bounds[self._similarities(self._candidates, self._candidates[place : place + 1])[:, 0] >= COPY] = -1
        bounds[place] = -1

    def owned(self) -> NDArray[np.int64]:
        """How many inputs of the pool each of the chosen ones covers best."""
        return np.bincount(self._owner[self._owner >= 0], minlength=self._chosen)
