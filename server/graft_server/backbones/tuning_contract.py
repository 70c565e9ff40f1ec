"""What a tuning is asked for, and what it answers: shared by the server and its workers."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.domain.model import Source
from graft_server.domain.report import TuningObjective, TuningPoint
from graft_server.jobs.job import JobType


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a backbone is tuned."""

    below: int = 0
    """How many of its layers stay as they are; 0: all is tuned."""
    epochs: int = 4
    """0, for a contrastive tuning: as many as suit the examples."""
    learning_rate: float = 1e-4
    """Of the last layer; 0, for a contrastive tuning: the usual one."""
    layer_decay: float = 0.9
    """0, for a contrastive tuning: the usual one."""
    seed: int = 0
    seconds: float = 0.0
    """How long it may take; 0: until it is done."""
    objective: TuningObjective = TuningObjective.CROSS_ENTROPY
    to_the_end: bool = False
    """Whether a contrastive one goes on where the first folds show no gain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """One tuning."""

    backbone: str
    """The backbone's name."""
    encoder_id: str
    model: str
    sources: tuple[Source, ...]
    """Where the examples are, oldest adaptation first."""
    limits: MediaLimits
    """What images or clips may be."""
    prepared: str
    """The key of the `TuningSet`."""
    folder: str
    """The prefix of what is made: see `tuning_objects`."""
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of a tuning."""

    ended: str
    """"done", "no_gain", "time", "no_time" (not one epoch would have fitted) or "diverged"; of one that was not run
    why, of one that raised an error "failed". A contrastive one ends in "no_gain" where the first folds lose
    clearly."""
    history: tuple[TuningPoint, ...] = ()
    """The evaluations, first that of the start."""
    best: int = 0
    """Which of them was kept; 0: the start, so nothing was made."""
    epoch_s: float = 0.0
    examples_per_s: float = 0.0
    diverged: int = 0
    """How often."""
    halved: int = 0
    """How often a step's parts were made smaller for want of memory."""
    resumed: int = 0
    """The step of the checkpoint that it went on from."""
    parameters: int = 0
    """How many were tuned."""
    seconds: float = 0.0
    """What it took, before it was resumed too."""
    made: str = ""
    """The key of the `TunedParts`; "": nothing was made."""
    folds: int = 0
    """How many folds were held out, one after the other; 0: it was no cross-fitting."""
    learning_rate: float = 0.0
    """The one that was used, where the recipe left it open."""
    label_names: bool = False
    """Whether the names of the labels were members of their classes."""


EXAMPLES_GONE = "EXAMPLES_GONE"
"""The reason of the FaultError where examples were erased between the choice of the head and the tuning."""
TUNE = JobType("graft_server.backbones.torch.tuning.job:tune", Tuning, Tuned, fresh=True)
"""Tunes the upper layers of a backbone, or all of them."""
