"""How a version's figure grows with examples, and what more examples would bring.

The figure is accuracy, micro-F1 or the share of variance explained, by the task: each is 1 less the sum of the
examples' losses over the sum of their possible losses, so that all three are resampled alike. The loss falls about
as a power of the number of examples (Hestness et al. 2017), and more slowly the farther one goes: some errors
remain with any number of examples. The power is fitted to heads trained on parts of the examples, its uncertainty
comes from fitting it to resampled predictions, and its slowing is a range that was measured on other data.
`benchmarks/heads/forecasts.py` counts how often the intervals hold the true figure.
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
"""The parts, as shares of a fold's training examples."""
LEAST_EXAMPLES = 40
"""With fewer examples, parts of them prove nothing."""
CURVE_FOLDS = 2
"""The number of folds on which the parts are measured."""
MAX_EXAMPLES = 4000
"""The largest part in examples: a curve is not worth more time than the choice of the head."""
STRENGTH = 30.0
"""The strength of the logistic regression with which the parts are measured."""
RESAMPLES = 200
INTERVAL = (10.0, 90.0)
"""Percentiles of the resampled forecasts: 80% of such intervals should hold the true figure."""
SLOWING = (0.0, 0.4)
"""Each time that the distance, the logarithm of how many times the examples, grows by 1, the power's divisor grows
by something in this range. Without it, accuracy at 4 times the examples was forecast 1.5 to 2 points too high on
Banking77 at 8 and CLINC150 at 4 per class; with it, 0.2 too low and right."""
FORECASTS = (1.5, 2.0, 4.0)
"""The multiples of the examples for which accuracy is forecast."""
AT_RANDOM = 0.5
"""The variance over the mean of the classes' numbers of examples: 1 or more in random draws, 0 if all are equal."""
USUAL_POWER = (0.5, 0.2)
"""The mean and deviation of the power between data sets, which more examples overrule, where few errors are made. The
mean falls with the square of what is right, since a large share of errors remains with any number of examples: by a
mean of 0.5, accuracy on GoEmotions, where half of the answers are wrong, was forecast 7 points too high."""
MAX_ADVICE = 5
LEAST_SHARE = 1e-9
"""The least share of errors: its logarithm is taken."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """The loss of each of n measured examples, and its possible loss: their sums make a share of errors."""

    lost: Floats
    """shape (..., n): 1 for a wrong label; the number of wrong decisions about labels; a value's squared error."""
    at_stake: Floats
    """The same shape: 1; labels carried and selected; the squared distance of the value from the mean."""
    smoothing: float = 0.5
    """Mean examples of either kind, added so that no share of counts is 0."""

    def share(self) -> Floats:
        """The share of errors along the last axis."""
        added = self.smoothing * self.at_stake.mean(axis=-1)
        share: Floats = (self.lost.sum(axis=-1) + added) / np.maximum(
            self.at_stake.sum(axis=-1) + 2 * added, 1e-300
        )
        return np.maximum(share, LEAST_SHARE)

    def least(self) -> float:
        """The share if nothing is lost."""
        return max(self.smoothing / (int(self.lost.shape[-1]) + 2 * self.smoothing), LEAST_SHARE)

    def of(self, rows: NDArray[np.int64]) -> Lost:
        """Returns the losses of some examples."""
        return Lost(self.lost[..., rows], self.at_stake[..., rows], self.smoothing)


def wrong_answers(right: NDArray[np.bool_]) -> Lost:
    """Returns the losses of answers with one label each."""
    return Lost((~right).astype(np.float64), np.ones(right.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """The fall of errors with more examples, for the data and for each resampling of it."""

    level: float
    """The out-of-fold share of errors."""
    power: float
    levels: Floats
    """shape (RESAMPLES,)."""
    powers: Floats
    slowings: Floats
    more: float
    """How many times the examples of the heads that made the level all examples are."""

    def of_all(self) -> tuple[float, float]:
        """Returns the share of the folds' heads' errors that the head of all examples makes, and its deviation."""
        left = _left(self.more, self.power, sum(SLOWING) / 2)
        return float(left), float(np.std(_left(self.more, self.powers, self.slowings)))

    def gain(self, times: float) -> tuple[float, float, float]:
        """Returns the gain of the figure from all examples to `times` as many, and an 80% interval of it."""
        now, then = self.more, times * self.more
        gained = self.levels * (
            _left(now, self.powers, self.slowings) - _left(then, self.powers, self.slowings)
        )
        low, high = np.percentile(gained, INTERVAL)
        mean = sum(SLOWING) / 2
        return (
            self.level * float(_left(now, self.power, mean) - _left(then, self.power, mean)),
            float(low),
            float(high),
        )

    def forecast(self, examples: int, times: float) -> CurvePoint:
        """Returns the figure at `times` the examples."""
        more = times * self.more
        low, high = np.percentile(1 - self.levels * _left(more, self.powers, self.slowings), INTERVAL)
        figure = 1 - self.level * float(_left(more, self.power, sum(SLOWING) / 2))
        return CurvePoint(round(examples * times), figure, float(low), float(high))


def _left(times: float, power: float | Floats, slowing: float | Floats) -> float | Floats:
    """Returns the share of errors that remain at `times` the examples."""
    distance = np.log(times)
    left: float | Floats = np.exp(-power * distance / (1 + slowing * distance))
    return left


def curve_of(
    sizes: Floats,
    parts: Lost,
    chosen: Lost,
    *,
    examples: int,
    folds: int,
    seed: int,
    more: float | None = None,
) -> tuple[LearningCurve, Law]:
    """Returns the curve of parts of the examples and forecasts, without advice, and the law that they follow.

    Args:
        sizes: shape (p,): the number of examples in each part.
        parts: shape (p, m): the losses of heads trained on the parts, on held-out examples.
        chosen: shape (n,): the losses of heads like the chosen one on the examples, trained without their fold.
        examples: The number of examples that the version was trained on.
        folds: The number of folds of `chosen`.
        seed: The seed of the resampling.
        more: How many times the examples of the heads of `chosen` all examples are; None: as the folds say.
    """
    rng = np.random.default_rng(seed)
    held_out = int(parts.lost.shape[-1])
    errors = np.array([parts.of(rng.integers(0, held_out, held_out)).share() for _ in range(RESAMPLES)])
    level = float(chosen.share())
    levels = _levels(chosen, level, folds, rng)
    power, spread = _power(sizes, parts, level, np.array([_slope(sizes, one) for one in errors]))
    law = Law(
        level=level,
        power=float(np.clip(power, 0.0, 1.0)),
        levels=levels,
        powers=np.clip(rng.normal(power, spread, RESAMPLES), 0.0, 1.0),
        slowings=rng.uniform(*SLOWING, RESAMPLES),
        more=folds / (folds - 1) if more is None else more,
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
) -> tuple[LearningCurve, Law]:
    """Returns the curve of a single-label head with the classes that more examples would help most, and its law.

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
    drawn = np.bincount(problem.labels[:n])
    unseen = np.zeros(round(unseen_share(drawn) * n), bool)
    curve, law = curve_of(
        sizes,
        parts,
        wrong_answers(np.append(right, unseen)),
        examples=n,
        folds=problem.folds,
        seed=problem.seed,
        more=more_than_folds(drawn, problem.folds),
    )
    counts = np.bincount(problem.labels[:n][every], minlength=len(names))
    wrong = np.bincount(problem.labels[:n][every][~right], minlength=len(names))
    return replace(curve, advice=advice_of(counts, wrong, names, law, problem.seed)), law


def at_random(counts: NDArray[np.int64]) -> bool:
    """Whether classes' numbers of examples vary as those of a random draw do, rather than being chosen.

    Args:
        counts: shape (k,): examples of each class; those without any do not count.
    """
    present = counts[counts > 0]
    return len(present) > 1 and bool(present.var(ddof=1) >= AT_RANDOM * present.mean())


def unseen_share(counts: NDArray[np.int64]) -> float:
    """Returns the share of fresh examples of classes without an example: of single examples among those drawn.

    Good 1953: leaving such an example out leaves its class without any. Where numbers of examples were chosen, 0.
    """
    return float((counts == 1).sum() / counts.sum()) if at_random(counts) else 0.0


def more_than_folds(counts: NDArray[np.int64], folds: int) -> float:
    """Returns how many times the examples of its class that a fold's head saw the published head has.

    A fold's head has seen all of an example's class but one fold's part. In a random draw, frequent classes are so by
    chance too: a fresh example finds one example of its class fewer than a drawn one, which counts itself. Without
    this, accuracy from 600 examples of 150 classes of CLINC150 was stated 3 points too high.
    """
    several = counts[counts > 1]
    itself = float(several @ np.log(1 - 1 / several)) / float(several.sum()) if at_random(counts) else 0.0
    return max(float(np.exp(itself)) * folds / (folds - 1), 1.0)


Measuring = Callable[[NDArray[np.int64], NDArray[np.int64]], Any]
"""Measures a head trained on the second rows on the first."""


def parts_of(
    fold_of: NDArray[np.int32],
    kinds: NDArray[np.int32],
    measure: Measuring,
    *,
    measured: NDArray[np.bool_],
    folds: int,
    seed: int,
) -> tuple[Floats, list[Any]]:
    """Returns the sizes of the parts, shape (p,), and the measurements for each of CURVE_FOLDS folds, parts first.

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
    """Returns the rows in an order in which every beginning has about the kinds' shares."""
    rows = np.random.default_rng(seed).permutation(rows)
    rows = rows[np.argsort(kinds[rows], kind="stable")]
    _, starts, counts = np.unique(kinds[rows], return_index=True, return_counts=True)
    rank = (np.arange(len(rows)) - np.repeat(starts, counts) + 0.5) / np.repeat(counts, counts)
    return rows[np.argsort(rank, kind="stable")]


def _right(problem: Problem, held_out: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns whether a head trained on some rows is right about held-out rows.

    The classes' names are left out: they help most with few examples, so the curve would be too flat. From 8
    examples a class of Banking77, the forecast with them for 16 was 84.8%, and the measured accuracy 88.7%.
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
        tick=problem.tick,
    )
    held = problem.features[held_out].astype(np.float32)
    logits = (held - axes.centre) @ axes.rotation @ solution.weight[0] + solution.bias[0]
    right: NDArray[np.bool_] = logits.argmax(axis=1) == problem.labels[held_out]
    return right


def _levels(chosen: Lost, level: float, folds: int, rng: np.random.Generator) -> Floats:
    """Returns shares of errors that are as likely as the measured one, shape (RESAMPLES,).

    Of answers that are right or wrong these are a beta distribution's, which has a width where no answer is wrong too.
    """
    n, wider = len(chosen.lost), widening(folds)
    if chosen.smoothing > 0 and (chosen.at_stake == 1).all():
        number = n / wider**2
        shares = rng.beta(level * number + 0.5, (1 - level) * number + 0.5, RESAMPLES)
        return np.maximum(shares, LEAST_SHARE)
    resampled = np.array([chosen.of(rng.integers(0, n, n)).share() for _ in range(RESAMPLES)])
    most = max(1.0, float(resampled.max()))
    return np.clip(level + (resampled - level) * wider, chosen.least(), most)


def _power(sizes: Floats, parts: Lost, level: float, slopes: Floats) -> tuple[float, float]:
    """Returns the power and its standard error: what the parts show, as far as it can be trusted, and the usual power.

    Args:
        sizes: shape (p,): the number of examples in each part.
        parts: shape (p, m): the losses.
        level: The share of errors of the chosen head.
        slopes: shape (RESAMPLES,): the powers of resampled parts.
    """
    usual, deviation = USUAL_POWER[0] * max(1 - level, 0.0) ** 2, USUAL_POWER[1]
    variance = float(slopes.var())
    if parts.smoothing > 0:
        # A few errors that no part changes would seem to prove a power of 0.
        x = np.log(sizes) - np.log(sizes).mean()
        errors = parts.lost.sum(axis=-1) / max(float(parts.at_stake.mean()), 1e-300) + parts.smoothing
        variance = max(variance, float(x**2 @ (1 / errors)) / max(float(x @ x) ** 2, 1e-300))
    trust = deviation**2 / (deviation**2 + variance)
    power = trust * _slope(sizes, parts.share()) + (1 - trust) * usual
    return power, float(np.sqrt(trust * variance))


def _slope(sizes: Floats, errors: Floats) -> float:
    """Returns minus the slope of log error over log size."""
    x, y = np.log(sizes), np.log(errors)
    x, y = x - x.mean(), y - y.mean()
    spread = float(x @ x)
    return -float(x @ y) / spread if spread > 0 else 0.0


def advice_of(
    counts: NDArray[np.int64], wrong: NDArray[np.int64], names: tuple[str, ...], law: Law, seed: int
) -> tuple[ClassAdvice, ...]:
    """Returns the gain from doubling a class's examples: the part of its errors that the power removes.

    Only the class's own recall gains. Accuracy over all classes does not: the class also wins as many inputs
    of other classes. On Banking77 at 8 per class, recall gained 10.0 points with a forecast of 10.6, and
    accuracy lost 0.1.

    Args:
        counts: shape (k,): measured examples of each class.
        wrong: shape (k,): how many of these are answered with another class.
        names: Of the classes.
        law: The fall of errors.
        seed: The seed of the uncertainty.
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
    """Returns the prior for one class from all: the share of errors, and its weight in examples of the class.

    The worst classes of few examples each are mostly unlucky: with 8 each, classes with an out-of-fold recall of 41%
    had 79% on Banking77's test set. Moments show how classes differ beyond luck.
    """
    known = counts > 0
    counts, rates = counts[known], wrong[known] / counts[known]
    share = float(wrong.sum() / counts.sum())
    luck = float(np.mean(share * (1 - share) / counts))
    beyond = max(float(np.var(rates)) - luck, 1e-3 * share * (1 - share))
    return share, max(share * (1 - share) / beyond - 1, 0.0) if beyond > 0 else 0.0
