"""What training settles on, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import Report
from graft_server.heads import Head
from graft_server.training.examples.folded import Examples

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What selection settled on."""

    head: Head
    report: Report
    """Without the identity that its caller adds: backbone, encoder, time, duration."""
    examples: Examples | None = None
    """What it was chosen on; None: there were none."""
    out_of_fold: Array | None = None
    """shape (n, k): probabilities of these by heads like it, each trained without the example's fold."""
