"""How well a stream is learned: every example is predicted before it is learned (Gama et al. 2013).

The figures need no held-out data, and they are what a user of the interim head would have seen. The same
predictions, each made without knowing its answer, calibrate that head: its temperature, and what counts as
strange.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import softmax
from graft_server.heads.novelty import Novelty, combined, table

FADING = 0.995
"""The factor of an example's weight at each later one: the running figure covers about the last 200."""
TEMPERATURES = np.geomspace(0.25, 64, 25).astype(np.float32)
"""The temperatures that are compared."""
FIRST_TEMPERATURE = 4.0
"""Before there are enough predictions to choose by."""
ENOUGH = 20
"""Predictions before temperature and novelty are taken from them."""
CALIBRATED_AT_ONCE = 64
"""Rows of a step that the temperatures are compared on."""
REMEMBERED = 512
"""Predictions that novelty is measured by."""

Array = NDArray[np.float32]


class Prequential:
    """The running record of predictions that were made before their examples were learned."""

    def __init__(self) -> None:
        self.predicted = 0
        """The number of predicted examples."""
        self._right = 0
        self._faded_right = 0.0
        self._faded = 0.0
        self._losses = np.zeros(len(TEMPERATURES))
        self._compared = 0
        self._logits: Array = np.zeros(0, np.float32)
        self._similarities: Array = np.zeros(0, np.float32)

    @property
    def accuracy(self) -> float:
        """The share of all predictions that were right, 0 to 1; 0 where there are none."""
        return self._right / self.predicted if self.predicted else 0.0

    @property
    def faded_accuracy(self) -> float:
        """The same with newer predictions counting more: about the last 200."""
        return self._faded_right / self._faded if self._faded else 0.0

    @property
    def temperature(self) -> float:
        """The divisor of the logits."""
        if self._compared < ENOUGH:
            return FIRST_TEMPERATURE
        return float(TEMPERATURES[int(self._losses.argmin())])

    def note(self, logits: Array, similarities: Array, answers: NDArray[np.int64]) -> None:
        """Takes in predictions, in the order of their examples.

        Args:
            logits: shape (n, k).
            similarities: shape (n,): the largest product with a class's direction.
            answers: shape (n,): the right column; -1 where the class was not known yet.
        """
        right = logits.argmax(axis=1) == answers
        self.predicted += len(answers)
        self._right += int(right.sum())
        ages = FADING ** np.arange(len(answers) - 1, -1, -1.0)
        left = FADING ** len(answers)
        self._faded = self._faded * left + float(ages.sum())
        self._faded_right = self._faded_right * left + float(ages[right].sum())
        known = answers >= 0
        self._compare(logits[known], answers[known])
        self._logits = np.append(self._logits, logits[known].max(axis=1, initial=-np.inf))[-REMEMBERED:]
        self._similarities = np.append(self._similarities, similarities[known])[-REMEMBERED:]

    def novelty(self, directions: Array) -> Novelty:
        """Novelty around the classes' directions, shape (k, d). Nothing is strange before `ENOUGH` predictions."""
        anchors = directions.astype(np.float16)
        if len(self._logits) < ENOUGH:
            nothing = np.zeros(2, np.float32)
            return Novelty(anchors, 1.0, 1.0, np.array([0, 1], np.float32), nothing)
        logit_scale = float(self._logits.std()) or 1.0
        similarity_scale = float(self._similarities.std()) or 1.0
        strangeness = combined(self._logits, self._similarities, logit_scale, similarity_scale)
        return Novelty(anchors, logit_scale, similarity_scale, *table(strangeness))

    def _compare(self, logits: Array, answers: NDArray[np.int64]) -> None:
        logits, answers = logits[-CALIBRATED_AT_ONCE:], answers[-CALIBRATED_AT_ONCE:]
        if not len(answers):
            return
        rows = np.arange(len(answers))
        losses = [
            -np.log(np.maximum(softmax(logits / temperature)[rows, answers], 1e-7)).sum()
            for temperature in TEMPERATURES
        ]
        self._losses = self._losses * FADING ** len(answers) + losses
        self._compared += len(answers)
