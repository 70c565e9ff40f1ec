"""What a training is asked for and what comes of it: shared by the server, which asks, and the worker, which trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from graft_server.backbones.tuning_contract import Tuned
from graft_server.domain.examples import Label, Task
from graft_server.domain.extension import Extension
from graft_server.domain.method import Method
from graft_server.domain.model import ManifestRef, Source
from graft_server.domain.report import Renewal, Report, TuningObjective
from graft_server.jobs.job import JobType


@dataclass(frozen=True, slots=True)
class LabelFeatures:
    """Features of labels' names."""

    names: tuple[str, ...] = ()
    views: dict[str, bytes] = field(default_factory=dict)
    """View name to float16 rows, in the order of the names."""
    scale: float = 0.0
    """What cosines with the examples' features are multiplied with to be logits; 0: nobody knows."""


def usual_training_s(examples: int, outputs: int) -> float:
    """What a training takes on two processors of a small server, in seconds: roughly, before it is measured.

    Args:
        examples: How many there are.
        outputs: How many labels.
    """
    return 0.5 + examples * (8e-4 + 1.5e-5 * max(outputs, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an adaptation says about its targets."""

    task: Task = Task.DEFAULT
    labels: tuple[Label, ...] = ()
    """The labels that were declared: they come first, in this order."""
    closed_labels: bool = False
    """Whether examples with other labels are left out."""
    label_features: LabelFeatures | None = None
    """What the names of the labels say to the backbone; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Wanted):
    """What is trained on."""

    model: str
    adaptation_id: str
    commit_id: str
    backbone: str
    """The backbone's name."""
    encoder_id: str
    """Whose features to train on."""
    sources: tuple[Source, ...]
    """The lineage, oldest adaptation first."""
    base: Extension | None = None
    """The version that it extends; None: none."""
    seed: int = 0
    reduced: bool = False
    """Whether that encoder computes in less than float32: then accuracy is compared with the one that does."""
    longest_input: str = ""
    """What the backbone reads of an input at most, in words, such as "256 tokens"; "": not known, or no length."""
    tuning_folder: str = ""
    """The prefix of what a tuning of the backbone that is to follow is given (see `backbones.tuning_objects`); "": the
    backbone stays as it is."""
    renewal: Renewal | None = None
    """Why the server trains by itself; None: it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A version's parts, written; it has no number yet."""

    manifest: ManifestRef
    report: Report
    extension: Extension | None = None
    """What came of the examples beside those of the base; None: there is no base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Made):
    """A version with a frozen backbone."""

    prepared: str = ""
    """The key of the `TuningSet` for a tuning; "": none can follow, or none was asked for."""
    objectives: tuple[TuningObjective, ...] = (TuningObjective.CROSS_ENTROPY,)
    """What tunings may learn by: what the examples suffice for, and are not too many for."""
    nothing_to_gain: bool = False
    """Whether the head is right on so many examples that no contrastive tuning could show that it is better."""
    unprepared: str = ""
    """Why none can follow: "too_few" examples, or some are "features" already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """A tuning whose outcome becomes a version, if it is good enough."""

    best: ManifestRef
    """The best version so far, first that with the frozen head: its parts, if not yet a number."""
    best_measured: str = ""
    """The key of what that version says of the examples to measure on, if it is a tuned one; see
    `tuning_objects.write_probabilities`."""
    prepared: str
    """The key of the `TuningSet`; "": the tuning was not run."""
    folder: str
    """The prefix of what is made; see `tuning_objects`."""
    method: Method
    """PARTIAL or FULL."""
    layers: int
    """How many the backbone has."""
    below: int
    """How many of them were left as they are."""
    auto: bool
    """Whether the tuned version has to be better than the best one so far beyond noise to be kept."""
    seed: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    """What tuning took."""
    objective: TuningObjective = TuningObjective.CROSS_ENTROPY
    """What it learned by."""
    tuned: Tuned
    """What came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Made):
    """The tuned version, or the best one so far with a report of what was tried."""

    kept: bool
    """Whether it is the tuned one."""
    measured: str = ""
    """The key of what the tuned version says of the examples to measure on, if it is kept."""


TRAIN = JobType("graft_server.training.train:train", Training, Trained)
"""Trains on everything that a commit names and writes the parts of a version."""
FINISH = JobType("graft_server.training.finish_tuning:finish", Finishing, Finished)
"""Makes a version of what a tuning made, or of the best one so far."""
