"""The head before the first example, from the names of the classes, if images share a space with texts.

A class's logit is the cosine of an image and its name, times the scale that the checkpoint learned (Radford et al.
2021). Once there are examples, the same head is one of the candidates, alone and averaged with a head trained on
them; see `search`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import ClassReport, Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.domain.views import POOLED
from graft_server.heads.maps import LinearMap, Member
from graft_server.heads.novelty import Novelty
from graft_server.heads.single_label import SingleLabelHead
from graft_server.training.contract import Wanted
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.tasks.single_label.examples import nothing_yet
from graft_server.training.tasks.task import Selection

KIND, VIEW = "zero-shot", POOLED

_OUT_OF_REACH = (1e3, 2e3)
"""Strangenesses that no input has: without examples there is no measure of novelty, so no input is called novel."""


def by_names(wanted: Wanted) -> tuple[ClassifiedSet, Selection] | None:
    """Returns the head of the declared labels, if their names alone can classify inputs; otherwise None."""
    nothing = nothing_yet(wanted)
    return None if nothing is None else (nothing, select_by_names(nothing))


def select_by_names(nothing: ClassifiedSet) -> Selection:
    """Returns the head of classes that have only names; its report says that nothing was measured.

    Args:
        nothing: No examples, with label features and their scale.
    """
    assert nothing.label_features is not None  # noqa: S101 - the caller looked
    names: NDArray[np.float32] = nothing.label_features[VIEW].astype(np.float32)
    classes = len(nothing.classes)
    linear = LinearMap(np.ascontiguousarray(names.T), np.zeros(classes, np.float32))
    novelty = Novelty(
        names.astype(np.float16), 1.0, 1.0, np.array(_OUT_OF_REACH, np.float32), np.array((0, 1), np.float32)
    )
    temperature = 1 / nothing.label_scale
    head = SingleLabelHead(KIND, VIEW, (Member(linear, temperature, 1.0),), 1.0, novelty)
    report = Report(
        examples=0,
        validation_examples=0,
        classes=classes,
        accuracy=0.0,
        macro_f1=0.0,
        log_loss=0.0,
        calibration_error=0.0,
        evaluation=Evaluation(EvaluationMethod.NONE),
        head=HeadChoice(KIND, VIEW, {"label_names": 1.0}, temperature),
        per_class=tuple(ClassReport(name, 0, 0, 0.0, 0.0, 0.0) for name in nothing.classes),
    )
    return Selection(head, report)
