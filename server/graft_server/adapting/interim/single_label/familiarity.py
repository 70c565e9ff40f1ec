"""How near an input is to what the stream has shown: whether its class may be unknown, and whether it is foreign.

An input's nearness is its largest product with a class's direction. Examples of classes that the head does not know
are about as near as its classes are to each other, which gives the nearness a zero before any example was predicted;
examples of known classes are nearer. By Bayes' rule the nearness of an input corrects the probability that its class
is unknown. How much nearer, and how far the urn's probability is off, is learned from predictions that were made
before their examples were learned, on a grid with a prior.

Novelty is the share of the stream's examples that were less strange when they came: nearer, and, the better the
classes are learned, with a larger lead of the best one. With few examples it leans on a Student's t distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.novelty import MAX_KNOTS, Novelty

GAINS = np.array([0, 0.5, 1, 1.5, 2, 3, 4])
"""How many deviations nearer examples of known classes may be than others."""
USUAL_GAIN, GAIN_DEVIATION = 1.5, 0.6
"""The prior of the gain."""
SHIFTS = np.array([-1.2, -0.8, -0.4, 0, 0.4, 0.8, 1.2])
"""By how much the log-odds of an unknown class may be off."""
SHIFT_DEVIATION = 0.4
"""The prior of the shift, around 0."""
USUAL_DEVIATION, DEVIATION_ROWS = 0.1, 2.0
"""The standard deviation of nearness before it is known, and the rows that this counts for."""
OFFSET_ROWS = 4.0
"""The rows that say that examples of unknown classes are as near as the classes are to each other."""
MEMORY = 0.98
"""The factor of a row's weight, in offset and deviation, at each later one."""
MOST = 1 - 1e-4
"""The largest probability of an unknown class that is reckoned with before nearness is looked at."""
REMEMBERED = 512
"""The rows that novelty is measured by."""
RECENT = 16
"""Of these, the later half counts, and at least so many: as the head learns, examples become less strange to it."""
NOVELTY_ROWS = 8.0
"""The rows that the t distribution counts for."""
LEAD, LEAD_AFTER = 0.12, 32
"""What a lead of one standard deviation counts for, in nearness, after many examples; half of it after so many."""
USUAL_LEAD = 1.5
"""The lead before examples were seen."""
LEVELS = np.unique(np.concatenate([np.linspace(0.01, 0.99, MAX_KNOTS // 2), 1 - np.geomspace(0.1, 1e-3, 16)]))
"""The shares that novelty's table has knots for."""
ALONE, ALONE_DEVIATION = 0.2, 0.15
"""Nearness to a single class before examples were seen beside it."""

Array = NDArray[np.float32]
Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """The probability that an input's class is unknown, by the input's nearness."""

    share: float
    """The probability for any input of the stream; 0 where it cannot be."""
    weights: Wide
    """shape (gains, shifts): how probable each pair is; they sum to 1."""
    zero: float | None
    """The nearness that examples of unknown classes have; None where that is not known."""
    deviation: float
    """The standard deviation of their nearness."""

    def chances(self, nearness: Array) -> Array:
        """The probabilities for inputs, shape (n,), from their nearness, shape (n,)."""
        if not self.share:
            return np.zeros(len(nearness), np.float32)
        mean: Array = np.einsum("gs,gsn->n", self.weights, self.by_pair(nearness)).astype(np.float32)
        return mean

    def by_pair(self, nearness: Array) -> Wide:
        """The probabilities by each gain and shift, shape (gains, shifts, n)."""
        odds = (self.share / (1 - self.share) * np.exp(SHIFTS))[None, :, None]
        if self.zero is None:
            return np.broadcast_to(odds / (1 + odds), (len(GAINS), len(SHIFTS), len(nearness)))
        nearer = np.clip((nearness - self.zero) / self.deviation, -4, 8)
        gains = GAINS[:, None]
        ratio = np.exp(np.clip(gains * nearer - gains**2 / 2, -20, 20))[:, None, :]
        chances: Wide = odds / (odds + ratio)
        return chances


class Familiarity:
    """What has been learned of nearness."""

    def __init__(self) -> None:
        self._losses = np.zeros((len(GAINS), len(SHIFTS)))
        self._prior = 0.5 * ((GAINS[:, None] - USUAL_GAIN) / GAIN_DEVIATION) ** 2
        self._prior = self._prior + 0.5 * (SHIFTS / SHIFT_DEVIATION) ** 2
        self._rows = self._offsets = self._squares = 0.0
        self._seen: Wide = np.zeros(0)
        self._leads: Wide = np.zeros(0)
        self._seen_alone: Wide = np.zeros(0)

    def unknown(self, share: float, between: float | None) -> Unknown:
        """What is known of unknown classes.

        Args:
            share: The probability of one for any input of the stream.
            between: The head's; see `Discriminant`.
        """
        chance = -self._losses - self._prior
        weights = np.exp(chance - chance.max())
        variance = (USUAL_DEVIATION**2 * DEVIATION_ROWS + self._squares) / (DEVIATION_ROWS + self._rows)
        zero = None if between is None else between + self._offset
        return Unknown(min(share, MOST), weights / weights.sum(), zero, float(np.sqrt(variance)))

    def note(
        self,
        seen: tuple[Array, Array],
        new: NDArray[np.bool_],
        share: float,
        between: float | None,
        kept: float,
    ) -> None:
        """Takes in predictions.

        Args:
            seen: Nearness and the best class's lead, shape (n,) each.
            new: shape (n,): whether the class was unknown.
            share: The probability of it that was reckoned with.
            between: Of the head that made them.
            kept: The weight that earlier predictions keep.
        """
        nearness, leads = seen
        self._losses *= kept
        if share:
            chances = self.unknown(share, between).by_pair(nearness)
            self._losses -= np.log(np.where(new, chances, 1 - chances) + 1e-6).sum(axis=2)
        if between is None:
            self._seen_alone = np.append(self._seen_alone, nearness.astype(np.float64))[-REMEMBERED:]
            return
        above = nearness.astype(np.float64) - between
        self._seen = np.append(self._seen, above)[-REMEMBERED:]
        self._leads = np.append(self._leads, leads.astype(np.float64))[-REMEMBERED:]
        offset, faded, unknown = self._offset, MEMORY ** len(nearness), above[new]
        self._squares = self._squares * faded + float(((unknown - offset) ** 2).sum())
        self._offsets = self._offsets * faded + float(unknown.sum())
        self._rows = self._rows * faded + len(unknown)

    def novelty(self, directions: Array, between: float | None, learned: int) -> Novelty:
        """Novelty around the classes' directions, shape (k, d), of a head that has learned so many examples."""
        anchors, weight = directions.astype(np.float16), LEAD * learned / (learned + LEAD_AFTER)
        if between is None:
            return Novelty(anchors, np.inf, 1.0, *shares(-self._seen_alone, -ALONE, ALONE_DEVIATION))
        late = slice(-max(len(self._seen) // 2, RECENT), None)
        familiar = self._seen[late] + between + weight * self._leads[late]
        usual = between + USUAL_DEVIATION / 2 + weight * USUAL_LEAD
        return Novelty(anchors, 1 / weight, 1.0, *shares(-familiar, -usual, USUAL_DEVIATION))

    @property
    def _offset(self) -> float:
        return self._offsets / (self._rows + OFFSET_ROWS)


def shares(strangeness: Wide, usual: float, deviation: float) -> tuple[Array, Array]:
    """Knots and shares of novelty, from the strangeness of examples, shape (n,), n >= 0.

    Args:
        strangeness: Of examples.
        usual: What is expected of it before there are any.
        deviation: The standard deviation that is expected.
    """
    n = len(strangeness)
    weights = n / (n + DEVIATION_ROWS)
    centre = usual if not n else float((strangeness.sum() + usual) / (n + 1))
    variance = (1 - weights) * deviation**2 + weights * (float(strangeness.var()) if n else 0.0)
    scale, freedom = math.sqrt(variance * (1 + 1 / (n + 1))), n + 3
    values = centre + scale * student_quantiles(LEVELS, freedom)
    if n:
        values = np.concatenate([values, np.quantile(strangeness, LEVELS)])
    knots = np.unique(values.astype(np.float32))
    below = np.searchsorted(np.sort(strangeness), knots, side="right") if n else np.zeros(len(knots))
    share = (below + NOVELTY_ROWS * student_shares((knots.astype(np.float64) - centre) / scale, freedom)) / (
        n + NOVELTY_ROWS
    )
    return knots, share.astype(np.float32)


def student_shares(values: Wide, freedom: int) -> Wide:
    """The cumulative t distribution, shape (n,): as that of a normal one (Wallace 1959), to 0.002 from 3 degrees on."""
    size = np.sqrt(freedom * np.log1p(values**2 / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    normal = [0.5 * (1 + math.erf(it / math.sqrt(2))) for it in np.copysign(size, values).tolist()]
    return np.array(normal)


def student_quantiles(levels: Wide, freedom: int) -> Wide:
    """The inverse of `student_shares`."""
    normal = np.array([NormalDist().inv_cdf(level) for level in levels.tolist()])
    size = np.sqrt(freedom * np.expm1((normal * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom))
    quantiles: Wide = np.copysign(size, normal)
    return quantiles
