"""How a version's figure grows with examples, and what more of them would bring.

The figure is accuracy, micro-F1 or the share of variance explained, by the task: each is 1 less the sum of what the
examples lose over the sum of what they could, so that all three are resampled alike. What is lost falls about as a
power of the number of examples (Hestness et al. 2017), and more slowly the farther one goes: some errors no number
of examples takes away. The power is fitted to heads trained on parts of the examples, its uncertainty comes from
fitting it to resampled predictions, and how it slows is a range that was measured on other data.
`benchmarks/heads/forecasts.py` counts how often the intervals hold what was forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import ClassAdvice, CurvePoint, LearningCurve
from graft_server.training.search.candidates import NEVER, Problem
from graft_server.training.search.evidence import widening
from graft_server.training.solvers import logistic
from graft_server.training.solvers.threads import side_by_side

FRACTIONS = (0.25, 0.5, 1.0)
"""Of a fold's training examples."""
LEAST_EXAMPLES = 40
"""With fewer, parts of them tell nothing."""
CURVE_FOLDS = 2
"""Folds that the parts are measured on."""
MAX_EXAMPLES = 4000
"""The largest part: a curve is not worth more time than the choice of the head."""
STRENGTH = 30.0
"""Of the logistic regression that the parts are measured with."""
RESAMPLES = 200
INTERVAL = (10.0, 90.0)
"""Percentiles of the resampled forecasts: 80% of such intervals are meant to hold the truth."""
SLOWING = (0.0, 0.4)
"""Each time that the distance, the logarithm of how many times the examples, grows by 1, the power's divisor grows
by something in this range. Without it, accuracy at 4 times the examples was forecast 1.5 to 2 points too high on
Banking77 at 8 and CLINC150 at 4 per class; with it, 0.2 too low and right."""
FORECASTS = (1.5, 2.0, 4.0)
"""How many times the examples accuracy is forecast for."""
MAX_ADVICE = 5
LEAST_SHARE = 1e-9
"""Of errors: their logarithm is taken."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """What each of n measured examples loses, and what it could lose: their sums make a share of errors."""

    lost: Floats
    """shape (..., n): 1 where a label is wrong; decisions about labels that are wrong; a value's squared error."""
    at_stake: Floats
    """The same shape: 1; labels carried and selected; the squared distance of the value from the mean."""
    smoothing: float = 0.5
    """Mean examples of either kind that are added, so that no share of counts is 0."""

    def share(self) -> Floats:
        """The share of errors along the last axis."""
        added = self.smoothing * self.at_stake.mean(axis=-1)
        share: Floats = (self.lost.sum(axis=-1) + added) / np.maximum(
            self.at_stake.sum(axis=-1) + 2 * added, 1e-300
        )
        return np.maximum(share, LEAST_SHARE)

    def least(self) -> float:
        """The share where nothing is lost."""
        return max(self.smoothing / (int(self.lost.shape[-1]) + 2 * self.smoothing), LEAST_SHARE)

    def of(self, rows: NDArray[np.int64]) -> Lost:
        """That of some examples."""
        return Lost(self.lost[..., rows], self.at_stake[..., rows], self.smoothing)


def wrong_answers(right: NDArray[np.bool_]) -> Lost:
    """Of answers with one label each."""
    return Lost((~right).astype(np.float64), np.ones(right.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """How errors fall with more examples, by the data and by each resampling of it."""

    level: float
    """The share of errors out of fold."""
    power: float
    levels: Floats
    """shape (RESAMPLES,)."""
    powers: Floats
    slowings: Floats
    folds: int
    """Those of the level: its heads were trained on all examples but one fold's."""

    def forecast(self, examples: int, times: float) -> CurvePoint:
        """The figure at `times` the examples."""
        more = times * self.folds / (self.folds - 1)
        low, high = np.percentile(1 - self.levels * _left(more, self.powers, self.slowings), INTERVAL)
        figure = 1 - self.level * float(_left(more, self.power, sum(SLOWING) / 2))
        return CurvePoint(round(examples * times), figure, float(low), float(high))


def _left(times: float, power: float | Floats, slowing: float | Floats) -> float | Floats:
    """The share of errors that are left at `times` the examples."""
    distance = np.log(times)
    left: float | Floats = np.exp(-power * distance / (1 + slowing * distance))
    return left


def curve_of(
    sizes: Floats, parts: Lost, chosen: Lost, *, examples: int, folds: int, seed: int
) -> tuple[LearningCurve, Law]:
    """The curve of parts of the examples and forecasts, without advice, and the law that they follow.

    Args:
        sizes: shape (p,): how many examples the parts have.
        parts: shape (p, m): what heads trained on them lose on examples held out.
        chosen: shape (n,): what heads like the chosen one lose on the examples, trained without their fold.
        examples: How many the version was trained on.
        folds: Those of `chosen`.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    held_out, n = int(parts.lost.shape[-1]), len(chosen.lost)
    errors = np.array([parts.of(rng.integers(0, held_out, held_out)).share() for _ in range(RESAMPLES)])
    level = float(chosen.share())
    levels = np.array([chosen.of(rng.integers(0, n, n)).share() for _ in range(RESAMPLES)])
    law = Law(
        level=level,
        power=_power(sizes, parts.share()),
        levels=np.clip(
            level + (levels - level) * widening(folds), chosen.least(), max(1.0, float(levels.max()))
        ),
        powers=np.array([_power(sizes, one) for one in errors]),
        slowings=rng.uniform(*SLOWING, RESAMPLES),
        folds=folds,
    )
    low, high = np.percentile(1 - errors, INTERVAL, axis=0)
    columns = zip(sizes, 1 - parts.share(), low, high, strict=True)
    points = tuple(CurvePoint(round(size), *(float(value) for value in rest)) for size, *rest in columns)
    return LearningCurve(points, tuple(law.forecast(examples, times) for times in FORECASTS), ()), law


def learning_curve(
    problem: Problem,
    right: NDArray[np.bool_],
    names: tuple[str, ...],
    measured: NDArray[np.bool_] | None = None,
) -> LearningCurve:
    """The curve of a single-label head, and the classes that more examples would help most.

    Args:
        problem: The examples, the classes' names perhaps among them.
        right: shape (n,): whether the chosen head, trained without an example's fold, is right about it.
        names: Of the classes.
        measured: shape (n,): the examples whose classes the folds allow to measure; None: all.
    """
    n = len(right)
    every = np.ones(n, bool) if measured is None else measured
    kept = np.append(every, np.zeros(len(problem.labels) - n, bool))
    sizes, found = parts_of(
        problem.fold_of,
        problem.labels,
        partial(_right, problem),
        measured=kept,
        folds=problem.folds,
        seed=problem.seed,
    )
    parts = wrong_answers(np.concatenate(found, axis=1))
    right = right[every]
    curve, law = curve_of(
        sizes, parts, wrong_answers(right), examples=n, folds=problem.folds, seed=problem.seed
    )
    counts = np.bincount(problem.labels[:n][every], minlength=len(names))
    wrong = np.bincount(problem.labels[:n][every][~right], minlength=len(names))
    return replace(curve, advice=advice_of(counts, wrong, names, law, problem.seed))


Measuring = Callable[[NDArray[np.int64], NDArray[np.int64]], Any]
"""What a head trained on the second rows says about the first."""


def parts_of(
    fold_of: NDArray[np.int32],
    kinds: NDArray[np.int32],
    measure: Measuring,
    *,
    measured: NDArray[np.bool_],
    folds: int,
    seed: int,
) -> tuple[Floats, list[Any]]:
    """Sizes of the parts, shape (p,), and for each of CURVE_FOLDS folds what was measured, parts first.

    Args:
        fold_of: shape (n,): of each row, or NEVER.
        kinds: shape (n,): every part has about each kind's share.
        measure: Trains and measures.
        measured: shape (n,): the rows that may be measured on.
        folds: How many there are.
        seed: Of the parts' rows.
    """
    sizes = np.zeros(len(FRACTIONS))
    found = []
    used = min(CURVE_FOLDS, folds)
    for fold in range(used):
        held_out = np.flatnonzero((fold_of == fold) & measured)
        order = _spread(kinds, np.flatnonzero((fold_of != fold) & (fold_of != NEVER)), seed)
        most = min(len(order), MAX_EXAMPLES)
        parts = [order[: max(2, round(most * fraction))] for fraction in FRACTIONS]
        sizes += [len(rows) / used for rows in parts]
        found.append(np.stack(side_by_side(partial(measure, held_out), parts)))
    return sizes, found


def _spread(kinds: NDArray[np.int32], rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The rows in an order of which every beginning has about the kinds' shares."""
    rows = np.random.default_rng(seed).permutation(rows)
    rows = rows[np.argsort(kinds[rows], kind="stable")]
    _, starts, counts = np.unique(kinds[rows], return_index=True, return_counts=True)
    rank = (np.arange(len(rows)) - np.repeat(starts, counts) + 0.5) / np.repeat(counts, counts)
    return rows[np.argsort(rank, kind="stable")]


def _right(problem: Problem, held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a head of some rows is right about held-out ones.

    The classes' names are left out: they help few examples most, so that the curve would be too flat a one. From 8
    examples a class of Banking77, 84.8% were forecast with them at 16, 88.7% came true.
    """
    axes = logistic.principal_axes(problem.features[rows].astype(np.float32), overwrite=True)
    weights = problem.weights[rows].astype(np.float32)[None]
    solution = logistic.fit(
        axes,
        problem.labels[rows],
        weights,
        problem.classes,
        strength=STRENGTH / problem.scale,
        start=None,
        tolerance=logistic.ROUGH,
        soft=None if problem.soft is None else problem.soft[rows],
    )
    held = problem.features[held_out].astype(np.float32)
    logits = (held - axes.centre) @ axes.rotation @ solution.weight[0] + solution.bias[0]
    right: NDArray[np.bool_] = logits.argmax(axis=1) == problem.labels[held_out]
    return right


def _power(sizes: Floats, errors: Floats) -> float:
    """Minus the slope of log error over log size: never below 0, and 1 at most, beyond what data ever gave."""
    x, y = np.log(sizes), np.log(errors)
    x, y = x - x.mean(), y - y.mean()
    spread = float(x @ x)
    return float(np.clip(-(x @ y) / spread, 0.0, 1.0)) if spread > 0 else 0.0


def advice_of(
    counts: NDArray[np.int64], wrong: NDArray[np.int64], names: tuple[str, ...], law: Law, seed: int
) -> tuple[ClassAdvice, ...]:
    """What doubling a class's examples would bring: the part of its errors that the power takes away.

    It is the class's own recall that gains. Accuracy over all classes does not: of the inputs that the class wins,
    as many are other classes'. On Banking77 at 8 per class, recall gained 10.0 points where 10.6 were forecast, and
    accuracy lost 0.1.

    Args:
        counts: shape (k,): measured examples of each class.
        wrong: shape (k,): those of them that are not answered with it.
        names: Of the classes.
        law: How errors fall.
        seed: Of the uncertainty.
    """
    share, certainty = _prior(counts, wrong)
    mean = (wrong + share * certainty) / np.maximum(counts + certainty, 1e-9)
    gained = 1 - float(_left(2.0, law.power, sum(SLOWING) / 2))
    gains = 1 - _left(2.0, law.powers, law.slowings)
    rng = np.random.default_rng(seed)
    advice = []
    for label in np.argsort(-(mean * counts), kind="stable")[:MAX_ADVICE]:
        if counts[label]:
            alpha, beta = (
                wrong[label] + share * certainty,
                counts[label] - wrong[label] + (1 - share) * certainty,
            )
            low, high = np.percentile(rng.beta(max(alpha, 0.5), max(beta, 0.5), RESAMPLES) * gains, INTERVAL)
            gain = float(mean[label] * gained)
            advice.append(
                ClassAdvice(
                    names[label], int(counts[label]), gain, min(float(low), gain), max(float(high), gain)
                )
            )
    return tuple(advice)


def _prior(counts: NDArray[np.int64], wrong: NDArray[np.int64]) -> tuple[float, float]:
    """What all classes say about one: the share of errors, and how many examples of its own that is worth.

    The worst classes of few examples each are mostly unlucky ones: with 8 each, those at a recall of 41% out of
    fold were at 79% on Banking77's test set. How classes differ beyond luck is told by moments.
    """
    known = counts > 0
    counts, rates = counts[known], wrong[known] / counts[known]
    share = float(wrong.sum() / counts.sum())
    luck = float(np.mean(share * (1 - share) / counts))
    beyond = max(float(np.var(rates)) - luck, 1e-3 * share * (1 - share))
    return share, max(share * (1 - share) / beyond - 1, 0.0) if beyond > 0 else 0.0
