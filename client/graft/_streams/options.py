"""The options of an adaptation: both clients make them from the arguments of `adapt` and `check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graft._records.inputs.examples import LabelsLike


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How the layers of a backbone are tuned; the server chooses every setting that is 0."""

    unfrozen_layers: int = 0
    """How many of the upper layers are tuned, for the methods "partial" and "auto"."""
    epochs: int = 0
    """The most times that each example is seen."""
    learning_rate: float = 0.0
    """The learning rate of the uppermost layer."""
    layer_decay: float = 0.0
    """The learning rate of each layer over that of the one above it, at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptOptions:
    """All that `Client.adapt` takes besides the model, the examples and the callbacks; it describes each of them.

    Names and defaults are those of its arguments.
    """

    adaptation_id: str | None = None
    writer_id: str = ""
    method: str = "auto"
    backbone: str = ""
    task: str = ""
    labels: LabelsLike | None = None
    closed_labels: bool = False
    base_version: int = 0
    base_alias: str = ""
    extend: bool = False
    match_content: bool = False
    """Whether examples without an id are those of the base that have the same input; `extend` brings it."""
    seed: int = 0
    fine_tuning: FineTuning | None = None
    time_budget: float | None = None
    """The time budget in seconds."""
    commit_id: str | None = None
    publish_every: int = 0
    publish_seconds: float = 0.0
    promote: bool = True
    metadata: Mapping[str, str] | None = None
    close: bool = True
    append: bool = False
    id_repeats: str = ""
    validate_only: bool = False
    """Whether the server only reports what it would refuse, for `check`."""
