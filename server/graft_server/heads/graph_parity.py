"""Whether a head's ONNX graph computes what the served head does: nothing is published that does not."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.domain.errors import FaultError
from graft_server.heads import AnyHead, MultiLabelHead, Novelty, RegressionHead, rounding

ROWS = 2000
"""So many rows, evenly spread, are enough to tell two heads apart, and take milliseconds."""
PROBABILITY_PARITY = 5e-5
"""Half of what a bundle may be off, where float32 does not put a head off by more."""
NOVELTY_PARITY = 1e-4
VALUE_PARITY = 5e-5
"""Of an interval's mean width."""
ROUNDING = 2e-6
"""How far float32 may put a strangeness or a value off, as a share of the largest: 16 units in the last place. Where
the novelty's table is steep, that alone can move the novelty by more than NOVELTY_PARITY."""

Array = NDArray[np.float32]


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
    wrong = []
    for name in names:
        off = np.abs(computed[name] - getattr(served, name))
        if not (off <= allowed[name]).all():  # so said, NaN fails too
            worst = np.unravel_index(np.argmax(off / allowed[name]), off.shape)
            wrong.append(
                f"{name} by up to {off[worst]:.1e} (at most {allowed[name][worst]:.0e} is accepted there)"
            )
    if wrong:
        raise FaultError(
            "The new version's ONNX graph does not agree with the head that would be served: "
            f"{', '.join(wrong)}. Nothing was published. Commit again; if it fails again, report it.",
            reason="HEAD_PARITY",
        )
    if isinstance(head, MultiLabelHead):
        _check_selected(head, session, rows, allowed["probabilities"])


def _allowed(head: AnyHead, rows: Array) -> dict[str, Array]:
    """How far each output may be off, of the output's shape: more where what is summed is large."""
    answers, novelty = rounding.allowance(head, rows)
    allowed = {"novelty": NOVELTY_PARITY + _rounding(head.novelty) + novelty}
    if isinstance(head, RegressionHead):
        output = head.scores(rows)
        size = float(np.abs(output.value).max(initial=0))
        by = VALUE_PARITY * float((output.high - output.low).mean()) + ROUNDING * size
        allowed |= dict.fromkeys(("value", "low", "high"), by + answers[:, 0])
    else:
        allowed["probabilities"] = np.maximum(np.float32(PROBABILITY_PARITY), answers)
    return allowed


def _check_selected(
    head: MultiLabelHead, session: onnxruntime.InferenceSession, rows: Array, allowed: Array
) -> None:
    """Raises FaultError unless the same labels are selected wherever the probabilities are not at the very edge."""
    output = head.scores(rows)
    (selected,) = session.run(["selected"], {"features": rows})
    best = np.sort(output.probabilities, axis=1)
    tied = best[:, -1:] - best[:, -2:-1] <= 2 * allowed.max(axis=1, keepdims=True)
    edge = (np.abs(output.probabilities - head.thresholds) <= allowed).any(axis=1, keepdims=True)
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
