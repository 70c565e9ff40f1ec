"""What tuning within a time budget gained on the sets that it was measured on: what a report's advice rests on.

`python -m benchmarks.fewshot` measures them through the server. A gain is that of what is served: 0 where a tuning was
tried and not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

LIKE = 0.15
"""Sets are about as hard if the frozen head's accuracies differ by at most this."""
BUDGET_S, FULL_EXAMPLES = 120.0, 500
"""The time budget that is advised, and up to how many examples a tuning takes the same number of steps.

No tuning that was measured took more than 110 s of processor time; the budget was 1,200 s, for other work used
the machine.
"""
FACTOR = 4.0
"""And about as large if the numbers of examples a class differ by at most this factor."""
MEASURED_WITH = "the backbone MiniLM-L6"
"""Another backbone may gain more or less."""
SETS_LEAST = 3
"""From fewer measurements nothing is concluded."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What `auto` gained over the frozen head on one set at one size: means over draws of the training examples."""

    name: str
    a_class: int
    """Examples a class."""
    draws: int
    """Of the training examples."""
    frozen: float
    """The frozen head's accuracy on the test set, 0 to 1."""
    gain: float
    """Of the accuracy of what is served on the test set."""


GAINS: tuple[Gain, ...] = (
    Gain("degrees", 8, 1, 0.282, 0.000),
    Gain("domains", 8, 1, 0.701, 0.000),
    Gain("ekman", 8, 1, 0.407, 0.000),
    Gain("emotions", 8, 1, 0.550, 0.178),
    Gain("films", 8, 1, 0.675, 0.000),
    Gain("negation", 8, 1, 0.522, 0.000),
    Gain("person", 8, 1, 0.617, 0.000),
    Gain("questions", 8, 1, 0.820, 0.180),
    Gain("sentiment", 8, 1, 0.393, 0.000),
    Gain("sms_spam", 8, 1, 0.981, 0.000),
    Gain("specificity", 8, 1, 0.614, 0.000),
    Gain("tense", 8, 1, 0.705, 0.195),
    Gain("tweets", 8, 1, 0.601, 0.000),
    Gain("ways", 8, 1, 0.678, 0.221),
)


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
