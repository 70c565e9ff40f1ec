"""Self-training: what examples without a target add to a head that was chosen on those with one.

The chosen head says of each what it may be (a distribution: a soft pseudo-label), a linear head learns from the
examples and, at less weight, from these, and the answers of both are averaged. Nothing else changes: what is
unfamiliar is still told by the chosen head.

Pseudo-labels repeat the chosen head's mistakes unless something else speaks too. Two things do, each of which helps on
some data and harms on other:

- `even`: no class is guessed much more often than others (after Zhou et al. 2023, TK-KNN, where the pseudo-labels of
  all classes are as many). The shares are those that the head's answers suggest, by expectation maximisation
  (Saerens et al. 2002), half way to equal ones. It harms where one class is most of what comes in, and is not tried
  where the head's answers say so.
- `near`: neighbours are given the same label (Ziko et al. 2020, LaplacianShot). It harms where the label is not what
  inputs are about.

So each and neither is tried, and measured as every other candidate: what is held out is answered by heads that saw
neither it nor a pseudo-label by a head that saw it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graft_server.heads.maps import LEAST_PROBABILITY, LinearMap, Member, blended, softmax
from graft_server.training.search.candidates import Measure, Trial
from graft_server.training.solvers import logistic
from graft_server.training.solvers.threads import side_by_side

KIND = "self-trained"
WEIGHT = 0.3
"""What an unlabelled example counts against a labelled one."""
STRONGEST = 30.0
"""The largest strength of a student: beyond, it takes several times as long to fit, to guesses."""
MOST_AXES, LEAST_AXES, CELLS = 256, 96, 10_000
"""A student sees the longest principal axes, as many as make so many weights. On emotions and kinds of orders 128 axes
lose what 256 gain; on all of Banking77 they gain as much, in half of the time."""
EVEN_ROUNDS, EVEN_STEP = 10, 0.5
"""How often the shares of the classes are moved towards those wanted, and how far each time, as an exponent."""
SHARES_ROUNDS = 20
LEAST_EVENNESS = 0.9
"""How even the shares of the classes must be in what the head says, for `even` to be tried: the exponential of their
entropy over the number of classes. At 8 per class it is 0.77 to 0.80 on SMS spam (13% spam), where `even` costs 1 to 3
points, 0.95 on Banking77, and above 0.96 on eight other sets."""
SHARPNESS = 2.0
"""The power that pseudo-labels are raised to that no neighbours have sharpened."""
NEIGHBOURS = 10
PULL, PULL_ROUNDS = 3.0, 10
"""How much the mean label of the neighbours counts against the head's own logarithms, and how often it is taken."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make pseudo-labels of what a head says."""

    even: bool
    """Whether no class is to be guessed much more often than others."""
    near: bool
    """Whether neighbours are to be given the same label."""


WAYS = (Way(even=False, near=False), Way(even=True, near=False), Way(even=False, near=True))


class Students:
    """The linear heads that learn from what one head, the teacher, says of unlabelled inputs."""

    def __init__(
        self, teacher: Trial, unlabelled: NDArray[np.float16], measure: Measure, strength: float
    ) -> None:
        """Asks the teacher.

        Args:
            teacher: The head: its members are fitted already.
            unlabelled: shape (m, d), m > NEIGHBOURS, in the teacher's view.
            measure: What calibration may use.
            strength: C of the students.
        """
        problem = teacher.problem
        others = unlabelled.astype(np.float32)
        assert teacher.of_others is not None  # noqa: S101 - every kind that is searched has it
        self._without = teacher.of_others(others)
        members = teacher.fit()
        self._by_all = blended(
            [it.map.logits(others) for it in members],
            [it.temperature for it in members],
            [it.share for it in members],
            teacher.temperature,
        )
        self._teacher, self._measure = teacher, measure
        self._scaled = min(strength, STRONGEST) / problem.scale
        self._nearness = nearness(others)
        axes = logistic.principal_axes(np.concatenate([problem.wide, others]), overwrite=True)
        self._axes = _longest(axes, axes_for(problem.classes))
        self._targets = np.eye(problem.classes, dtype=np.float32)[problem.labels]
        if problem.soft is not None:
            self._targets = problem.soft
        self._weight = WEIGHT * float(np.median(problem.weights))
        self._start: list[logistic.Solution | None] = [None] * problem.folds

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways that are worth a try."""
        return WAYS if evenness(self._by_all) >= LEAST_EVENNESS else tuple(it for it in WAYS if not it.even)

    def trial(self, way: Way) -> Trial:
        """Tries the teacher averaged with a student."""
        return joined(self._teacher, self.alone(way), self._measure)

    def alone(self, way: Way) -> Trial:
        """Tries a student."""
        problem = self._teacher.problem
        logits = np.zeros((problem.examples, problem.classes), np.float32)

        def hold_out(fold: int) -> logistic.Solution:
            kept = problem.fold_of != fold
            solution = self._solved(kept, self._without[fold], way, self._start[fold])
            rows = np.flatnonzero(~kept)
            logits[rows] = self._axes.coordinates[rows] @ solution.weight[0] + solution.bias[0]
            return solution

        solutions = side_by_side(hold_out, range(problem.folds))
        self._start = list(solutions)
        near = logistic.mean_of(logistic.stacked(solutions))
        temperature = self._measure.temperature(logits)

        def fit() -> tuple[Member, ...]:
            solution = self._solved(np.ones(len(problem.labels), bool), self._by_all, way, near)
            weight = self._axes.rotation @ solution.weight[0]
            bias = solution.bias[0] - self._axes.centre @ weight
            return (Member(LinearMap(weight, bias), temperature, 1.0),)

        settings = {
            "unlabelled": float(len(self._by_all)),
            "unlabelled_weight": WEIGHT,
            "even": float(way.even),
            "near": float(way.near),
        }
        probabilities = softmax(logits / np.float32(temperature))
        return Trial(KIND, problem, settings, logits, probabilities, temperature, fit)

    def _solved(
        self, kept: NDArray[np.bool_], said: Array, way: Way, start: logistic.Solution | None
    ) -> logistic.Solution:
        """The student of the kept examples, and of what a teacher of these says."""
        problem = self._teacher.problem
        known = np.bincount(problem.labels[kept], minlength=problem.classes) > 0
        soft = np.concatenate([self._targets, pseudo_labels(said, known, self._nearness, way)])
        weights = np.concatenate([np.where(kept, problem.weights, 0.0), np.full(len(said), self._weight)])
        return logistic.fit(
            self._axes,
            np.zeros(len(soft), np.int32),  # not looked at: the targets are distributions
            weights.astype(np.float32)[None],
            problem.classes,
            strength=self._scaled,
            start=start,
            tolerance=logistic.ROUGH,
            soft=soft,
            tick=problem.tick,
        )


def joined(teacher: Trial, student: Trial, measure: Measure) -> Trial:
    """Tries the average of a head of any number of members with a student's answers, calibrated again.

    The teacher's members come first, so that its logits go on telling what is unfamiliar.
    """
    before = teacher.probabilities
    members = teacher.fit()
    if len(members) > 1:  # what its members say on average, before its own temperature
        before = softmax(np.log(np.maximum(before, np.float32(1e-30))) * np.float32(teacher.temperature))
    mean: Array = (before + student.probabilities) / np.float32(2)
    np.log(np.maximum(mean, np.float32(LEAST_PROBABILITY)), out=mean)
    temperature = measure.temperature(mean)

    def fit() -> tuple[Member, ...]:
        return tuple(replace(it, share=it.share / 2) for it in (*members, *student.fit()))

    return Trial(
        f"{teacher.kind}+{student.kind}",
        teacher.problem,
        {**teacher.settings, **student.settings},
        teacher.logits,
        softmax(mean / np.float32(temperature)),
        temperature,
        fit,
    )


def pseudo_labels(said: Array, known: NDArray[np.bool_], near: csr_array, way: Way) -> Array:
    """Returns the pseudo-labels, shape (m, k), rows sum to 1.

    Args:
        said: shape (m, k): probabilities.
        known: shape (k,): whether the teacher knows the class; others stay as unlikely as they are.
        near: shape (m, m): see `nearness`.
        way: How they are made.
    """
    labels = np.maximum(said, np.float32(LEAST_PROBABILITY))
    if way.even:
        labels = _even(labels, known)
    if not way.near:
        return _rows(np.power(labels, np.float32(SHARPNESS)))
    given = np.log(labels)
    for _ in range(PULL_ROUNDS):
        labels = softmax(given + np.float32(PULL) * (near @ labels))
    return labels


def evenness(said: Array) -> float:
    """Returns how evenly probabilities of shape (m, k) are spread over the classes: 1 / k, all on one, to 1, evenly."""
    shares = said.mean(axis=0, dtype=np.float64)
    return float(np.exp(-(shares * np.log(np.maximum(shares, 1e-30))).sum()) / len(shares))


def _even(labels: Array, known: NDArray[np.bool_]) -> Array:
    shares = known / known.sum()
    wanted = shares
    for _ in range(SHARES_ROUNDS):
        guessed = _rows(labels * wanted.astype(np.float32)).mean(axis=0)
        wanted = (guessed * known + shares) / 2
    for _ in range(EVEN_ROUNDS):
        factor = np.where(known, wanted / np.maximum(labels.mean(axis=0), 1e-9), 1.0) ** EVEN_STEP
        labels = _rows(labels * factor.astype(np.float32))
    return labels


def _rows(labels: Array) -> Array:
    rows: Array = labels / np.maximum(labels.sum(axis=1, keepdims=True), np.float32(1e-30))
    return rows


def nearness(features: Array) -> csr_array:
    """The share of each row in the neighbourhood of each, shape (m, m), rows sum to 1.

    Neighbours are the NEIGHBOURS most similar rows, and those to which a row is one; they count by the fourth power of
    the cosine.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    similar = unit @ unit.T
    np.einsum("ii->i", similar)[:] = -1
    nearest = np.argpartition(-similar, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    rows = np.arange(len(unit))[:, None]
    weights = np.maximum(similar[rows, nearest], 0).ravel() ** 4
    places = np.repeat(rows.ravel(), NEIGHBOURS), nearest.ravel()
    near = csr_array((weights, places), shape=similar.shape)
    near = near.maximum(near.T).tocsr()
    total = np.maximum(near.sum(axis=1), np.float32(1e-9))
    near.data /= np.repeat(total, np.diff(near.indptr))
    return near


def axes_for(classes: int) -> int:
    """Returns how many axes a student of some classes sees at most."""
    return min(MOST_AXES, max(LEAST_AXES, CELLS // classes))


def _longest(axes: logistic.Axes, most: int) -> logistic.Axes:
    kept = np.argsort(-axes.spread, kind="stable")[:most]
    coordinates = np.ascontiguousarray(axes.coordinates[:, kept])
    return logistic.Axes(coordinates, axes.rotation[:, kept], axes.centre, axes.spread[kept])
