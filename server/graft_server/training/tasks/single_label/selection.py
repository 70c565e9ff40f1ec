"""From a training set to a head and its report: choose, fit, calibrate, measure.

Everything is measured on predictions of examples by models that were not trained on them, nor on their
duplicates or their group.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graft_server.domain.report import HeadChoice
from graft_server.domain.views import stacked
from graft_server.heads.single_label import SingleLabelHead
from graft_server.training.calibration.novelty import fit_novelty
from graft_server.training.examples.folded import Examples, examples_in, parts_of
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.look_alikes import with_look_alikes
from graft_server.training.search import costs
from graft_server.training.search.candidates import Trial
from graft_server.training.search.search import Search
from graft_server.training.search.unlabelled import with_unlabelled
from graft_server.training.steps import Steps
from graft_server.training.tasks.single_label.report import report_of
from graft_server.training.tasks.task import Selection


def select_single_label(train: ClassifiedSet, *, seed: int, steps: Steps | None = None) -> Selection:
    """Chooses and fits the head, and reports on it.

    Args:
        train: The examples. Rows of weight 0 and rows whose features are not finite are left out.
        seed: The seed of every random choice.
        steps: Told of the stages "checking", "selecting", "fitting" and "measuring".

    Raises:
        StateError: Too few classes have training examples (TOO_FEW_CLASSES), or too few examples are left to
            tell training from measuring (TOO_FEW_EXAMPLES).
    """
    steps = Steps() if steps is None else steps
    steps.begin("checking")
    with steps.step(costs.checking(len(train))):
        parts = parts_of(train, seed)
    examples = examples_in(train, parts, seed)
    judged, unlabelled = with_unlabelled(examples, Search(examples, steps).best(), steps)
    chosen = judged[0].trial
    steps.begin("fitting")
    with steps.step(costs.fitting(len(parts.rows), chosen.problem.features.shape[1], len(train.classes))):
        head = _fitted(examples, chosen)
    choice = HeadChoice(
        head.kind,
        head.view,
        chosen.settings,
        chosen.temperature,
        tuple(sorted((one.candidate for one in judged), key=lambda candidate: candidate.log_loss)),
    )
    steps.begin("measuring", 3, "parts")
    report = report_of(examples, chosen.problem, head, choice, out_of_fold=chosen.probabilities, steps=steps)
    with steps.step(costs.figures(len(examples.rows))):
        report = replace(with_look_alikes(report, examples, chosen), unlabelled=unlabelled)
    return Selection(head, report, examples, chosen.probabilities)


def _fitted(examples: Examples, chosen: Trial) -> SingleLabelHead:
    members = chosen.fit()
    chosen.problem.let_go()
    features = stacked(examples.train.features, chosen.problem.view)[examples.rows].astype(np.float32)
    novelty = fit_novelty(
        features,
        examples.labels,
        chosen.logits.max(axis=1),
        examples.measured,
        examples.fold_of,
        seed=examples.seed,
    )
    temperature = chosen.temperature if len(members) > 1 else 1.0
    return SingleLabelHead(chosen.kind, chosen.problem.view, members, temperature, novelty)
