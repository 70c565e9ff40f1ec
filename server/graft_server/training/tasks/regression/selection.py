"""From a regression's training set to a head and its report: choose, fit, and set the interval.

Ridge and kernel regression are both cross-validated in closed form, so every strength and every view costs one
factorisation a fold and no pass over the data. The interval comes from the same out-of-fold errors: it holds the
promised share of the n examples, plus the correction for a finite sample (the jackknife with folds of
Barber et al. 2021, around the head of all examples). It is wider for inputs that are harder than others, as found
by a ridge on the size of the errors (Lei et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graft_server.domain.errors import StateError
from graft_server.domain.examples import Task
from graft_server.domain.report import (
    CONFIDENCE,
    Candidate,
    Evaluation,
    EvaluationMethod,
    HeadChoice,
    LearningCurve,
    NoveltyReport,
    PredictedValue,
    Report,
)
from graft_server.domain.views import names_of, stacked
from graft_server.evaluation.regression import figures
from graft_server.heads import ABSTAIN_ABOVE
from graft_server.heads.maps import Map
from graft_server.heads.regression import RegressionHead
from graft_server.training.calibration.novelty import fit_novelty
from graft_server.training.examples.folded import Parts, deal, parts_of
from graft_server.training.examples.folds import stratified_folds
from graft_server.training.reporting.advice import labels_advice
from graft_server.training.reporting.data_quality import findings
from graft_server.training.reporting.feature_map import feature_map
from graft_server.training.reporting.learning_curve import Law
from graft_server.training.reporting.warnings import contradictions, enough, not_stated, warnings_of_all
from graft_server.training.search import costs
from graft_server.training.search.search import views_of
from graft_server.training.solvers import logistic
from graft_server.training.solvers.kernel import KernelRidge
from graft_server.training.solvers.ridge import Ridge
from graft_server.training.solvers.ticks import Tick, untold
from graft_server.training.steps import Steps
from graft_server.training.tasks.regression.curve import regression_curve
from graft_server.training.tasks.regression.examples import RegressionSet
from graft_server.training.tasks.regression.intervals import Interval, fit_interval, intervals_without
from graft_server.training.tasks.task import Selection

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The choices for ridge regression's penalty, for features of norm 1."""
KERNEL_PENALTIES = (0.1, 0.3, 1.0, 3.0)
"""The choices for kernel regression's penalty: values are noisier than labels."""
AS_GOOD = 1.005
"""Among heads whose mean squared errors differ by a smaller factor, the simplest is chosen."""
MAX_PREDICTED = 500
"""The most predicted values that the report lists."""
FEW = 20
"""With fewer examples no interval can be sure to hold 90% of the true values."""

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Valued:
    """The usable training examples in one view, in folds. Row i of each array is the same example."""

    view: str
    features: NDArray[np.float16]
    """shape (n, d)."""
    targets: Floats
    """shape (n,): the values less their mean, in standard deviations."""
    weights: Floats
    """shape (n,), all > 0."""
    fold_of: NDArray[np.int32]
    seed: int
    tick: Tick = untold
    """Told now and then while a head is fitted to it, from any thread."""

    @cached_property
    def ridge(self) -> Ridge:
        """The linear regression."""
        axes = logistic.principal_axes(self.features.astype(np.float32), overwrite=True)
        return Ridge(axes, self.targets, self.weights, self.fold_of)

    @cached_property
    def kernel(self) -> KernelRidge:
        """The kernel regression."""
        targets = csr_array(self.targets[:, None].astype(np.float32))
        return KernelRidge(self.features, targets, self.weights, self.fold_of, seed=self.seed, tick=self.tick)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One head that was tried."""

    kind: str
    valued: Valued
    settings: Mapping[str, float]
    predicted: Floats
    """shape (n,): each example's prediction, by maps trained without its fold, in the targets' unit."""
    error: float
    """The weighted mean of the squared errors."""
    fit: Callable[[], tuple[Map, ...]]
    """Fits the maps on all rows."""


def select_regression(train: RegressionSet, *, seed: int, steps: Steps | None = None) -> Selection:
    """Chooses and fits the head, and reports on it.

    Args:
        train: The examples. Rows of weight 0 and rows whose features are not finite are left out.
        seed: The seed of every random choice.
        steps: Told of the stages "checking", "selecting", "fitting" and "measuring".

    Raises:
        StateError: Too few examples are left to tell training from measuring (TOO_FEW_EXAMPLES).
    """
    steps = Steps() if steps is None else steps
    steps.begin("checking")
    with steps.step(costs.checking(len(train))):
        parts = parts_of(train, seed)
    rows = parts.rows
    if len(rows) < 2:
        raise StateError(
            f"{len(rows)} training examples have a value and can be used: at least 2 are needed.",
            reason="TOO_FEW_EXAMPLES",
        )
    dealt = deal(train, parts, np.zeros(len(rows), np.int32))
    values, weights = train.values[rows], train.weights[rows]
    kinds = train.kinds()[rows]
    fold_of = stratified_folds(kinds, dealt.bound, dealt.folds, seed)
    unit = Unit.of(values, weights)
    targets = unit.standardised(values)

    def seen(view: str) -> Valued:
        return Valued(view, stacked(train.features, view)[rows], targets, weights, fold_of, seed, steps.tick)

    widths = {view: sum(train.features[it].shape[1] for it in names_of(view)) for view in views_of(train)}
    tried = _search(widths, seen, costs.Trials(len(rows), 1, dealt.folds), steps)
    chosen = tried[0]
    steps.begin("fitting")
    features = chosen.valued.features.astype(np.float32)
    with steps.step(costs.fitting(len(rows), features.shape[1], 1)):
        interval = fit_interval(features, targets - chosen.predicted, weights, fold_of)
        novelty = fit_novelty(
            features, kinds, np.zeros(len(rows), np.float32), np.ones(len(rows), bool), fold_of, seed=seed
        )
        maps = tuple(unit.scaled(one, first=i == 0) for i, one in enumerate(chosen.fit()))
    head = RegressionHead(
        chosen.kind,
        chosen.valued.view,
        maps,
        interval.below * unit.deviation,
        interval.above * unit.deviation,
        interval.spread,
        novelty,
    )
    steps.begin("measuring", 1, "parts")
    with steps.step(costs.curve(len(rows), features.shape[1], 1) + costs.figures(len(rows))):
        report = _report(train, parts, head, tried, unit, interval=interval, kinds=kinds, seed=seed)
    return Selection(head, report)


@dataclass(frozen=True, slots=True)
class Unit:
    """The zero and unit of the values in a regression: their mean is 0, and a standard deviation 1."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Floats, weights: Floats) -> Unit:
        """The unit of weighted values; a deviation of 1 where all are equal."""
        mean = float(weights @ values / weights.sum())
        deviation = float(np.sqrt(weights @ (values - mean) ** 2 / weights.sum()))
        return cls(mean, deviation if deviation > 1e-12 * max(abs(mean), 1e-300) else 1.0)

    def standardised(self, values: Floats) -> Floats:
        """Values in this unit."""
        return (values - self.mean) / self.deviation

    def restored(self, targets: Floats) -> Floats:
        """The reverse."""
        return targets * self.deviation + self.mean

    def scaled(self, of: Map, *, first: bool) -> Map:
        """Converts a map's scores from this unit to the values' own; the first map of a sum adds the mean."""
        bias = of.bias * self.deviation + (self.mean if first else 0)
        return replace(
            of, weight=(of.weight * self.deviation).astype(np.float32), bias=bias.astype(np.float32)
        )


def _search(
    widths: Mapping[str, int], seen: Callable[[str], Valued], trials: costs.Trials, steps: Steps
) -> list[Trial]:
    """Returns the trials, the chosen one first.

    Args:
        widths: The views, simplest first, and how many features each has.
        seen: Gives the examples in a view.
        trials: What trials take.
        steps: Told of each.
    """
    linear: dict[str, list[Trial]] = {}
    of_kernels = trials.kernels(max(widths.values()), len(KERNEL_PENALTIES))
    ridges = {view: costs.axes(trials.examples, width) for view, width in widths.items()}
    steps.begin("selecting", unit="candidates")
    steps.expect([cost / len(PENALTIES) for cost in ridges.values() for _ in PENALTIES] + of_kernels)
    for view, cost in ridges.items():
        valued = seen(view)
        with steps.step(cost, len(PENALTIES)):
            linear[view] = [_ridge(valued, penalty) for penalty in PENALTIES]
    least = min(_least(trials).error for trials in linear.values())
    view = next(one for one in widths if _least(linear[one]).error <= least * AS_GOOD)
    best = _least(linear[view])
    kernels = []
    for penalty, cost in zip(KERNEL_PENALTIES, of_kernels, strict=True):
        with steps.step(cost):
            kernels.append(_kernel(best.valued, penalty))
    both = _blend(best, _least(kernels))
    by_simplicity = [best, _least(kernels), both]
    least = min(one.error for one in by_simplicity)
    chosen = next(one for one in by_simplicity if one.error <= least * AS_GOOD)
    return [chosen, *(one for one in [*linear[view], *kernels, both] if one is not chosen)]


def _least(trials: list[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.error)


def _ridge(valued: Valued, penalty: float) -> Trial:
    predicted = valued.ridge.out_of_fold(penalty)
    return _judged("ridge", valued, {"ridge": penalty}, predicted, lambda: (valued.ridge.fit(penalty),))


def _kernel(valued: Valued, penalty: float) -> Trial:
    predicted = valued.kernel.out_of_fold(penalty)[:, 0].astype(np.float64)
    return _judged(
        "kernel", valued, {"kernel_ridge": penalty}, predicted, lambda: (valued.kernel.fit(penalty),)
    )


def _blend(one: Trial, other: Trial) -> Trial:
    """Tries the mean of two heads' values, which is again a sum of maps."""

    def fit() -> tuple[Map, ...]:
        half = np.float32(0.5)
        maps = (*one.fit(), *other.fit())
        return tuple(replace(map_, weight=map_.weight * half, bias=map_.bias * half) for map_ in maps)

    return _judged(
        f"{one.kind}+{other.kind}",
        one.valued,
        {**one.settings, **other.settings},
        (one.predicted + other.predicted) / 2,
        fit,
    )


def _judged(
    kind: str,
    valued: Valued,
    settings: Mapping[str, float],
    predicted: Floats,
    fit: Callable[[], tuple[Map, ...]],
) -> Trial:
    error = float(valued.weights @ (predicted - valued.targets) ** 2 / valued.weights.sum())
    return Trial(kind, valued, settings, predicted, error, fit)


def _report(
    train: RegressionSet,
    parts: Parts,
    head: RegressionHead,
    tried: list[Trial],
    unit: Unit,
    *,
    interval: Interval,
    kinds: NDArray[np.int32],
    seed: int,
) -> Report:
    chosen = tried[0]
    rows, held_out = parts.rows, parts.held_out
    fold_of = chosen.valued.fold_of
    if enough(parts, held_out):
        output = head.scores(stacked(train.features, head.view)[held_out].astype(np.float32))
        predicted, low, high = (it.astype(np.float64) for it in (output.value, output.low, output.high))
        how, measured_on = Evaluation(EvaluationMethod.HELD_OUT, 0, len(held_out)), held_out
    else:
        features = chosen.valued.features.astype(np.float32)
        off = chosen.valued.targets - chosen.predicted
        ends = intervals_without(features, off, chosen.valued.weights, fold_of, interval)
        predicted = unit.restored(chosen.predicted)
        low, high = predicted - ends[0] * unit.deviation, predicted + ends[1] * unit.deviation
        how = Evaluation(EvaluationMethod.CROSS_VALIDATION, int(fold_of.max()) + 1, len(rows))
        measured_on = rows
        if not enough(parts, rows):
            how, measured_on = Evaluation(EvaluationMethod.NONE), rows[:0]
            predicted, low, high = predicted[:0], low[:0], high[:0]
    values, weights = train.values[measured_on], train.weights[measured_on]
    candidates = [
        Candidate(one.kind, one.valued.view, one.settings, rmse=one.error**0.5 * unit.deviation)
        for one in tried
    ]
    curve, law = _curve(tried, kinds) or (None, None)
    return Report(
        examples=len(rows),
        validation_examples=len(held_out),
        classes=0,
        accuracy=0.0,
        macro_f1=0.0,
        log_loss=0.0,
        calibration_error=0.0,
        evaluation=how,
        head=HeadChoice(
            head.kind, head.view, chosen.settings, 1.0, tuple(sorted(candidates, key=lambda it: it.rmse))
        ),
        per_class=(),
        warnings=(*not_stated(parts, rows), *_warnings(train, parts)),
        seed=seed,
        novelty=NoveltyReport(ABSTAIN_ABOVE, 1 - ABSTAIN_ABOVE),
        data=findings(train, parts, train.values[rows]),
        learning_curve=curve,
        feature_map=feature_map(train, rows, kinds, seed),
        task=Task.REGRESSION,
        regression=figures(predicted, low, high, values, weights, confidence=CONFIDENCE),
        predicted_values=_sample(
            [train.ids[row] for row in measured_on], values, predicted, low, high, seed=seed
        ),
        advice=labels_advice(law, len(rows), "variance explained"),
    )


def _curve(tried: list[Trial], kinds: NDArray[np.int32]) -> tuple[LearningCurve, Law] | None:
    """Returns the curve, and its law, in the chosen head's view, by its best ridge regression."""
    chosen = tried[0].valued
    linear = _least([one for one in tried if one.kind == "ridge"])
    return regression_curve(
        chosen.features.astype(np.float32),
        chosen.targets,
        chosen.weights,
        chosen.fold_of,
        kinds=kinds,
        predicted=tried[0].predicted,
        penalty=linear.settings["ridge"],
        seed=chosen.seed,
    )


def _sample(
    ids: list[str], values: Floats, predicted: Floats, low: Floats, high: Floats, *, seed: int
) -> tuple[PredictedValue, ...]:
    some = np.sort(np.random.default_rng(seed).permutation(len(values))[:MAX_PREDICTED])
    return tuple(
        PredictedValue(float(values[i]), float(predicted[i]), float(low[i]), float(high[i]), ids[i])
        for i in some
    )


def _warnings(train: RegressionSet, parts: Parts) -> tuple[str, ...]:
    rows = parts.rows
    _, numbers = np.unique(train.values[rows], return_inverse=True)
    warnings = [*warnings_of_all(train, parts), *contradictions(train, rows, numbers)]
    if np.ptp(train.values[rows]) == 0:
        warnings.append("All training examples have the same value: it is always the answer.")
    if len(rows) < FEW:
        warnings.append(
            f"There are only {len(rows)} training examples: with fewer than {FEW}, the interval cannot be sure to "
            f"hold {CONFIDENCE:.0%} of the truth."
        )
    return tuple(warnings)
