"""Series of inputs that look alike, as frames of one video or photographs of one object do, found in the features.

Inputs of a class that were each drawn by themselves lie about as thick at any distance: within r of an input there are
about k = r ** D others, with one dimension D for all small r. In a series, k grows up to the number of its members and
then stands still until r reaches the next series: D, the slope of log k over log r, is small at first and rises behind
it. How much it rises says whether there are series, and where it does says how near the members of one are.

Distances are taken within classes, along principal axes that are all made equally long. Members of a series differ
less than others in every respect, and without this the few longest axes would hide all but two or three of them. Each
distance is divided by what is usual for its two inputs, so that classes and corners of them that are tight altogether
are not taken for series.

Texts are not examined: people write what is alike in many degrees. By this measure the texts of CLINC150, which have
no groups, and photographs of groceries in series, cannot be told apart; see `benchmarks/lookalikes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from graft_server.training.solvers.threads import side_by_side

RISE = 0.32
"""The rise of log D, less its standard error, from which inputs are in series."""
RISEN = 0.9
"""The share of the rise behind which the next series begins: see `benchmarks/lookalikes.py` for how far accuracy with
such series held out is from accuracy on inputs of new series."""
GAP = 2.0
"""The dimension below which there is a gap between series."""
AXES = (0.3, 0.4, 0.5)
"""Principal axes as shares of the number of inputs: the rise is a mean over these."""
MAX_AXES = 384
MAX_DIMENSIONS = 512
"""Wider features are projected at random first: axes of twice as many take eight times as long."""
MAX_SOUGHT = 1000
"""The most inputs in which a rise is sought; classes are left out whole, so that series stay whole."""
MAX_OF_CLASS = 400
MAX_LINKED = 2000
"""The most inputs that are linked at a time."""
LEAST_OF_CLASS = 4
"""Of a smaller class nothing is known of how thick it lies."""
LEAST_PAIRS = 30
"""The fewest pairs of inputs that a slope is taken of."""
MAX_SHARE = 0.8
"""Neighbours as a share of the class up to which slopes are taken: beyond, classes end."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """Principal axes of what inputs differ by from others of their class."""

    projection: Floats | None
    """shape (d, MAX_DIMENSIONS); None where features are narrow."""
    axes: Floats
    """shape (d, r): longest first, each divided by its length."""

    def of(self, features: NDArray[np.floating], count: int | None = None) -> Floats:
        """Returns coordinates of n inputs on the first axes, shape (n, count)."""
        wide = features.astype(np.float64)
        found: Floats = (wide if self.projection is None else wide @ self.projection) @ self.axes[:, :count]
        return found


def series_among(
    views: Sequence[NDArray[np.floating]], labels: NDArray[np.int32], seed: int
) -> NDArray[np.int64] | None:
    """Returns which inputs are of one series, shape (n,): equal numbers, each within one class; None: there are none.

    Args:
        views: Features of the inputs by several measures, each of shape (n, d), the one to link by first.
        labels: shape (n,): their classes.
        seed: The seed of the sample in which series are sought.
    """
    sample = _sample(labels, np.random.default_rng(seed))
    classes = list(_classes(labels[sample]))
    found, axes = _sought(views, labels, sample, seed)
    if found is None or found.height < RISE:
        return None
    near = _radius(views[0][sample].astype(np.float64), classes, found)
    return _linked(views[0], labels, near, axes[0])


def rise_among(views: Sequence[NDArray[np.floating]], labels: NDArray[np.int32], seed: int) -> float:
    """Returns the rise of log D less its standard error, as `series_among` has it; 0 where it cannot be told."""
    found, _ = _sought(views, labels, _sample(labels, np.random.default_rng(seed)), seed)
    return 0.0 if found is None else found.height


def _sought(
    views: Sequence[NDArray[np.floating]], labels: NDArray[np.int32], sample: NDArray[np.int64], seed: int
) -> tuple[_Rise | None, list[Axes]]:
    """The rise in a sample, and the axes of each view."""
    classes = list(_classes(labels[sample]))
    if not classes:
        return None, []
    axes = [_axes(view[sample], labels[sample], seed) for view in views]
    curves = side_by_side(
        lambda of: _curve(of[0].of(of[1][sample]), classes), list(zip(axes, views, strict=True))
    )
    return _rise(curves, len(sample)), axes


def _sample(labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of at most MAX_SOUGHT inputs, whole classes as far as these are not too large."""
    kept: list[NDArray[np.int64]] = []
    count = 0
    for label in rng.permutation(np.unique(labels)):
        rows = rng.permutation(np.flatnonzero(labels == label))[:MAX_OF_CLASS]
        if len(rows) < LEAST_OF_CLASS or count + len(rows) > MAX_SOUGHT:
            continue
        kept.append(rows)
        count += len(rows)
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def _classes(labels: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """Places of the inputs of each class that is large enough."""
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(rows) >= LEAST_OF_CLASS:
            yield rows


def _axes(features: NDArray[np.floating], labels: NDArray[np.int32], seed: int) -> Axes:
    wide = features.astype(np.float64)
    projection = None
    if wide.shape[1] > MAX_DIMENSIONS:
        rng = np.random.default_rng(seed)
        projection = rng.standard_normal((wide.shape[1], MAX_DIMENSIONS)) / np.sqrt(MAX_DIMENSIONS)
        wide = wide @ projection
    for rows in _classes(labels):
        wide[rows] -= wide[rows].mean(axis=0)
        wide[rows] *= np.sqrt(len(rows) / (len(rows) - 1))  # large and small classes alike
    lengths, directions = np.linalg.eigh(wide.T @ wide / len(wide))
    kept = np.flatnonzero(lengths > 1e-10 * max(lengths[-1], 1e-300))[::-1][:MAX_AXES]
    return Axes(projection, directions[:, kept] / np.sqrt(lengths[kept]))


def _curve(coordinates: Floats, classes: Sequence[NDArray[np.int64]]) -> tuple[Floats, Floats]:
    """Numbers of neighbours k, and the logarithm of the dimension between k and 2 k, by some numbers of axes."""
    found = [_slopes(coordinates[:, : max(8, int(share * len(coordinates)))], classes) for share in AXES]
    least = min(len(slopes) for _, slopes in found)
    return found[0][0][:least], np.mean([slopes[:least] for _, slopes in found], axis=0)


def _slopes(coordinates: Floats, classes: Sequence[NDArray[np.int64]]) -> tuple[Floats, Floats]:
    distances, inputs = _distances(coordinates, classes)
    largest = MAX_SHARE * float(np.median([len(rows) for rows in classes]))
    ks = [2.0 ** (step / 2) for step in range(-6, 40)]
    ks = [k for k in ks if 2 * k <= 1.01 * largest and k * inputs / 2 >= LEAST_PAIRS]
    near = [max(float(distances[int(k * inputs / 2)]), 1e-9) for k in ks]
    far = [max(float(distances[min(int(k * inputs), len(distances) - 1)]), 1e-9) for k in ks]
    # Copies have no distance at all: an infinite dimension behind them would be no series.
    slopes = [np.log(np.log(2) / max(float(np.log(b / a)), 1e-3)) for a, b in zip(near, far, strict=True)]
    return np.array(ks), np.array(slopes)


def _distances(coordinates: Floats, classes: Sequence[NDArray[np.int64]]) -> tuple[Floats, int]:
    """Distances of all pairs within classes, nearest first, and how many inputs these are."""
    pairs = [_relative(coordinates[rows])[np.triu_indices(len(rows), 1)] for rows in classes]
    return np.sort(np.concatenate(pairs)), sum(len(rows) for rows in classes)


def _relative(coordinates: Floats) -> Floats:
    """Distances within one class, shape (n, n), divided by the geometric mean of what is usual for the two inputs."""
    squares = np.einsum("nd,nd->n", coordinates, coordinates)
    apart = squares[:, None] + squares - 2 * coordinates @ coordinates.T
    distances: Floats = np.sqrt(np.maximum((apart + apart.T) / 2, 0))
    n = len(distances)
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    usual = np.maximum(np.median(others, axis=1), 1e-9)
    distances /= np.sqrt(usual[:, None] * usual)
    np.fill_diagonal(distances, 0)
    return distances


@dataclass(frozen=True, slots=True)
class _Rise:
    """Where the dimension rises most."""

    height: float
    """By how much its logarithm rises, less the standard error."""
    lowest: float
    """How many neighbours there are before it rises."""
    neighbours: float
    """How many there are where it has risen."""


def _rise(curves: Sequence[tuple[Floats, Floats]], inputs: int) -> _Rise | None:
    """The largest rise of the mean curve; None where it is too short to have one."""
    least = min(len(ks) for ks, _ in curves)
    ks, slopes = curves[0][0][:least], np.mean([curve[:least] for _, curve in curves], axis=0)
    best: _Rise | None = None
    for low in range(least):
        for high in range(low + 2, least):
            error = float(np.sqrt(4 / (ks[low] * inputs) + 4 / (ks[high] * inputs)))
            rise = float(slopes[high] - slopes[low])
            if best is None or rise - error > best.height:
                risen = low + int(np.argmax(slopes[low : high + 1] >= slopes[low] + RISEN * rise))
                best = _Rise(rise - error, float(ks[low]), float(ks[risen]))
    return best


def _radius(features: Floats, classes: Sequence[NDArray[np.int64]], rise: _Rise) -> float:
    """The distance within which members of a series are: in the gap before the next series, where there is one."""
    distances, inputs = _distances(features, classes)

    def within(neighbours: NDArray[np.float64] | float) -> Floats:
        places = np.asarray(neighbours) * inputs / 2
        return np.maximum(distances[np.minimum(places.astype(np.int64), len(distances) - 1)], 1e-9)

    ks = np.geomspace(rise.lowest, 2 * rise.neighbours, 33)
    before, behind = within(ks / 2**0.25), within(ks * 2**0.25)
    slopes = np.log(2**0.5) / np.maximum(np.log(behind / before), 1e-3)
    widest = int(slopes.argmin())
    if slopes[widest] < GAP:
        return float(np.sqrt(before[widest] * behind[widest]))
    return float(within(rise.neighbours))


def _linked(
    features: NDArray[np.floating], labels: NDArray[np.int32], near: float, axes: Axes
) -> NDArray[np.int64]:
    """Numbers of the clusters of average linkage whose distances are no more than `near` on average."""
    numbers = np.arange(len(labels), dtype=np.int64)
    for rows in _classes(labels):
        parts = [rows]
        if len(rows) > MAX_LINKED:  # it is cut across its longest axis, where few series are torn
            along = rows[np.argsort(axes.of(features[rows], 1)[:, 0], kind="stable")]
            parts = np.array_split(along, -(-len(rows) // MAX_LINKED))
        for part in parts:
            apart = squareform(_relative(features[part].astype(np.float64)), checks=False)
            clusters = fcluster(linkage(apart, "average"), near, "distance") - 1
            numbers[part] = part[np.unique(clusters, return_index=True)[1]][clusters]
    return numbers
