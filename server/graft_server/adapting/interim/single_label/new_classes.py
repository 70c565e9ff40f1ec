"""How probable it is that the next input belongs to a class that the head does not know.

Examples are seen as draws from an urn of K classes whose shares come from a symmetric Dirichlet distribution of
concentration a. Neither is known: both are averaged over, each pair weighed by how probable it makes the counts of
the classes so far (the problem of Good 1953; with K and a given, the answer is a ratio). One example says little,
four of one class speak for few classes, four of four classes for many.

Examples that arrive class by class are no draws: of those that repeat the class before them oftener than chance
explains, only a part counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_CLASSES = 2
"""The least that a task has."""
FURTHER = np.unique(np.concatenate([np.arange(24), np.geomspace(24, 1_000, 24).astype(np.int64)]))
"""How many classes there may be beside those that are known of: every small number, so that none at all is possible
whatever was seen, and some of the large ones."""
SPANS = np.gradient(FURTHER.astype(np.float64))
"""How many numbers each of them stands for."""
CLASSES_EXPONENT = -1.0
"""The prior probability of a number of classes falls with its inverse; where labels are declared, with the inverse of
how many there are beside them."""
CONCENTRATIONS = np.array([0.3, 1.0, 3.0, 30.0])
"""From shares of very different sizes to equal ones."""
DECLARED_COMPLETE = 0.95
"""The prior probability that labels which were declared are all there are."""
CHANCE_DEVIATIONS = 2.0
"""The standard deviations by which repeats exceed those of a random order before they count as more than chance."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the classes at some moment."""

    counts: Counts
    """shape (k,): the examples of each class that the head answers with; 0 where a class has a name only."""
    declared: int = 0
    """How many labels were declared, whether the head answers with them or not."""
    undeclared: int = 0
    """How many classes have examples and were not declared."""
    closed: bool = False
    """Whether there are no labels but the declared ones."""


@dataclass(slots=True)
class Arrivals:
    """How often an example is of the class of the example before it."""

    examples: int = 0
    repeats: int = 0
    last: int = -1

    def note(self, number: int) -> None:
        """Takes in the class of the next example."""
        self.examples += 1
        self.repeats += number == self.last
        self.last = number

    def drawn(self, counts: Counts) -> Counts:
        """The examples of each class that count as draws, shape (k,): at least 1 of each that has some."""
        total = float(counts.sum())
        if total < 2 or not self.repeats:
            return counts
        chance = float((counts * (counts - 1)).sum()) / total / (total - 1)
        expected = (self.examples - 1) * chance
        slack = CHANCE_DEVIATIONS * float(np.sqrt(max(expected * (1 - chance), 1.0)))
        kept = 1 - max(self.repeats - expected - slack, 0.0) / self.repeats
        return np.where(counts > 1, 1 + (counts - 1) * kept, counts)


def unknown_share(known: Known) -> float:
    """The probability that the next example belongs to a class that the head does not answer with."""
    total = float(known.counts.sum())
    classes, weights = _possible(known)
    counts = known.counts[known.counts > 0, None]
    mass = classes[:, None] * CONCENTRATIONS
    undeclared = (classes - known.declared).astype(np.float64)
    chance = (
        (weights + log_gamma(undeclared + 1) - log_gamma(undeclared - known.undeclared + 1))[:, None]
        + log_gamma(mass)
        - log_gamma(mass + total)
        + (log_gamma(counts + CONCENTRATIONS) - log_gamma(CONCENTRATIONS)).sum(axis=0)
    )
    posterior = np.exp(chance - chance.max())
    unknown = (classes[:, None] - len(known.counts)) * CONCENTRATIONS / (total + mass)
    return float((posterior * unknown).sum() / posterior.sum())


def _possible(known: Known) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of classes that are possible, and the logarithms of their prior weights."""
    if known.closed:
        return np.array([known.declared]), np.zeros(1)
    classes = max(known.declared + known.undeclared, len(known.counts), LEAST_CLASSES) + FURTHER
    weights = SPANS * (classes - max(known.declared, 1) + 1.0) ** CLASSES_EXPONENT
    if known.declared > 1 and classes[0] == known.declared:
        weights[0] = weights[1:].sum() * DECLARED_COMPLETE / (1 - DECLARED_COMPLETE)
    return classes, np.log(weights)


def log_gamma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the gamma function of numbers above 0, to 1e-9: Stirling's series, eight steps further on.

    NumPy has none, and the serving process does without SciPy.
    """
    steps = np.zeros_like(values)
    for step in range(8):
        steps += np.log(values + step)
    x = values + 8
    series = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    result: NDArray[np.float64] = (x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + series - steps
    return result
