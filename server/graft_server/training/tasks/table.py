"""The tasks for which heads are trained, and how. To add one: docs/adding-a-task.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graft_server.domain.examples import Task
from graft_server.domain.report import TuningObjective
from graft_server.training.examples.assembling import NothingToTrainOn
from graft_server.training.tasks.multi_label.examples import assemble as assemble_multi_label
from graft_server.training.tasks.multi_label.selection import select_multi_label
from graft_server.training.tasks.regression.examples import assemble as assemble_regression
from graft_server.training.tasks.regression.selection import select_regression
from graft_server.training.tasks.single_label.cross_fitting import LEAST_A_CLASS, measure_cross_fitted
from graft_server.training.tasks.single_label.examples import assemble as assemble_single_label
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.single_label.tuning import LEAST_EXAMPLES, measure_tuned, prepare
from graft_server.training.tasks.single_label.zero_shot import by_names
from graft_server.training.tasks.task import TrainingTask, TuningTask

TRAINING: Mapping[Task, TrainingTask[Any]] = {
    Task.SINGLE_LABEL: TrainingTask(
        assemble_single_label,
        select_single_label,
        NothingToTrainOn(
            "At least 2 classes need training examples", metadata={"classes": "0", "needed": "2"}
        ),
        by_names,
        TuningTask(
            LEAST_EXAMPLES,
            LEAST_A_CLASS,
            prepare,
            {
                TuningObjective.CROSS_ENTROPY: measure_tuned,
                TuningObjective.CONTRASTIVE: measure_cross_fitted,
            },
        ),
    ),
    Task.MULTI_LABEL: TrainingTask(
        assemble_multi_label,
        select_multi_label,
        NothingToTrainOn(
            "At least one label needs examples that carry it, and others that do not",
            metadata={"classes": "0", "needed": "1"},
        ),
    ),
    Task.REGRESSION: TrainingTask(
        assemble_regression,
        select_regression,
        NothingToTrainOn(
            "At least 2 examples with a value are needed", reason="TOO_FEW_EXAMPLES", target="value"
        ),
    ),
}
"""The training of heads by task."""
