"""What parts of a training are expected to take, in seconds on two processors of a small server.

Only their ratios count for how far a training is told to be, and what a server measures of its own trainings corrects
the seconds. The factors are from 3,000 and 10,003 examples of Banking77 (77 classes, views of 384 to 1,152 numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.training.solvers.kernel import MAX_LANDMARKS, RIDGES

_CELL = 0.9e-9
"""For each example, feature, class and fold of logistic regression."""
_AXES = 3e-11
"""For each example and pair of features whose principal axes are sought."""
_DECOMPOSED = 2.5e-10
"""For each triple of features, or of landmarks, of what is decomposed."""
_LANDMARK = 4e-11
"""For each example and pair of landmarks of kernel regression."""
_SCORED = 2e-9
"""For each example, landmark and class or so that kernel regression scores."""
COMPARED_S = 10.0
"""For comparing features of a reduced precision with those in float32."""
EXAMPLE = 1e-4
"""For each example that is read, looked at for copies, or reported on."""


def axes(examples: int, width: int) -> float:
    """Of finding the principal axes of features."""
    less = min(examples, width)
    return examples * width * less * _AXES + less**3 * _DECOMPOSED


def logistic(examples: int, width: int, outputs: int, folds: int) -> float:
    """Of one strength of logistic regression, out of fold."""
    return examples * width * outputs * folds * _CELL


def kernel_sums(examples: int) -> float:
    """Of what all penalties of kernel regression share."""
    landmarks = min(examples, MAX_LANDMARKS)
    return examples * landmarks**2 * _LANDMARK + landmarks**3 * _DECOMPOSED / 10


def kernel(examples: int, width: int, outputs: int, folds: int) -> float:
    """Of one penalty of kernel regression, out of fold."""
    landmarks = min(examples, MAX_LANDMARKS)
    return folds * landmarks**3 * _DECOMPOSED / 20 + examples * landmarks * (width + outputs) * _SCORED / 50


def curve(examples: int, width: int, outputs: int) -> float:
    """Of the learning curve's heads, on two folds."""
    return 2 * logistic(examples, width, outputs, 1) + 3 * axes(examples, width)


def figures(examples: int) -> float:
    """Of a part of the report that looks at each example."""
    return examples * EXAMPLE / 5


def checking(examples: int) -> float:
    """Of looking for copies and near copies."""
    return examples * EXAMPLE


def fitting(examples: int, width: int, outputs: int) -> float:
    """Of fitting the chosen head on all examples, and finding what is familiar to it."""
    return logistic(examples, width, outputs, 1) + examples * EXAMPLE / 2


@dataclass(frozen=True, slots=True)
class Trials:
    """What the heads take that are tried on some examples."""

    examples: int
    outputs: int
    folds: int

    @property
    def simple(self) -> float:
        """Of prototypes."""
        return self.examples * EXAMPLE / 10

    def first(self, width: int) -> float:
        """Of the first, rough logistic regression in a view, with its axes."""
        return axes(self.examples, width) + 0.7 * self.strength(width)

    def strength(self, width: int) -> float:
        """Of a further strength of it."""
        return logistic(self.examples, width, self.outputs, self.folds)

    def kernels(self, width: int, penalties: int = len(RIDGES)) -> list[float]:
        """Of kernel regression, for each of its penalties: the first has what all share."""
        one = kernel(self.examples, width, self.outputs, self.folds)
        return [one + kernel_sums(self.examples), *[one] * (penalties - 1)]


def planned(examples: int, outputs: int, width: int) -> dict[str, float]:
    """What the stages of a selection are expected to take.

    Args:
        examples: How many there are.
        outputs: How many classes, or labels; 1 for a value.
        width: How many features an example has in the views together.
    """
    folds = 5
    trials = Trials(examples, outputs, folds)
    return {
        "checking": checking(examples),
        "selecting": 2 * trials.first(width) + 3 * trials.strength(width) + sum(trials.kernels(width)),
        "fitting": fitting(examples, width, outputs),
        "measuring": curve(examples, width, outputs) + 2 * figures(examples),
    }
