"""What a tuning is asked for: shared by the server, which asks, and the worker, which tunes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """The job's payload."""

    backbone: dict[str, Any]
    """See `Backbone.payload`."""
    scratch: str
    """The folder that has the examples; see `backbones.scratch`."""
    graph: str
    """The encoder's graph, or its part above the cut."""
    own: str = ""
    """The folder in there for what this tuning makes, since others may use the same examples; "": the same one."""
    below_graph: str = ""
    """The part below the cut; "": all layers are tuned."""
    below: int = 0
    """How many layers it has."""
    epochs: int = 4
    learning_rate: float = 1e-4
    """Of the last layer."""
    layer_decay: float = 0.9
    seed: int = 0
    seconds: float = 0.0
    """How long it may take, with what `finish` does; 0: until it is done."""
    threads: int = 1
    cache_bytes: int = 1 << 30
    """What is computed once is kept in memory up to here, and on disk beyond."""
    cached: bool = True
    """False: what is below the cut is computed again each time. For measurements."""
