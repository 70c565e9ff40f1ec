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
    soft = np.zeros((len(answered.examples), len(names)), np.float32)
    for row, example in zip(soft, answered.examples, strict=True):
        if example.label is not None:
            row[column[example.label]] = 1
        for share in example.distribution or ():
            row[column[share.label]] = share.probability
    labels = soft.argmax(axis=1).astype(np.int32)
    probabilities = answered.padded("probabilities", len(names))
    predicted = probabilities.argmax(axis=1)
    none = np.zeros(len(names), np.int64)
    return Measured(
        Task.SINGLE_LABEL,
        len(labels),
        figures(probabilities, labels, answered.weights, soft, bound=answered.bound()),
        carried_by_some(class_reports(names, none, labels, predicted, answered.weights)),
        confusions(names, labels, predicted),
    )
