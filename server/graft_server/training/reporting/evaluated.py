"""Names what the figures of a report were measured on, so that it shows which of two versions can be compared."""

from __future__ import annotations

import hashlib

import numpy as np

from graft_server.domain.report import Evaluation, EvaluationMethod, Report
from graft_server.training.examples.training_set import ClassifiedSet, ExampleSet

_SIZE = 8


def evaluation_digest(examples: ExampleSet, evaluation: Evaluation) -> str:
    """Returns a digest of the examples that a head was measured on, whatever their order; "" if it was not.

    It is equal for the same inputs with the same targets and weights, measured by the same method.

    Args:
        examples: The examples that the head was trained on, and those that were held out.
        evaluation: How it was measured.
    """
    if evaluation.method is EvaluationMethod.NONE:
        return ""
    held_out = evaluation.method is EvaluationMethod.HELD_OUT
    rows = np.flatnonzero(examples.validation == held_out).tolist()
    whole = hashlib.blake2b(str(evaluation.method).encode(), digest_size=_SIZE)
    for part in sorted(_digest(examples, row) for row in rows):
        whole.update(part)
    return whole.hexdigest()


def tuned_digest(before: Report, told: Report, seed: int) -> str:
    """Returns the digest for a tuned version.

    Args:
        before: The report of the version with the same examples that the tuned one was compared with.
        told: The report of the tuned one, which may have been measured on a part of them that was set aside.
        seed: The seed that chose the part.
    """
    if told.evaluation == before.evaluation or told.evaluation.method is EvaluationMethod.NONE:
        return before.evaluation_digest
    part = f"{before.evaluation_digest} set aside {told.evaluation.examples} by {seed}"
    return hashlib.blake2b(part.encode(), digest_size=_SIZE).hexdigest()


def _digest(examples: ExampleSet, row: int) -> bytes:
    one = hashlib.blake2b(examples.input_digests[row], digest_size=_SIZE)
    one.update(f"{examples.weights[row]!r} {examples.target(row)}".encode())
    if isinstance(examples, ClassifiedSet) and examples.soft is not None:
        one.update(examples.soft[row].tobytes())
    return one.digest()
