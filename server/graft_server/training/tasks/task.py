"""What training has to know of a task: a row of `table.TRAINING`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from graft_server.domain.report import Report
from graft_server.heads import Head
from graft_server.training.contract import Wanted
from graft_server.training.examples.assembling import Build, NothingToTrainOn
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.search.search import Progress

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What selection settled on."""

    head: Head
    report: Report
    """Without the identity that its caller adds: backbone, encoder, time, duration."""
    examples: Examples | None = None
    """What it was chosen on; None: there were none."""
    out_of_fold: Array | None = None
    """shape (n, k): probabilities of these by heads like it, each trained without the example's fold."""


Set = TypeVar("Set", bound=ExampleSet)
Set_contra = TypeVar("Set_contra", bound=ExampleSet, contravariant=True)


class Select(Protocol[Set_contra]):
    """Chooses and fits a task's head, and reports on it."""

    def __call__(self, train: Set_contra, *, seed: int, progress: Progress) -> Selection:
        """Raises StateError where the examples do not suffice (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES)."""


def none_by_names(wanted: Wanted) -> None:
    """Names of labels alone answer nothing."""
    del wanted


@dataclass(frozen=True, slots=True)
class TrainingTask(Generic[Set]):
    """How heads of a task are trained."""

    assemble: Build[Set]
    """Makes arrays of examples with their targets."""
    select: Select[Set]
    nothing: NothingToTrainOn
    """What to say where no example can be trained on."""
    by_names: Callable[[Wanted], tuple[Set, Selection] | None] = none_by_names
    """The head that the names of the declared labels make, where they can answer before the first example; no
    examples come with it."""
