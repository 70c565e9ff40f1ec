"""Which examples are copies of each other: the same input, inputs that the backbone reads alike, and near copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.views import POOLED
from graft_server.training.examples.folds import bound_together
from graft_server.training.examples.isolated import isolated_pairs
from graft_server.training.examples.near import (
    NEAR,
    SAMPLE,
    Array,
    Pairs,
    Rows,
    Space,
    cells_of,
    close_pairs,
    projected_on,
)
from graft_server.training.examples.training_set import ExampleSet

WIDTH = 2.0
"""Multiple of NEAR that all near copies of one input may be away from the one in their middle."""
OF_CLASS = 0.3
"""The largest distance of a near copy as a share of the typical distance between two examples of its class. With that
and WIDTH, some example of a class of several is always too far from any other to be a copy of it."""
LEAST_OF_CLASS = 5
"""The fewest inputs of a class that tell its typical distance: fewer may all be copies of one."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Which rows of a training set are copies of each other. Rows that cannot be used are copies of none."""

    inputs: Rows
    """shape (n,): equal for the same input."""
    alike: Rows
    """shape (n,): equal for inputs that the backbone reads alike; the same input is one of them."""
    bound: Rows
    """shape (n,): equal for copies and near copies."""
    pairs: tuple[tuple[int, int], ...]
    """The near copies that are not read alike, in pairs of rows, closest first; of many of one row only some."""
    tight: Rows
    """The classes whose examples are all about as close as near copies are: which of them are copies is not told."""


def copies_among(train: ExampleSet, rows: Rows, seed: int, *, probable: bool = True) -> Copies:
    """Finds the copies among some rows.

    Args:
        train: The examples.
        rows: The rows that can be used, shape (m,).
        seed: The seed of the sample by which near copies are sought.
        probable: Whether pairs that are merely much nearer to each other than to any other count too. Folds lose
            nothing by binding too many.
    """
    if not len(rows):
        none = np.arange(len(train))
        return Copies(none, none, none, (), none[:0])
    inputs = _numbered([train.input_digests[row] for row in rows])
    # Each input that is read alike is compared once.
    read = bound_together(inputs, _equal(train, rows))
    _, one_of_each, place = np.unique(read, return_index=True, return_inverse=True)
    compared = rows[one_of_each]
    space = Space({view: features[compared] for view, features in train.features.items()})
    projected = projected_on(space, len(compared), seed)
    kinds = train.kinds()[rows]
    spreads = _spreads(space, kinds[one_of_each])
    reach = np.minimum(NEAR, OF_CLASS * spreads)[kinds[one_of_each]]
    rounded, near = close_pairs(space, projected, reach)
    alike = _joined(len(compared), rounded)
    worded = _by_wording(train, compared)
    bound = bound_together(alike, worded, _narrowed(space, near, alike, WIDTH * reach))
    pairs = [*zip(near.one.tolist(), near.other.tolist(), strict=True), *_firsts(worded)]
    if probable and not any(train.wordings):
        # Of texts the wording tells more: what else is isolated says the same in other words.
        isolated = isolated_pairs(space, cells_of(projected), len(compared), seed)
        bound = _unless_whole_classes(bound, bound_together(bound, pairs=isolated), place, kinds)
        pairs += zip(*(it.tolist() for it in isolated), strict=True)
    return Copies(
        inputs=_of_all(len(train), rows, inputs),
        alike=_of_all(len(train), rows, alike[place]),
        bound=_of_all(len(train), rows, bound[place]),
        pairs=tuple(
            (int(compared[one]), int(compared[other]))
            for one, other in dict.fromkeys(pairs)
            if alike[one] != alike[other] and bound[one] == bound[other]
        ),
        tight=np.flatnonzero(spreads <= NEAR),
    )


def similarity(train: ExampleSet, one: int, other: int) -> float:
    """Returns the cosine of the pooled features of two rows, 0 to 1."""
    first, second = (train.features[POOLED][row].astype(np.float64) for row in (one, other))
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.clip(first @ second / max(norms, 1e-12), 0, 1))


def _numbered(keys: Sequence[bytes]) -> Rows:
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _equal(train: ExampleSet, rows: Rows) -> Rows:
    """Returns numbers, shape (m,), equal for rows whose features are equal in every view."""
    digests = [b""] * len(rows)
    for features in train.features.values():
        digests = [before + row.tobytes() for before, row in zip(digests, features[rows], strict=True)]
    return _numbered(digests)


def _by_wording(train: ExampleSet, rows: Rows) -> Rows:
    """Returns numbers, shape (m,), equal for texts of the same wording."""
    keys = [train.wordings[row] if train.wordings else b"" for row in rows]
    return _numbered([key or i.to_bytes(8, "big") for i, key in enumerate(keys)])


def _firsts(numbers: Rows) -> list[tuple[int, int]]:
    """Returns pairs of the first row of each number with each of its others."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    firsts = first[place]
    others = np.flatnonzero(firsts != np.arange(len(numbers)))
    return list(zip(firsts[others].tolist(), others.tolist(), strict=True))


def _joined(n: int, pairs: Pairs) -> Rows:
    """Returns numbers, shape (n,), equal for rows that pairs connect."""
    every = np.arange(n)
    return every if not len(pairs.one) else bound_together(every, pairs=(pairs.one, pairs.other))


def _spreads(space: Space, kinds: NDArray[np.int32]) -> Array:
    """Returns the typical distance between two examples of each class, shape (k,); infinite where too few tell it.

    Where classes are far apart, or a backbone hardly tells the inputs of a class apart, all of a class are close.

    Args:
        space: The features of the examples.
        kinds: shape (n,): the class of each.
    """
    counts = np.bincount(kinds)
    spreads = np.full(len(counts), np.inf, np.float32)
    if space.flat:
        return spreads
    order = np.argsort(kinds, kind="stable")
    for kind, members in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        if len(members) >= LEAST_OF_CLASS:
            places = space.rows(members[:: -(-len(members) // SAMPLE)])
            about = float(np.square(places - places.mean(axis=0)).sum())
            spreads[kind] = np.sqrt(2 * about / (len(places) - 1))
    return spreads


def _narrowed(space: Space, near: Pairs, alike: Rows, widths: Array) -> Rows:
    """Returns numbers, shape (n,), equal for near copies of one input.

    Pairs may form a chain whose ends have nothing in common. So what is connected is parted around those in its middle,
    none farther from it than its width, shape (n,).
    """
    numbers = bound_together(alike, pairs=(near.one, near.other)) if len(near.one) else alike.copy()
    following = int(numbers.max(initial=0)) + 1
    order = np.argsort(numbers, kind="stable")
    connected = (it for it in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(it) > 2)
    for members in connected:
        rows, places = members, space.rows(members)
        while True:
            middle = np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()
            far = np.linalg.norm(places - places[middle], axis=1) > widths[rows[middle]]
            if not far.any():
                break
            rows, places = rows[far], places[far]
            numbers[rows] = following
            following += 1
    return numbers


def _unless_whole_classes(surely: Rows, bound: Rows, place: Rows, kinds: NDArray[np.int32]) -> Rows:
    """Returns `bound`, but `surely` for what would bind all examples of a class to each other.

    A class of few examples that are unlike those of other classes is not one example.

    Args:
        surely: shape (n,): equal for rows that are copies beyond doubt.
        bound: shape (n,): equal for these, and for others that are probably copies.
        place: shape (m,): the row that each example is compared as.
        kinds: shape (m,): the class of each example.
    """
    count = int(kinds.max()) + 1
    whole = np.zeros(int(bound.max()) + 1, bool)
    of_class = np.unique(np.stack([kinds, bound[place]]), axis=1)
    alone = np.bincount(of_class[0], minlength=count)[of_class[0]] == 1
    several = np.bincount(np.unique(np.stack([kinds, surely[place]]), axis=1)[0], minlength=count) > 1
    whole[of_class[1, alone & several[of_class[0]]]] = True
    return np.where(whole[bound], surely + len(whole), bound)


def _of_all(n: int, rows: Rows, numbers: Rows) -> Rows:
    """Returns numbers of all n rows: those of some, and for each other row one of its own."""
    every = np.arange(n) + int(numbers.max(initial=0)) + 1
    every[rows] = numbers
    return every


def mixed(numbers: Rows, others: Rows) -> NDArray[np.bool_]:
    """Returns whether rows of the same number differ in another one, shape (n,)."""
    pairs = np.unique(np.stack([numbers, others]), axis=1)
    _, place, counts = np.unique(pairs[0], return_inverse=True, return_counts=True)
    several = np.zeros(int(numbers.max(initial=0)) + 1, bool)
    several[pairs[0]] = counts[place] > 1
    return several[numbers]
