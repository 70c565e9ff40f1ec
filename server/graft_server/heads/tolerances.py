"""How far a head's graph, and a bundle, may be off what is served, where float32 does not put it off by more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRAPH_PARITY = 5e-5
"""Of a probability, or of an interval's mean width: half of what a bundle may be off."""
BUNDLE_PARITY = 1e-4
"""The same of a bundle."""
ROUNDING = 2e-6
"""How far float32 may put a strangeness or a value off, as a share of the largest: 16 units in the last place. Where
the novelty's table is steep, that alone can move the novelty by more than `graph_parity` accepts otherwise."""
CLEAR_MARGIN = 1e-3
"""Where the two best labels differ by more, the bundle must answer with the same one."""


def told_apart(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rows, shape (n,), whose best label is not another one by rounding."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), bool)
    best = np.sort(probabilities, axis=1)
    told: NDArray[np.bool_] = best[:, -1] - best[:, -2] > CLEAR_MARGIN
    return told
