"""How good values and their intervals are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Task
from graft_server.domain.report import CONFIDENCE, Measured, RegressionFigures
from graft_server.evaluation.answered import Answered


def figures(
    predicted: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    confidence: float,
) -> RegressionFigures:
    """The figures of n predictions, each array of shape (n,); 0 without weight."""
    total = float(weights.sum())
    if not total > 0:
        return RegressionFigures(0.0, 0.0, 0.0, confidence, 0.0, 0.0, 0.0, 0.0)
    shares = weights / total
    off = predicted - values
    mean = float(shares @ values)
    variance = float(shares @ (values - mean) ** 2)
    squared = float(shares @ off**2)
    return RegressionFigures(
        rmse=squared**0.5,
        mae=float(shares @ np.abs(off)),
        r2=1 - squared / variance if variance > 0 else 0.0,
        confidence=confidence,
        coverage=float(shares @ ((low <= values) & (values <= high))),
        interval_width=float(shares @ (high - low)),
        mean=mean,
        deviation=variance**0.5,
    )


def measure(answered: Answered) -> Measured:
    """The figures of answers with "value", "low" and "high", (n,)."""
    values = np.array([example.value for example in answered.examples], np.float64)
    predicted, low, high = (answered.outputs[name].astype(np.float64) for name in ("value", "low", "high"))
    found = figures(predicted, low, high, values, answered.weights, confidence=CONFIDENCE)
    return Measured(Task.REGRESSION, len(values), regression=found)
