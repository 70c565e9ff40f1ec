"""The search for the best head: greedy, one question after the other.

Which view, do the classes' names help, how strong, which kind. On large sets it answers the first questions on a part
of the examples and only the last question on all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import Candidate
from graft_server.domain.views import POOLED, names_of, stacked, view_of
from graft_server.evaluation import figures
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.search import candidates, costs
from graft_server.training.search.candidates import LogisticTrials, Measure, Problem, Solved, Trial
from graft_server.training.search.evidence import Difference, difference
from graft_server.training.solvers import logistic
from graft_server.training.solvers.kernel import RIDGES
from graft_server.training.solvers.threads import side_by_side
from graft_server.training.steps import Steps

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""The choices for logistic regression's C, for features of norm 1."""
FIRST_STRENGTH = 3
"""Where the search begins: 30 is best or next to it on Banking77 and CLINC150 at 8, 16 and all per class."""
AS_GOOD = 0.002
"""Among heads whose log-losses surely differ by less, in nats, the simplest is chosen."""
WORTH_OF_A_VIEW = (0.05, 0.05)
"""The prior mean and spread of the fall in logistic regression's log-loss from a further view, in nats: -0.02 on
Banking77, 0.04 on CLINC150, 0.11 on GoEmotions and 0.1 on SMS spam, at 8 per class."""
SURE = 1.0
"""Standard errors by which names must help, and by which a simpler head must be as good as the best: otherwise the
average of logistic and kernel regression is taken, which is seldom far behind either. By log-loss alone 4 of 10 draws
of 8 messages of each kind of SMS spam chose prototypes and lost 1 to 2 points."""
SEARCH_EXAMPLES = 3000
"""The most examples on which views, names and strengths are chosen; more change no choice on Banking77 or CLINC150."""

USUAL_STRENGTHS = 3
"""How many are tried mostly."""
MANY_CELLS = 5_000_000
"""Examples times classes from which only the first strength is tried: each further one takes a minute."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A trial and its measured quality."""

    trial: Trial
    candidate: Candidate
    losses: NDArray[np.float64]
    """shape (m,): the losses of the measured examples."""


def views_of(train: ExampleSet) -> list[str]:
    """Returns the views to choose from, simplest first: the pooled view, and the pooled view with each other one."""
    return [POOLED, *(view_of(POOLED, view) for view in train.features if view != POOLED)]


class Search:
    """The greedy search."""

    def __init__(self, examples: Examples, steps: Steps | None = None) -> None:
        """Begins a search; `steps` is told of each candidate."""
        self._examples = examples
        self._steps = Steps() if steps is None else steps
        n = len(examples.rows)
        few = n if n <= 1.5 * SEARCH_EXAMPLES else SEARCH_EXAMPLES
        self._all = np.arange(n)
        self._asked: dict[tuple[str, bool], LogisticTrials] = {}
        self._part = np.sort(np.random.default_rng(examples.seed).permutation(n)[:few])
        classes, folds = len(examples.train.classes), examples.folds
        self._on_few = costs.Trials(few, classes, folds)
        self._on_many = costs.Trials(n, classes, folds) if few < n else None

    def best(self) -> list[Judged]:
        """Returns the last trials, the chosen one first."""
        views = views_of(self._examples.train)
        self._steps.begin("selecting", unit="candidates")
        self._expect(views[-1], firsts=[*self._of_views(views), self._on_few.first(self._width(views[-1]))])
        view, names = self._view_and_names()
        self._expect(view)
        if len(self._part) < len(self._all):
            settings, solved = self._on_part(view, names)
            tried = self._on_all(view, names, settings, solved)
        else:
            tried, _ = self._tried(view, names)
        _, measure = self.problem(view, names, self._all)
        linear = _least([one for one in tried if one.candidate.kind == "logistic"])
        kernel = _least([one for one in tried if one.candidate.kind == "kernel"])
        both = judge(candidates.blend(linear.trial, kernel.trial, measure), measure)
        of_names = self._of_names(linear, measure)
        by_simplicity = [*of_names, tried[0], linear, kernel, both]
        least = _least(by_simplicity)
        hedge = least if least in of_names else both

        def surely_as_good(one: Judged) -> bool:
            rival = hedge if one is least else least
            return self._apart(one, rival, measure).surely_below(AS_GOOD, SURE)

        chosen = next((one for one in by_simplicity if surely_as_good(one)), hedge)
        return [chosen, *(one for one in dict.fromkeys([*tried, *by_simplicity]) if one is not chosen)]

    def _apart(self, one: Judged, other: Judged, measure: Measure) -> Difference:
        weights = measure.weights[measure.measured]
        return difference(one.losses, other.losses, weights, self._examples.folds)

    def _of_names(self, linear: Judged, measure: Measure) -> list[Judged]:
        """Tries the names alone, and averaged with a head trained on the examples, if cosines with names are logits."""
        train = self._examples.train
        if train.label_features is None or not train.label_scale:
            return []
        names = train.label_features[POOLED].astype(np.float32)
        alone = candidates.names_alone(linear.trial.problem, names, measure, train.label_scale)
        blended = candidates.blend(alone, linear.trial, measure)
        return [judge(alone, measure), judge(blended, measure)]

    def _tried(self, view: str, names: bool) -> tuple[list[Judged], LogisticTrials]:
        """Tries prototypes, then logistic and kernel regression of several strengths."""
        trials = self._asked.get((view, names)) or LogisticTrials(*self.problem(view, names, self._part))
        self._asked.clear()
        problem, measure = trials.problem, trials.measure
        width = self._width(view)
        with self._steps.step(self._on_few.simple):
            simple = judge(candidates.prototypes(problem, measure), measure)
        linear = self._strengths(trials, width)
        kernel = []
        for ridge, cost in zip(RIDGES, self._on_few.kernels(width), strict=True):
            with self._steps.step(cost):
                kernel.append(judge(candidates.kernel(problem, measure, ridge), measure))
        return [simple, *linear, *kernel], trials

    def _on_part(self, view: str, names: bool) -> tuple[dict[str, float], Solved]:
        """Returns the best settings on a part, and a start for all examples; the rest, 200 MB, is freed."""
        tried, trials = self._tried(view, names)
        return _settings(tried), trials.solved()

    def _on_all(self, view: str, names: bool, settings: Mapping[str, float], solved: Solved) -> list[Judged]:
        """Tries the same heads on all examples with the settings that were best on a part."""
        problem, measure = self.problem(view, names, self._all)
        of_linear, of_kernel, of_simple = self._of_all(view)
        # Each is fitted at once and its inputs freed: two of them would exceed the memory allowed.
        with self._steps.step(of_linear):
            trials = LogisticTrials(problem, measure)
            trials.start_at(solved)
            linear = candidates.settled(trials.trial(settings["C"]))
        problem.let_go()
        with self._steps.step(of_kernel):
            kernel = candidates.settled(candidates.kernel(problem, measure, settings["ridge"]))
        problem.let_go()
        with self._steps.step(of_simple):
            simple = candidates.prototypes(problem, measure)
        return [judge(one, measure) for one in (simple, linear, kernel)]

    def _view_and_names(self) -> tuple[str, bool]:
        """Returns the view whose logistic regression should be best, and whether the classes' names help in it."""
        views = views_of(self._examples.train)
        view, plain = views[0], None
        if len(views) > 1:
            with self._steps.step(sum(self._of_views(views)), len(views)):
                firsts = dict(zip(views, side_by_side(partial(self._first, names=False), views), strict=True))
            view = self._best_view(firsts)
            plain = firsts[view]
        of_names = self._examples.train.label_features
        if of_names is None or not of_names.keys() >= set(names_of(view)):
            return view, False
        cost = self._on_few.first(self._width(view))
        if plain is None:
            with self._steps.step(cost):
                plain = self._first(view, names=False)
        with self._steps.step(cost):
            named = self._first(view, names=True)
        apart = self._apart(named, plain, self._asked[view, True].measure)
        return view, apart.surely_below(0.0, SURE)

    def _best_view(self, firsts: Mapping[str, Judged]) -> str:
        gains = {POOLED: 0.0}
        for view, judged in firsts.items():
            if view != POOLED:
                measure = self._asked[view, False].measure
                gains[view] = self._apart(firsts[POOLED], judged, measure).given(*WORTH_OF_A_VIEW)
        most = max(gains.values())
        return next(view for view, gain in gains.items() if gain >= most - AS_GOOD)

    def _first(self, view: str, *, names: bool) -> Judged:
        problem, measure = self.problem(view, names, self._part)
        trials = self._asked[view, names] = LogisticTrials(problem, measure)
        return judge(trials.trial(STRENGTHS[FIRST_STRENGTH], logistic.ROUGH), measure)

    def _strengths(self, trials: LogisticTrials, width: int) -> list[Judged]:
        """Climbs from the first strength for as long as the log-loss falls."""
        measure, cost = trials.measure, self._on_few.strength(width)

        def one(strength: float) -> Judged:
            with self._steps.step(cost):
                return judge(trials.trial(strength), measure)

        tried = [one(STRENGTHS[FIRST_STRENGTH])]
        if len(measure.labels) * len(self._examples.train.classes) > MANY_CELLS:
            return tried
        for side in (STRENGTHS[FIRST_STRENGTH + 1 :], STRENGTHS[:FIRST_STRENGTH][::-1]):
            before = len(tried)
            for strength in side:
                tried.append(one(strength))
                if _least(tried) is not tried[-1]:
                    break
            if len(tried) > before + 1:
                break
        self._expect(trials.problem.view, linear=False)
        return tried

    def _expect(self, view: str, *, firsts: Sequence[float] = (), linear: bool = True) -> None:
        """Says what candidates are to come in a view: `firsts`, the strengths if `linear`, and what follows these."""
        width = self._width(view)
        strengths = [self._on_few.strength(width)] * USUAL_STRENGTHS if linear else []
        of_all = self._of_all(view) if self._on_many is not None else ()
        simple = [self._on_few.simple] if linear else []
        self._steps.expect([*firsts, *simple, *strengths, *self._on_few.kernels(width), *of_all])

    def _of_views(self, views: Sequence[str]) -> list[float]:
        """What comparing views takes, each; nothing where there is one alone."""
        return [self._on_few.first(self._width(it)) for it in views] if len(views) > 1 else []

    def _of_all(self, view: str) -> tuple[float, float, float]:
        """What logistic regression, kernel regression and prototypes of all examples take."""
        trials, width = self._on_many or self._on_few, self._width(view)
        return trials.first(width) + trials.strength(width), trials.kernels(width)[0], trials.simple

    def _width(self, view: str) -> int:
        """How many features a view has."""
        return sum(self._examples.train.features[name].shape[1] for name in names_of(view))

    def problem(self, view: str, names: bool, part: NDArray[np.int64]) -> tuple[Problem, Measure]:
        """Returns the examples at places `part` in a view, with the classes' names if `names` says so."""
        examples = self._examples
        features = stacked(examples.train.features, view)[examples.rows[part]]
        labels, weights, fold_of = examples.labels[part], examples.weights[part], examples.fold_of[part]
        soft = None if examples.soft is None else examples.soft[part]
        measure = Measure(examples.measured[part], labels, weights, soft)
        classes = len(examples.train.classes)
        if names and examples.train.label_features is not None:
            of_names = stacked(examples.train.label_features, view)
            features = np.concatenate([features, of_names])
            labels = np.append(labels, np.arange(classes, dtype=np.int32))
            weights = np.append(weights, np.full(classes, float(np.median(weights))))
            fold_of = np.append(fold_of, np.full(classes, candidates.NEVER, np.int32))
            soft = None if soft is None else np.concatenate([soft, np.eye(classes, dtype=np.float32)])
        problem = Problem(
            view,
            features,
            labels,
            weights,
            classes,
            fold_of,
            examples.folds,
            examples.seed,
            soft,
            self._steps.tick,
        )
        return problem, measure


def judge(trial: Trial, measure: Measure) -> Judged:
    """Returns the trial with its log-loss and accuracy on the measured examples, 0 if there are none."""
    rows = measure.measured
    if not rows.any():
        return Judged(trial, Candidate(trial.kind, trial.problem.view, trial.settings), np.empty(0))
    found = trial.probabilities[rows]
    labels, weights = measure.labels[rows], measure.weights[rows]
    soft = None if measure.soft is None else measure.soft[rows]
    losses = figures.losses(found, labels, soft)
    log_loss = float(weights @ losses / weights.sum())
    accuracy = float(weights @ (found.argmax(axis=1) == labels) / weights.sum())
    return Judged(
        trial, Candidate(trial.kind, trial.problem.view, trial.settings, log_loss, accuracy), losses
    )


def _settings(tried: list[Judged]) -> dict[str, float]:
    """Returns only the settings of the best trial of each kind."""
    best: dict[str, float] = {}
    for one in sorted(tried, key=lambda one: -one.candidate.log_loss):
        best |= one.candidate.settings
    return best


def _least(judged: list[Judged]) -> Judged:
    return min(judged, key=lambda one: one.candidate.log_loss)
