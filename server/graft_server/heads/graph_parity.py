"""Checks that a head's ONNX graph computes the same as the served head; otherwise nothing is published."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.errors import FaultError
from graft_server.heads import rounding
from graft_server.heads.head import Head
from graft_server.heads.novelty import Novelty
from graft_server.heads.rounding import ROUNDING
from graft_server.onnx_runtime import onnxruntime

ROWS = 2000
"""The rows that are compared: these many, evenly spread, tell two heads apart, and take milliseconds."""
NOVELTY_PARITY = 1e-4
Array = NDArray[np.float32]


def check_parity(head: Head, graph: bytes, features: NDArray[np.float16]) -> None:
    """Raises FaultError unless the ONNX graph computes the same as the head on features of shape (n, d)."""
    finite = features[np.isfinite(features).all(axis=1)]
    every = max(1, -(-len(finite) // ROWS))
    rows = finite[::every].astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a tiny graph: threads cost more than they save
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    served = head.scores(rows)
    names = list(served.__dataclass_fields__)
    computed = dict(zip(names, session.run(names, {"features": rows}), strict=True))
    allowed = _allowed(head, rows)
    wrong = []
    for name in (it for it in names if it in allowed):
        off = np.abs(computed[name] - getattr(served, name))
        if not (off <= allowed[name]).all():  # the negation makes NaN fail too
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
    if head.decides_otherwise(rows, computed, allowed):
        raise FaultError(
            "The new version's ONNX graph selects other labels than the head that would be served. Nothing was "
            "published. Commit again; if it fails again, report it.",
            reason="HEAD_PARITY",
        )


def _allowed(head: Head, rows: Array) -> dict[str, Array]:
    """Returns the allowed error of each output, in the output's shape: larger where the summed terms are large."""
    answers, novelty = rounding.allowance(head, rows)
    by = NOVELTY_PARITY + _rounding(head.novelty) + novelty
    return {**head.graph_allowance(rows, answers), "novelty": by}


def _rounding(novelty: Novelty) -> float:
    """Returns the novelty's error from rounding alone."""
    steepest = (np.diff(novelty.shares) / np.diff(novelty.knots)).max()
    return float(ROUNDING * np.abs(novelty.knots).max() * steepest)
