"""Whether a head's ONNX graph computes what the head does: asked before a version is written."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.errors import FaultError
from graft_server.heads import Head, Novelty

PARITY_ROWS = 2000
"""So many rows, evenly spread, are enough to tell two heads apart, and take milliseconds."""
PROBABILITY_PARITY = 5e-5
"""Half of what a bundle may be off. Float32 alone puts a kernel head over 2,000 landmarks off by 1.5e-5."""
NOVELTY_PARITY = 1e-4
ROUNDING = 2e-6
"""How far float32 may put a strangeness off, as a share of the largest: 16 units in the last place. Where the
novelty's table is steep, that alone can move the novelty by more than NOVELTY_PARITY."""


def check_parity(head: Head, graph: bytes, features: NDArray[np.float16]) -> None:
    """Raises FaultError unless the ONNX graph computes what the head does on features of shape (n, d)."""
    finite = features[np.isfinite(features).all(axis=1)]
    every = max(1, -(-len(finite) // PARITY_ROWS))
    rows = finite[::every].astype(np.float32)
    served = head.scores(rows)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a tiny graph: threads cost more than they give
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    probabilities, novelty = session.run(["probabilities", "novelty"], {"features": rows})
    off = float(np.abs(probabilities - served.probabilities).max(initial=0))
    novelty_off = float(np.abs(novelty - served.novelty).max(initial=0))
    allowed = NOVELTY_PARITY + _rounding(head.novelty)
    if not (off <= PROBABILITY_PARITY and novelty_off <= allowed):  # so said, NaN fails too
        raise FaultError(
            "The new version's ONNX graph does not agree with the head that would be served: probabilities "
            f"differ by up to {off:.1e} (at most {PROBABILITY_PARITY:.0e} is accepted), novelty by up to "
            f"{novelty_off:.1e} ({allowed:.0e}). Nothing was published. Commit again; if it fails again, "
            "report it.",
            reason="HEAD_PARITY",
        )


def _rounding(novelty: Novelty) -> float:
    """How far rounding alone can put the novelty off."""
    steepest = (np.diff(novelty.shares) / np.diff(novelty.knots)).max()
    return float(ROUNDING * np.abs(novelty.knots).max() * steepest)
