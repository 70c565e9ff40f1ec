"""A tuned version, and what the figures of its report come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import Candidate, Evaluation, HeadChoice, Report, UnlabelledReport
from graft_server.domain.views import POOLED
from graft_server.evaluation import figures
from graft_server.evaluation.interval import Published
from graft_server.heads.single_label import SingleLabelHead
from graft_server.training.reporting.learning_curve import unseen_share

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Measured:
    """The tuned version, and what its figures come from."""

    head: SingleLabelHead
    settings: Mapping[str, float]
    temperature: float
    candidates: tuple[Candidate, ...]
    probabilities: Array
    """shape (m, k): of the examples that the report's figures come from."""
    labels: NDArray[np.int32]
    weights: NDArray[np.float64]
    bound: NDArray[np.int64]
    """shape (m,): equal for those that are copies of each other or of one group."""
    evaluation: Evaluation
    """How these were measured."""
    soft: Array | None = None
    """shape (m, k): their targets, where some are distributions."""

    def reported(self, frozen: Report, names: tuple[str, ...]) -> Report:
        """The frozen version's report, with the figures of the tuned one; what it says of the data stays."""
        probabilities, labels, weights = self.probabilities, self.labels, self.weights
        predicted = probabilities.argmax(axis=1)
        counts = np.array([it.examples for it in frozen.per_class], np.int64)
        folds = self.evaluation.folds
        published = Published(unseen_share(counts)) if folds else None
        found = figures.figures(
            probabilities, labels, weights, self.soft, bound=self.bound, folds=folds, published=published
        )
        # Tuning learns from labelled examples alone, whatever the frozen head tried.
        of = frozen.unlabelled
        unlabelled = of and UnlabelledReport(of.examples, novel_share=of.novel_share, drift=of.drift)
        return dataclasses.replace(
            frozen,
            accuracy=found.accuracy,
            macro_f1=found.macro_f1,
            log_loss=found.log_loss,
            calibration_error=found.calibration_error,
            accuracy_low=found.accuracy_low,
            accuracy_high=found.accuracy_high,
            evaluation=self.evaluation,
            head=HeadChoice(self.head.kind, POOLED, self.settings, self.temperature, self.candidates),
            per_class=figures.class_reports(names, counts, labels, predicted, weights),
            confusions=figures.confusions(names, labels, predicted),
            reliability=figures.reliability(probabilities, labels, weights, self.soft),
            learning_curve=None,
            unlabelled=unlabelled,
        )
