"""From a multi-label training set to a head and its report: choose, fit, calibrate, set thresholds, measure.

Each label is a question of its own, but the worth of the features is common to all, so the search chooses one
view, one kind of head and one strength for all labels, by the sum of their log-losses. The differences between labels,
in calibration and thresholds, are in `thresholds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graft_server.domain.errors import StateError
from graft_server.domain.report import Candidate, HeadChoice
from graft_server.domain.views import names_of, stacked
from graft_server.evaluation.multi_label import figures
from graft_server.heads import LinearMap
from graft_server.heads.maps import Map
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.training.calibration.novelty import fit_novelty
from graft_server.training.examples.folded import deal, parts_of
from graft_server.training.examples.folds import iterative_folds
from graft_server.training.search import costs
from graft_server.training.search.candidates import NEVER
from graft_server.training.search.search import (
    AS_GOOD,
    FIRST_STRENGTH,
    STRENGTHS,
    USUAL_STRENGTHS,
    views_of,
)
from graft_server.training.solvers import binary, logistic
from graft_server.training.solvers.kernel import RIDGES, KernelRidge
from graft_server.training.solvers.threads import side_by_side
from graft_server.training.solvers.ticks import Tick, untold
from graft_server.training.steps import Steps
from graft_server.training.tasks.multi_label.examples import MultiLabelSet
from graft_server.training.tasks.multi_label.report import report_of
from graft_server.training.tasks.multi_label.thresholds import Decision, decide, platt
from graft_server.training.tasks.task import Selection

SEARCH_EXAMPLES = 6_000
"""The most examples on which views and strengths are chosen: twice those of single labels, which are less skewed."""
FOLDS_AT_ONCE = 3
"""Folds in a group; see `candidates`."""
LOGITS_AT_ONCE = 4_000_000
"""Folds are fitted side by side as long as their logits take no more than 16 MiB."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """The usable training examples in one view, in folds. Row i of each array is the same example."""

    view: str
    features: NDArray[np.float16]
    """shape (n, d)."""
    targets: NDArray[np.bool_]
    """shape (n, k)."""
    weights: NDArray[np.float64]
    """shape (n,), all > 0."""
    fold_of: NDArray[np.int32]
    folds: int
    seed: int
    names: NDArray[np.float16] | None = None
    """shape (k, d): features of the labels' names, each taught as an example that carries only its label; None if
    they are not taught."""
    tick: Tick = untold
    """Told now and then while a head is fitted to it, from any thread."""

    @cached_property
    def taught(self) -> Taught:
        """The rows that heads are fitted to."""
        numbers = self.targets.astype(np.float32)
        if self.names is None:
            return Taught(self.features, numbers, self.weights, self.fold_of)
        k = len(self.names)
        return Taught(
            np.concatenate([self.features, self.names]),
            np.concatenate([numbers, np.eye(k, dtype=np.float32)]),
            np.append(self.weights, np.full(k, np.median(self.weights))),
            np.append(self.fold_of, np.full(k, NEVER, np.int32)),
        )

    @cached_property
    def axes(self) -> logistic.Axes:
        """The features of the taught rows on their principal axes."""
        return logistic.principal_axes(self.taught.features.astype(np.float32), overwrite=True)

    @cached_property
    def scale(self) -> float:
        """The mean squared norm of the features."""
        wide = self.features.astype(np.float32)
        return max(float(np.einsum("nd,nd->n", wide, wide).mean()), 1e-12)

    @cached_property
    def kernel(self) -> KernelRidge:
        """The kernel regression."""
        taught = self.taught
        return KernelRidge(
            taught.features,
            csr_array(taught.numbers),
            taught.weights,
            taught.fold_of,
            seed=self.seed,
            tick=self.tick,
        )

    def settings(self, settings: Mapping[str, float]) -> Mapping[str, float]:
        """A head's settings, and whether it was taught the labels' names."""
        return {**settings, "label_names": float(self.names is not None)}


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """The rows that heads are fitted to: the examples first, then the labels' names if these help."""

    features: NDArray[np.float16]
    numbers: Array
    """The targets as 0 and 1."""
    weights: NDArray[np.float64]
    fold_of: NDArray[np.int32]
    """The fold of each row; NEVER for names, which are not measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One head that was tried."""

    kind: str
    settings: Mapping[str, float]
    scores: Array
    """shape (n, k): each example's scores, by maps trained without its fold."""
    fit: Callable[[], tuple[Map, ...]]
    """Fits the maps on all rows; `scores` are the sum of such maps' scores."""
    candidate: Candidate


def select_multi_label(train: MultiLabelSet, *, seed: int, steps: Steps | None = None) -> Selection:
    """Chooses and fits the head, and reports on it.

    Args:
        train: The examples. Rows of weight 0 and rows whose features are not finite are left out.
        seed: The seed of every random choice.
        steps: Told of the stages "checking", "selecting", "fitting" and "measuring".

    Raises:
        StateError: No label is carried by some examples and not by others (TOO_FEW_CLASSES), or too few examples are
            left to tell training from measuring (TOO_FEW_EXAMPLES).
    """
    steps = Steps() if steps is None else steps
    steps.begin("checking")
    with steps.step(costs.checking(len(train))):
        parts = parts_of(train, seed)
    rows = parts.rows
    _require_contrast(train.targets[rows])
    dealt = deal(train, parts, train.kinds()[rows])
    folds = dealt.folds
    fold_of = iterative_folds(train.targets[rows], dealt.bound, folds, seed)

    def seen(view: str, part: NDArray[np.int64], *, named: bool = False) -> Labelled:
        features, targets = stacked(train.features, view)[rows[part]], train.targets[rows[part]]
        names = None
        if named and train.label_features is not None and train.label_features.keys() >= set(names_of(view)):
            names = stacked(train.label_features, view)
        weights = train.weights[rows[part]]
        return Labelled(view, features, targets, weights, fold_of[part], folds, seed, names, steps.tick)

    whole, tried = _search(views_of(train), seen, len(rows), seed, steps)
    chosen = tried[0]
    n, width = whole.features.shape
    steps.begin("fitting")
    with steps.step(costs.fitting(n, width, len(train.classes))):
        decision = decide(chosen.scores, whole.targets, whole.weights)
        head = _fitted(whole, chosen, decision, train.kinds()[rows])
    steps.begin("measuring", 1, "parts")
    candidates = sorted((one.candidate for one in tried), key=lambda candidate: candidate.log_loss)
    choice = HeadChoice(head.kind, head.view, chosen.settings, 1.0, tuple(candidates))
    with steps.step(costs.curve(n, width, len(train.classes)) + costs.figures(n)):
        report = report_of(
            train,
            parts,
            head,
            choice,
            scores=chosen.scores,
            fold_of=fold_of,
            seed=seed,
            tick=steps.tick,
        )
    return Selection(head, report)


def _require_contrast(targets: NDArray[np.bool_]) -> None:
    told = targets.any(axis=0) & ~targets.all(axis=0)
    if not told.any():
        raise StateError(
            f"None of the {targets.shape[1]} labels is carried by some of the {len(targets):,} training examples and "
            "not by others: at least one must be. An example that none of the labels applies to has an empty set.",
            reason="TOO_FEW_CLASSES",
            metadata={"classes": "0", "needed": "1"},
        )


class View(Protocol):
    """Gives some of the rows in a view, with the labels' names if requested and known."""

    def __call__(self, view: str, part: NDArray[np.int64], *, named: bool = False) -> Labelled:
        """Returns the rows at the places `part`, in a view."""


def _search(views: list[str], seen: View, n: int, seed: int, steps: Steps) -> tuple[Labelled, list[Trial]]:
    """Returns the examples in the chosen view, and the trials on all of them, the chosen one first."""
    everything = np.arange(n)
    few = n if n <= 1.5 * SEARCH_EXAMPLES else SEARCH_EXAMPLES
    part = np.sort(np.random.default_rng(seed).permutation(n)[:few])
    first = STRENGTHS[FIRST_STRENGTH]
    asked = {view: _Logistic(seen(view, part)) for view in views}
    ahead = _Ahead(asked, few, n, steps)
    ahead.of_search(views)
    losses = {}
    for view, one in asked.items():
        with ahead.first(view):
            losses[view] = _loss(one.trial(first, logistic.ROUGH), one.labelled)
    view = next(one for one in views if losses[one] <= min(losses.values()) + AS_GOOD)
    linear = asked.pop(view)
    asked.clear()
    with_names = _Logistic(seen(view, part, named=True))
    named = with_names.labelled.names is not None
    if named:
        with ahead.first(view):
            named = _loss(with_names.trial(first, logistic.ROUGH), linear.labelled) < losses[view]
    if named:
        linear = with_names
    ahead.of_view(view, USUAL_STRENGTHS)
    tried = _climb(linear, partial(ahead.strength, view))
    ahead.of_view(view, 0)
    kernels = []
    for ridge, cost in zip(RIDGES, ahead.kernels(view), strict=True):
        with steps.step(cost):
            kernels.append(_kernel(linear.labelled, ridge))
    whole = linear.labelled
    if few < n:
        # The settings that were best on a part, fitted to all.
        strength = _least(tried, whole).settings["C"]
        ridge = _least(kernels, whole).settings["ridge"]
        whole = seen(view, everything, named=named)
        of_linear, of_kernel = ahead.of_all(view)
        with steps.step(of_linear):
            tried = [_Logistic(whole).trial(strength, logistic.ROUGH)]
        with steps.step(of_kernel):
            kernels = [_kernel(whole, ridge)]
    best, other = _least(tried, whole), _least(kernels, whole)
    both = _blend(best, other, whole)
    by_simplicity = [best, other, both]
    least = min(_loss(one, whole) for one in by_simplicity)
    chosen = next(one for one in by_simplicity if _loss(one, whole) <= least + AS_GOOD)
    return whole, [chosen, *(one for one in [*tried, *kernels, both] if one is not chosen)]


def _loss(trial: Trial, labelled: Labelled) -> float:
    """Returns the sum of all labels' log-losses, in nats: the cost of coding a set of labels."""
    return trial.candidate.log_loss * len(labelled.targets[0])


def _least(trials: list[Trial], labelled: Labelled) -> Trial:
    return min(trials, key=lambda trial: _loss(trial, labelled))


class _Ahead:
    """Tells what the search has done, and what it is expected to do."""

    def __init__(self, asked: Mapping[str, _Logistic], few: int, n: int, steps: Steps) -> None:
        self._steps = steps
        self._widths = {view: one.labelled.features.shape[1] for view, one in asked.items()}
        labelled = next(iter(asked.values())).labelled
        k, folds = labelled.targets.shape[1], labelled.folds
        self._on_few = costs.Trials(few, k, folds)
        self._on_many = costs.Trials(n, k, folds) if few < n else None
        steps.begin("selecting", unit="candidates")

    def of_search(self, views: Sequence[str]) -> None:
        """Expects everything."""
        self._expect(views[-1], USUAL_STRENGTHS, views)

    def of_view(self, view: str, strengths: int) -> None:
        """Expects what is to come in the chosen view."""
        self._expect(view, strengths, ())

    def first(self, view: str) -> AbstractContextManager[None]:
        """The first trial in a view."""
        return self._steps.step(self._on_few.first(self._widths[view]))

    def strength(self, view: str) -> AbstractContextManager[None]:
        """A further strength in a view."""
        return self._steps.step(self._on_few.strength(self._widths[view]))

    def kernels(self, view: str) -> list[float]:
        """What kernel regressions take."""
        return self._on_few.kernels(self._widths[view])

    def of_all(self, view: str) -> tuple[float, ...]:
        """What is tried on all examples, after a part of them; nothing where these are all."""
        if self._on_many is None:
            return ()
        return self._on_many.first(self._widths[view]), self._on_many.kernels(self._widths[view])[0]

    def _expect(self, view: str, strengths: int, firsts: Sequence[str]) -> None:
        before = [self._on_few.first(self._widths[it]) for it in firsts]
        climbed = [self._on_few.strength(self._widths[view])] * strengths
        self._steps.expect([*before, *climbed, *self.kernels(view), *self.of_all(view)])


def _climb(trials: _Logistic, step: Callable[[], AbstractContextManager[None]]) -> list[Trial]:
    """Tries logistic regression of rising, then of falling strength from the first, for as long as the loss falls."""

    def one(strength: float) -> Trial:
        with step():
            return trials.trial(strength)

    tried = [one(STRENGTHS[FIRST_STRENGTH])]
    for side in (STRENGTHS[FIRST_STRENGTH + 1 :], STRENGTHS[:FIRST_STRENGTH][::-1]):
        before = len(tried)
        for strength in side:
            tried.append(one(strength))
            if _least(tried, trials.labelled) is not tried[-1]:
                break
        if len(tried) > before + 1:
            break
    return tried


class _Logistic:
    """Logistic regression at one strength after another, each fold starting from its own last solution."""

    def __init__(self, labelled: Labelled) -> None:
        self.labelled = labelled
        self._last: dict[int, logistic.Solution] = {}

    def trial(self, strength: float, tolerance: float = logistic.FINE) -> Trial:
        """Tries a strength, given for features of norm 1."""
        labelled = self.labelled
        scaled = strength / labelled.scale
        axes, taught = labelled.axes, labelled.taught
        weights = taught.weights.astype(np.float32)
        scores = np.zeros(labelled.targets.shape, np.float32)
        at_once = max(1, min(FOLDS_AT_ONCE, LOGITS_AT_ONCE // (2 * scores.size)))

        def solve(first: int) -> None:
            folds = np.arange(first, min(first + at_once, labelled.folds))
            kept = np.where(folds[:, None] == taught.fold_of, np.float32(0), weights)
            start = self._last.get(first)
            solution = binary.fit(
                axes,
                taught.numbers,
                kept,
                strength=scaled,
                start=start,
                tolerance=tolerance,
                tick=labelled.tick,
            )
            self._last[first] = solution
            for i, fold in enumerate(folds):
                rows = np.flatnonzero(labelled.fold_of == fold)
                scores[rows] = axes.coordinates[rows] @ solution.weight[i] + solution.bias[i]

        side_by_side(solve, range(0, labelled.folds, at_once))
        near = logistic.mean_of(logistic.stacked([self._last[first] for first in sorted(self._last)]))

        def fit() -> tuple[Map, ...]:
            solution = binary.fit(
                axes, taught.numbers, weights[None], strength=scaled, start=near, tick=labelled.tick
            )
            weight = axes.rotation @ solution.weight[0]
            return (LinearMap(weight, solution.bias[0] - axes.centre @ weight),)

        return _judged("logistic", labelled.settings({"C": strength}), scores, fit, labelled)


def _kernel(labelled: Labelled, ridge: float) -> Trial:
    """Tries kernel regression onto 0 and 1 with one penalty."""
    regression = labelled.kernel
    return _judged(
        "kernel",
        labelled.settings({"ridge": ridge}),
        regression.out_of_fold(ridge)[: len(labelled.targets)],
        lambda: (regression.fit(ridge),),
        labelled,
    )


def _blend(one: Trial, other: Trial, labelled: Labelled) -> Trial:
    """Tries the mean of two heads' calibrated logits, which is again a sum of maps."""
    scales = [platt(trial.scores, labelled.targets, labelled.weights) for trial in (one, other)]
    logits = [scale.logits(trial.scores) for trial, scale in zip((one, other), scales, strict=True)]

    half = np.float32(0.5)

    def fit() -> tuple[Map, ...]:
        return tuple(
            _scaled(map_, half * scale.slope, half * scale.shift)
            for trial, scale in zip((one, other), scales, strict=True)
            for map_ in trial.fit()
        )

    mean = (logits[0] + logits[1]) / np.float32(2)
    return _judged(f"{one.kind}+{other.kind}", {**one.settings, **other.settings}, mean, fit, labelled)


def _judged(
    kind: str,
    settings: Mapping[str, float],
    scores: Array,
    fit: Callable[[], tuple[Map, ...]],
    labelled: Labelled,
) -> Trial:
    decision = decide(scores, labelled.targets, labelled.weights)
    probabilities, selected = decision.apply(scores)
    found = figures(probabilities, selected, labelled.targets, labelled.weights)
    candidate = Candidate(
        kind, labelled.view, settings, log_loss=found.figures.log_loss, micro_f1=found.further.micro_f1
    )
    return Trial(kind, settings, scores, fit, candidate)


def _scaled(of: Map, slope: Array, shift: Array) -> Map:
    """Returns the map with another's scores times slope plus shift."""
    return replace(of, weight=of.weight * slope, bias=of.bias * slope + shift)


def _fitted(
    labelled: Labelled, chosen: Trial, decision: Decision, kinds: NDArray[np.int32]
) -> MultiLabelHead:
    scale = decision.scale
    first, *others = chosen.fit()
    maps = (
        _scaled(first, scale.slope, scale.shift),
        *(_scaled(one, scale.slope, np.zeros_like(scale.shift)) for one in others),
    )
    n = len(kinds)
    novelty = fit_novelty(
        labelled.features.astype(np.float32),
        kinds,
        np.zeros(n, np.float32),
        np.ones(n, bool),
        labelled.fold_of,
        seed=labelled.seed,
    )
    return MultiLabelHead(
        chosen.kind, labelled.view, maps, decision.thresholds, decision.at_least_one, novelty
    )
