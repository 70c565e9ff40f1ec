"""What tuning within a time budget gained on the sets that it was measured on: what a report's advice rests on.

`benchmarks.fewshot` measures them through the server, and `benchmarks/results/fewshot.md` has the method. A gain is
that of what is served: 0 where a tuning was tried and not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

LIKE = 0.15
"""Sets are about as hard if the frozen head's accuracies differ by at most this."""
FACTOR = 4.0
"""And about as large if the numbers of examples a class differ by at most this factor."""
MEASURED_WITH = "the backbone MiniLM-L6"
"""Another backbone may gain more or less."""
SETS_LEAST = 3
"""From fewer measurements nothing is concluded."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What tuning gained on one set at one size: means over draws of the training examples."""

    name: str
    a_class: int
    """Examples a class."""
    examples: int
    """In all."""
    frozen: float
    """The frozen head's accuracy on the test set, 0 to 1."""
    gain: float
    """Of the accuracy of what is served."""
    seconds: float
    """What tuning took, on two cores."""


GAINS: tuple[Gain, ...] = ()


def gains_like(a_class: float, frozen: float) -> list[Gain]:
    """The measurements of sets that are about as hard and as large.

    Args:
        a_class: The mean number of examples a class.
        frozen: The frozen head's accuracy, 0 to 1.
    """
    return [
        it
        for it in GAINS
        if abs(it.frozen - frozen) <= LIKE and it.a_class / FACTOR <= a_class <= it.a_class * FACTOR
    ]
