"""What a tuning starts from, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.adapters import Adapter
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.tuning_contract import Recipe, Tuned


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is tuned, and where."""

    backbone: Backbone
    recipe: Recipe
    examples: Examples
    graph: Path
    """The encoder's graph, or its part above the cut."""
    below_graph: Path | None = None
    """The part below the cut; None: all layers are tuned."""
    folder: Path
    """Where it writes; a killed tuning goes on from what it finds there."""
    threads: int = 1
    cache_bytes: int = 1 << 30
    """What is computed once is kept in memory up to here, and on disk beyond."""
    cached: bool = True
    """False: what is below the cut is computed again each time. For measurements."""


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """An adapter that a tuned graph was cut down to, and what it makes of the examples."""

    adapter: Adapter
    features: NDArray[np.float16]
    """shape (n, d)."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of it."""

    tuned: Tuned
    """But for the key of what was made."""
    top: Path | None = None
    """The tuned graph; None: nothing is better than the start."""
    features: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))
    """shape (n, d): the tuned graph's features of all examples."""
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """The head that was tuned along: weight, shape (d, k), and bias, shape (k,)."""
    by_fold: NDArray[np.float16] | None = None
    """shape (f, n, d): features of all examples after a training without fold 0, 1 to f - 1; None: it was no
    cross-fitting."""

    compressed: Compressed | None = None
    """The adapter that the tuned graph was cut down to; None: there is none."""
    compressed_by_fold: NDArray[np.float16] | None = None
    """As `by_fold`, by the adapters of these trainings."""

    @property
    def measured(self) -> bool:
        """Whether cross-fitting came to something."""
        return self.by_fold is not None and len(self.by_fold) > 0
