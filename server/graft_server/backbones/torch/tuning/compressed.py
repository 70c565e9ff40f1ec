"""What a tuned graph is cut down to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.graphs.adapters import Adapter


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """An adapter, and what it makes of the examples."""

    adapter: Adapter
    features: NDArray[np.float16]
    """shape (n, d)."""
