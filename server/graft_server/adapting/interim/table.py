"""Which tasks have an interim head, and what learns it; the others answer with their first version."""

from __future__ import annotations

from collections.abc import Mapping

from graft_server.adapting.interim.learner import NewLearner
from graft_server.adapting.interim.single_label.learner import SingleLabelLearner
from graft_server.domain.examples import Task

LEARNERS: Mapping[Task, NewLearner] = {Task.SINGLE_LABEL: SingleLabelLearner}
"""By task; a task may be missing."""
