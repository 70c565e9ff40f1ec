"""How good answers with one label are."""

from __future__ import annotations

import numpy as np

from graft_server.domain.examples import Task
from graft_server.domain.report import Measured
from graft_server.evaluation.answered import Answered, carried_by_some
from graft_server.evaluation.figures import class_reports, confusions, figures


def measure(answered: Answered) -> Measured:
    """The figures of answers with "probabilities", (n, k)."""
    names, column = answered.names()
    # All labels that the version does not know share one more column: their probability is 0, and there may be many.
    known = len(answered.labels)
    soft = np.zeros((len(answered.examples), known + 1), np.float32)
    labels = np.zeros(len(soft), np.int32)
    for place, example in enumerate(answered.examples):
        shares = [(column[it.label], it.probability) for it in example.distribution or ()]
        if example.label is not None:
            shares = [(column[example.label], 1.0)]
        for one, probability in shares:
            soft[place, min(one, known)] += probability
        labels[place] = min(shares, key=lambda it: (-it[1], it[0]))[0] if shares else 0
    probabilities = answered.padded("probabilities", known + 1)
    predicted = probabilities.argmax(axis=1)
    none = np.zeros(len(names), np.int64)
    return Measured(
        Task.SINGLE_LABEL,
        len(labels),
        figures(probabilities, labels, answered.weights, soft, bound=answered.bound()),
        carried_by_some(class_reports(names, none, labels, predicted, answered.weights)),
        confusions(names, labels, predicted),
    )
