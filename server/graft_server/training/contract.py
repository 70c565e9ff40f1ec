"""What a training is asked for and what comes of it: shared by the server, which asks, and the worker, which trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.domain.examples import Label, Task
from graft_server.domain.method import Method
from graft_server.domain.model import ManifestRef, Source
from graft_server.encoding.encoder import Reference


@dataclass(frozen=True, slots=True)
class LabelFeatures:
    """Features of labels' names."""

    names: tuple[str, ...] = ()
    views: dict[str, bytes] = field(default_factory=dict)
    """View name to float16 rows, in the order of the names."""
    scale: float = 0.0
    """What cosines with the examples' features are multiplied with to be logits; 0: nobody knows."""


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


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a tuning of the backbone that is to follow needs."""

    scratch: str
    """The folder to prepare for it; see `backbones.scratch`."""
    backbone: dict[str, Any]
    """See `Backbone.payload`."""
    limits: MediaLimits
    """What its images or clips may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Wanted):
    """The job's payload."""

    store: str
    """Where the store is, for `Objects.open`."""
    model: str
    adaptation_id: str
    commit_id: str
    backbone: str
    """The backbone's name on this server."""
    encoder_id: str
    """Whose features to train on."""
    sources: tuple[Source, ...]
    """The lineage, oldest adaptation first."""
    seed: int = 0
    reference: Reference | None = None
    """The encoder in float32, where features come from one of less precision."""
    tuning: Tuning | None = None
    """None: the backbone stays as it is."""


@dataclass(frozen=True, slots=True)
class Finishing:
    """The payload of `finish`."""

    store: str
    best: ManifestRef
    """The best version so far, first that with the frozen head: its parts, if not yet a number."""
    scratch: str
    own: str
    """The folder in there that has what the tuning made."""
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
    outcome: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the job that tunes returned; `ended` alone if it was not run, or failed."""
