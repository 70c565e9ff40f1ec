"""The last question of the search: does what is known of examples without a target make the head better?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graft_server.domain.report import UnlabelledReport
from graft_server.domain.views import stacked
from graft_server.evaluation import figures
from graft_server.training.examples.folded import Examples
from graft_server.training.search import costs
from graft_server.training.search.candidates import Measure, settled
from graft_server.training.search.evidence import difference
from graft_server.training.search.search import AS_GOOD, FIRST_STRENGTH, STRENGTHS, Judged, judge
from graft_server.training.search.self_training import WAYS, WEIGHT, Students, Way, axes_for
from graft_server.training.steps import Steps

LEAST_UNLABELLED = 100
"""With fewer they are not tried: they add nothing that can be measured."""
MOST_EXAMPLES = 3_000
"""With more labelled examples they are not tried: what they add is gone by then, and their cost is not."""
MOST_CELLS = 1_000_000
"""Examples, labelled or not, times classes up to which they are tried."""
KNOWS = 1.5
"""Standard errors by which the chosen head must be better than the shares of the classes alone: guesses of a head that
knows nothing teach nothing."""
WORTH: Mapping[Way, tuple[float, float]] = {
    Way(even=False, near=False): (0.012, 0.010),
    Way(even=True, near=False): (0.008, 0.030),
    Way(even=False, near=True): (-0.010, 0.040),
}
"""The prior mean and spread of the fall in log-loss by each way, in nats, at 8 per class. On test sets it was, for what
guesses alone, even ones and near ones teach: 0.015, 0.020, 0.013 on Banking77; 0.008, -0.040, 0.015 on SMS spam, where
one class is most of what comes in; 0.015, 0.019, -0.034 on kinds of questions; 0.011, 0.011, -0.003 on emotions."""


def with_unlabelled(
    examples: Examples, judged: list[Judged], steps: Steps
) -> tuple[list[Judged], UnlabelledReport | None]:
    """Returns the trials, the chosen one first, with those that learn from unlabelled examples among them.

    One of these is chosen if its log-loss is lower, and by more than noise explains, given how much such trials gained
    on other data.

    Args:
        examples: The examples.
        judged: What the search tried, the chosen one first.
        steps: Told of each candidate.

    Returns:
        The trials, and what was found; None where unlabelled examples were not tried.
    """
    before = judged[0]
    pool = examples.train.unlabelled
    m = len(next(iter(pool.values()))) if pool else 0
    n, classes = len(examples.rows), len(examples.train.classes)
    if not m >= LEAST_UNLABELLED or n > MOST_EXAMPLES or (n + m) * classes > MOST_CELLS:
        return judged, None
    if before.trial.of_others is None or examples.measured.sum() < 2:
        return judged, None
    measure = Measure(examples.measured, examples.labels, examples.weights, examples.soft)
    cost = costs.logistic(n + m, axes_for(classes), classes, examples.folds)
    steps.expect([cost] * len(WAYS))
    with steps.step(cost / 2, 0):
        teacher = settled(before.trial)
        features = stacked(pool, teacher.problem.view)
        students = Students(teacher, features, measure, _strength(judged))
    tried = []
    ways = students.ways
    steps.expect([cost] * len(ways))
    for way in ways:
        with steps.step(cost):
            tried.append(judge(students.trial(way), measure))
    weights = measure.weights[measure.measured]
    gains = [difference(before.losses, one.losses, weights, examples.folds) for one in tried]
    worth = [
        gain.given(*WORTH[way]) if gain.mean > 0 else -np.inf for way, gain in zip(ways, gains, strict=True)
    ]
    most = int(np.argmax(worth))
    best, gain = tried[most], gains[most]
    kept = worth[most] > AS_GOOD and _knows(before, measure, examples.folds)
    report = UnlabelledReport(
        examples=m,
        used=m,
        kept=kept,
        weight=WEIGHT,
        log_loss_before=before.candidate.log_loss,
        log_loss_after=best.candidate.log_loss,
        gain_error=float(np.sqrt(gain.variance)),
    )
    first = best if kept else before
    return [first, *(one for one in (*judged, *tried) if one is not first)], report


def _knows(judged: Judged, measure: Measure, folds: int) -> bool:
    """Whether a head is better than the shares of the classes, beyond noise."""
    rows = measure.measured
    weights, labels = measure.weights[rows], measure.labels[rows]
    soft = None if measure.soft is None else measure.soft[rows]
    classes = judged.trial.problem.classes
    counts = np.bincount(labels, weights, classes) if soft is None else weights @ soft
    shares = counts / weights.sum()
    alike = np.broadcast_to(shares.astype(np.float32), (len(labels), classes))
    by_chance = figures.losses(alike, labels, soft)
    return difference(judged.losses, by_chance, weights, folds).surely_below(0.0, KNOWS)


def _strength(judged: list[Judged]) -> float:
    """The strength of the best head that has one."""
    by_loss = sorted(judged, key=lambda one: one.candidate.log_loss)
    found = (one.candidate.settings.get("C") for one in by_loss)
    return next((strength for strength in found if strength), STRENGTHS[FIRST_STRENGTH])
