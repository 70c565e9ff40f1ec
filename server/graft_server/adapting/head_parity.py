"""Whether a head's ONNX graph computes what the served head does: nothing is published that does not."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.errors import FaultError
from graft_server.heads import AnyHead, MultiLabelHead, Novelty, RegressionHead

ROWS = 2000
"""So many rows, evenly spread, are enough to tell two heads apart, and take milliseconds."""
PROBABILITY_PARITY = 5e-5
"""Half of what a bundle may be off. Float32 alone puts a kernel head over 2,000 landmarks off by 1.5e-5."""
NOVELTY_PARITY = 1e-4
VALUE_PARITY = 5e-5
"""Of an interval's mean width."""
ROUNDING = 2e-6
"""How far float32 may put a strangeness or a value off, as a share of the largest: 16 units in the last place. Where
the novelty's table is steep, that alone can move the novelty by more than NOVELTY_PARITY."""


def check_parity(head: AnyHead, graph: bytes, features: NDArray[np.float16]) -> None:
    """Raises FaultError unless the ONNX graph computes what the head does on features of shape (n, d)."""
    finite = features[np.isfinite(features).all(axis=1)]
    every = max(1, -(-len(finite) // ROWS))
    rows = finite[::every].astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a tiny graph: threads cost more than they give
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    served = head.scores(rows)
    names = [name for name in served.__dataclass_fields__ if name != "selected"]
    computed = dict(zip(names, session.run(names, {"features": rows}), strict=True))
    allowed = _allowed(head, rows)
    off = {name: float(np.abs(computed[name] - getattr(served, name)).max(initial=0)) for name in names}
    wrong = [name for name in names if not off[name] <= allowed[name]]  # so said, NaN fails too
    if wrong:
        found = ", ".join(
            f"{it} by up to {off[it]:.1e} (at most {allowed[it]:.0e} is accepted)" for it in names
        )
        raise FaultError(
            f"The new version's ONNX graph does not agree with the head that would be served: {found}. Nothing was "
            "published. Commit again; if it fails again, report it.",
            reason="HEAD_PARITY",
        )
    if isinstance(head, MultiLabelHead):
        _check_selected(head, session, rows)


def _allowed(head: AnyHead, rows: NDArray[np.float32]) -> dict[str, float]:
    """How far each output may be off."""
    allowed = {"probabilities": PROBABILITY_PARITY, "novelty": NOVELTY_PARITY + _rounding(head.novelty)}
    if isinstance(head, RegressionHead):
        output = head.scores(rows)
        size = float(np.abs(output.value).max(initial=0))
        by = VALUE_PARITY * float((output.high - output.low).mean()) + ROUNDING * size
        allowed |= dict.fromkeys(("value", "low", "high"), by)
    return allowed


def _check_selected(
    head: MultiLabelHead, session: onnxruntime.InferenceSession, rows: NDArray[np.float32]
) -> None:
    """Raises FaultError unless the same labels are selected wherever the probabilities are not at the very edge."""
    output = head.scores(rows)
    (selected,) = session.run(["selected"], {"features": rows})
    best = np.sort(output.probabilities, axis=1)
    tied = best[:, -1:] - best[:, -2:-1] <= 2 * PROBABILITY_PARITY
    edge = (np.abs(output.probabilities - head.thresholds) <= PROBABILITY_PARITY).any(axis=1, keepdims=True)
    if ((selected != output.selected) & ~edge & ~tied).any():
        raise FaultError(
            "The new version's ONNX graph selects other labels than the head that would be served. Nothing was "
            "published. Commit again; if it fails again, report it.",
            reason="HEAD_PARITY",
        )


def _rounding(novelty: Novelty) -> float:
    """How far rounding alone can put the novelty off."""
    steepest = (np.diff(novelty.shares) / np.diff(novelty.knots)).max()
    return float(ROUNDING * np.abs(novelty.knots).max() * steepest)
