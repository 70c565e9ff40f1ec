"""How well a stream is learned: every example is predicted before it is learned (Gama et al. 2013).

The figures need no held-out data, and they are what a user of the interim head would have seen. The same
predictions, each made without knowing its answer, calibrate that head: how sure it is of its best class, how probable
it is that the input's class is unknown, and what counts as strange.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.interim.single_label.class_sums import Discriminant
from graft_server.adapting.interim.single_label.familiarity import Familiarity
from graft_server.adapting.interim.single_label.head import OpenHead, leads
from graft_server.adapting.interim.single_label.sharpness import Sharpness

FADING = 0.995
"""The factor of an example's weight at each later one: the running figure covers about the last 200."""

Array = NDArray[np.float32]


class Prequential:
    """The running record of predictions that were made before their examples were learned."""

    def __init__(self) -> None:
        self.predicted = 0
        """The number of predicted examples, by a head of at least two classes."""
        self._noted = 0
        self._right = 0
        self._faded_right = 0.0
        self._faded = 0.0
        self._sharpness = Sharpness()
        self._familiarity = Familiarity()

    @property
    def accuracy(self) -> float:
        """The share of all predictions that were right, 0 to 1; 0 where there are none."""
        return self._right / self.predicted if self.predicted else 0.0

    @property
    def faded_accuracy(self) -> float:
        """The same with newer predictions counting more: about the last 200."""
        return self._faded_right / self._faded if self._faded else 0.0

    def note(
        self, fitted: Discriminant, features: Array, answers: NDArray[np.int64], share: float, learned: int
    ) -> None:
        """Predicts examples, and takes in how that went, in their order.

        Args:
            fitted: What predicts.
            features: shape (n, d), of the examples.
            answers: shape (n,): the right column; -1 where the class is not among the head's.
            share: The probability of that which was reckoned with; see `unknown_share`.
            learned: How many examples the head had learned.
        """
        kept = self._kept(len(answers))
        self._noted += len(answers)
        nearness = (features @ fitted.directions.T).max(axis=1)
        logits = fitted.map.logits(features)
        lead = leads(logits, self._sharpness.scale(fitted.separation))
        self._familiarity.note((nearness, lead), answers < 0, share, fitted.between, kept)
        if len(fitted.classes) > 1:
            self._count(logits.argmax(axis=1) == answers)
            self._sharpness.note(logits, answers, fitted.separation, learned, kept)

    def head(self, fitted: Discriminant, share: float, learned: int) -> OpenHead:
        """The head of a fit, calibrated.

        Args:
            fitted: The fit.
            share: The probability of an unknown class; see `unknown_share`.
            learned: How many examples it has learned.
        """
        return OpenHead(
            fitted.map,
            self._sharpness.factor(fitted.separation, learned),
            self._sharpness.scale(fitted.separation),
            self._familiarity.unknown(share, fitted.between),
            self._familiarity.novelty(fitted.directions, fitted.between, learned),
        )

    def _count(self, right: NDArray[np.bool_]) -> None:
        self.predicted += len(right)
        self._right += int(right.sum())
        ages = FADING ** np.arange(len(right) - 1, -1, -1.0)
        left = FADING ** len(right)
        self._faded = self._faded * left + float(ages.sum())
        self._faded_right = self._faded_right * left + float(ages[right].sum())

    def _kept(self, rows: int) -> float:
        """The weight that earlier predictions keep: few ones fade at once, since the head changes fast at first."""
        before = self._noted + 1
        return min(before / (before + rows), FADING**rows)
