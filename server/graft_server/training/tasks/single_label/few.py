"""What is made of a cross-fitted tuning of few examples: whether it is kept, and with which head.

The heads of a fold are fitted on that fold's features of all other examples, so that each example is answered by a
backbone and a head that have not seen it, as the frozen head's out-of-fold answers are: the two are compared row by
row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.cross_fitted import LEFT_OUT, CrossFitted
from graft_server.domain.report import Candidate
from graft_server.domain.views import POOLED
from graft_server.evaluation import figures
from graft_server.heads.maps import LinearMap, Member, softmax
from graft_server.training.search.candidates import Measure
from graft_server.training.search.evidence import mean_and_variance
from graft_server.training.solvers import logistic

FOLDS = 4
STRENGTHS = (1.0, 10.0, 100.0)
"""Of the logistic regressions that are tried on tuned features."""
EVIDENCE = 2.5
"""What the gains in log-loss and in accuracy have to be together, in their standard errors; see `is_gain`. Of 26 draws
of 15 sets with 8 or 16 examples a class it is more in 9, which gain 6.6 to 31.2 points on 1,000 test rows, 21.1 on
average; of the 17 others 4 lose, at most 4.0 points, and come to 1.2 at most."""
MORE_EVIDENCE, FEW_A_CLASS = 1.0, 16
"""How much more it has to be with each doubling of the examples a class, and from where on. Up to there nearly all sets
gain that are not about topics, and much; with 64 a frozen head has seen enough to be the better one as often as not:
two draws of sentiment, which lose 0.8 and 3.6 points, come to 3.5 and 1.8."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Which head there would be on the tuned features, and whether it is better than the frozen one beyond noise."""

    kept: bool
    kind: str
    settings: Mapping[str, float]
    temperature: float
    candidates: tuple[Candidate, ...]
    """What was tried, best first."""
    logits: Array
    """shape (n, k): of the first member's map, each example by a head that has not seen it; 0 where none was made."""
    probabilities: Array
    """shape (n, k): calibrated, in the same way."""
    measured: NDArray[np.bool_]
    """shape (n,): whether it was, and its class is known to the head that answers it."""
    gain_error: float
    """The standard error of the difference in log-loss, in nats."""
    accuracy_gain_error: float
    """The same in accuracy."""
    fit: Callable[[], tuple[Member, ...]]
    """Fits the members on the features of the training on all examples."""
    tuned_share: float = 1.0
    """What of the answer comes from tuned layers, 0 to 1."""


def decide(fitted: CrossFitted) -> Decision:
    """Chooses a head on the tuned features, and says whether it is better than the frozen one.

    Args:
        fitted: At least one fold, with measured examples.
    """
    rows = np.flatnonzero(fitted.measured)
    labels, weights = fitted.labels[rows], fitted.weights[rows]
    soft = None if fitted.soft is None else fitted.soft[rows]
    measure = Measure(fitted.measured, fitted.labels, fitted.weights, fitted.soft)
    tried = [(it, *_tried(fitted, it, measure)) for it in STRENGTHS]
    losses = [figures.log_loss(it[2][rows], labels, weights, soft) for it in tried]
    strength, logits, probabilities, temperature = tried[int(np.argmin(losses))]
    gains = figures.losses(fitted.frozen[rows], labels, soft) - figures.losses(
        probabilities[rows], labels, soft
    )
    right = (it[rows].argmax(axis=1) == labels for it in (probabilities, fitted.frozen))
    more = np.subtract(*(it.astype(np.float64) for it in right))
    over_chance = _of_chance(fitted)[rows] - figures.losses(probabilities[rows], labels, soft)
    right_of = [float(weights @ (it[2][rows].argmax(axis=1) == labels) / weights.sum()) for it in tried]
    candidates = [
        Candidate("logistic", POOLED, {"C": it[0]}, loss, right)
        for it, loss, right in zip(tried, losses, right_of, strict=True)
    ]

    def fit() -> tuple[Member, ...]:
        of = _map(fitted, fitted.features, fitted.fold_of != LEFT_OUT, strength)
        return (Member(of, temperature, 1.0),)

    return Decision(
        kept=all(is_gain(it, more, weights, fitted.classes) for it in (gains, over_chance)),
        kind="logistic",
        settings={"C": strength},
        temperature=temperature,
        candidates=tuple(sorted(candidates, key=lambda it: it.log_loss)),
        logits=logits,
        probabilities=probabilities,
        measured=fitted.measured,
        gain_error=float(np.sqrt(mean_and_variance(gains, weights)[1])),
        accuracy_gain_error=float(np.sqrt(mean_and_variance(more, weights)[1])),
        fit=fit,
    )


def is_gain(
    gains: NDArray[np.float64], more: NDArray[np.float64], weights: NDArray[np.float64], classes: int
) -> bool:
    """Whether a tuned head is better than another beyond noise.

    A few dozen examples say little by one figure alone: log-loss sees how sure the heads are, but a head that is right
    wherever it matters may be less sure, and accuracy sees only the few examples on which the two differ. So both
    count, each as the number of its standard errors that it is above 0, and neither may be below. Each has one more
    example, that is lost by all that there is to know of it, as in `noise.is_beyond_noise`: of eight messages of each
    kind of SMS spam one more was right, and the log-loss fell by two standard errors, while the accuracy on the test
    set fell from 97.5% to 93.5%.

    Args:
        gains: shape (n,), n >= 1: by how much the loss of each example fell, in nats.
        more: shape (n,): 1 where only the tuned head is right, -1 where only the other is, otherwise 0.
        weights: shape (n,): of the examples.
        classes: How many there are.
    """
    counted = np.append(weights, weights.mean())
    of_loss = _errors(np.append(gains, -np.log(classes)), counted)
    of_accuracy = _errors(np.append(more, -1.0), counted)
    doublings = max(np.log2(len(gains) / classes / FEW_A_CLASS), 0.0)
    needed = EVIDENCE + MORE_EVIDENCE * float(doublings)
    return min(of_loss, of_accuracy) >= 0 and of_loss + of_accuracy > needed


def _errors(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """How many of its standard errors a mean is above 0."""
    mean, variance = mean_and_variance(values, weights)
    return mean / max(float(np.sqrt(variance)), 1e-9)


def _of_chance(fitted: CrossFitted) -> NDArray[np.float64]:
    """What an answer by the classes' shares alone loses on each example, in nats, shape (n,).

    Where labels are chance, the frozen head may be worse than that, and no tuning is to be kept for being less so.
    """
    rows = fitted.fold_of != LEFT_OUT
    counts = np.bincount(fitted.labels[rows], fitted.weights[rows], minlength=fitted.classes)
    shares = np.maximum(counts / counts.sum(), 1e-12)
    losses: NDArray[np.float64] = -np.log(shares[fitted.labels])
    return losses


def _tried(fitted: CrossFitted, strength: float, measure: Measure) -> tuple[Array, Array, float]:
    """Out-of-fold logits and probabilities of all examples, and the temperature between them."""
    logits = np.zeros((len(fitted.labels), fitted.classes), np.float32)
    for fold, features in enumerate(fitted.by_fold):
        held_out = fitted.fold_of == fold
        of = _map(fitted, features, ~held_out & (fitted.fold_of != LEFT_OUT), strength)
        logits[held_out] = of.logits(features[held_out].astype(np.float32))
    temperature = measure.temperature(logits)
    return logits, softmax(logits / np.float32(temperature)), temperature


def _map(
    fitted: CrossFitted, features: NDArray[np.float16], seen: NDArray[np.bool_], strength: float
) -> LinearMap:
    axes = logistic.principal_axes(features[seen].astype(np.float32))
    solution = logistic.fit(
        axes,
        fitted.labels[seen],
        fitted.weights[seen].astype(np.float32)[None],
        fitted.classes,
        strength=strength,
        start=None,
        soft=None if fitted.soft is None else fitted.soft[seen],
    )
    weight: Array = axes.rotation @ solution.weight[0]
    return LinearMap(weight, solution.bias[0] - axes.centre @ weight)
