"""The facts about a task that training needs: a row of `table.TRAINING`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.tuning_objects import TunedParts, TuningSet
from graft_server.domain.report import Report, TuningObjective, TuningReport
from graft_server.heads import Head
from graft_server.store.objects.objects import Objects
from graft_server.training.contract import Finishing, Wanted
from graft_server.training.examples.assembling import Build, NothingToTrainOn
from graft_server.training.examples.folded import Examples
from graft_server.training.examples.training_set import ExampleSet
from graft_server.training.steps import Steps

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The result of selection."""

    head: Head
    report: Report
    """The report without the identity that the caller adds: backbone, encoder, time, duration."""
    examples: Examples | None = None
    """The examples of the choice; None: there were none."""
    out_of_fold: Array | None = None
    """shape (n, k): probabilities of these examples by heads like it, each trained without the example's fold."""


Set = TypeVar("Set", bound=ExampleSet)
Set_contra = TypeVar("Set_contra", bound=ExampleSet, contravariant=True)


class Select(Protocol[Set_contra]):
    """Chooses and fits a task's head, and reports on it."""

    def __call__(self, train: Set_contra, *, seed: int, steps: Steps | None = None) -> Selection:
        """Raises StateError if the examples do not suffice (TOO_FEW_CLASSES, TOO_FEW_EXAMPLES)."""


def none_by_names(wanted: Wanted) -> None:
    """Returns None: names of labels alone make no head."""
    del wanted


@dataclass(frozen=True, slots=True, eq=False)
class TunedHead:
    """A head on tuned features that is kept."""

    head: Head
    features: Array
    """shape (n, d): of all examples."""
    of_measured: Array
    """shape (m, k): what it says of the examples to measure on, for the next tuning to be compared with."""
    losses: NDArray[np.float64]
    """shape (m,): its loss on each example that it was measured on, in nats."""
    weights: NDArray[np.float64]
    """shape (m,): of these."""
    reported: Callable[[Report, tuple[str, ...]], Report]
    """The frozen version's report, with this one's figures, by the names of its labels."""


class PrepareTuning(Protocol):
    """Makes what a tuning is given."""

    def __call__(self, selection: Selection, *, seed: int) -> TuningSet | None:
        """None if there are too few examples for one."""


Measuring = Callable[[Objects, Finishing, TuningReport, TunedParts], tuple[TuningReport, TunedHead | None]]
"""Returns what there is to say of a tuning, and whether it is kept; and the head, if it is."""


@dataclass(frozen=True, slots=True)
class TuningTask:
    """What comes before and after a tuning of the backbone."""

    least_examples: int
    """With fewer there is none that holds examples out for good."""
    least_a_class: int
    """With fewer, on average, there is none by cross-fitting either."""
    prepare: PrepareTuning
    measure: Mapping[TuningObjective, Measuring]
    """Chooses the head on the tuned features, and measures it against the best one so far; by what the tuning learned
    by."""


@dataclass(frozen=True, slots=True)
class TrainingTask(Generic[Set]):
    """The functions that train heads of a task."""

    assemble: Build[Set]
    """Makes arrays from examples with their targets."""
    select: Select[Set]
    nothing: NothingToTrainOn
    """The failure if no example can be trained on."""
    by_names: Callable[[Wanted], tuple[Set, Selection] | None] = none_by_names
    """Makes the head from the names of the declared labels, if they can answer before the first example; its
    set has no examples."""
    tuning: TuningTask | None = None
    """None: the backbone cannot be tuned for it."""
