"""Views: what an encoder gives of an input, each under a name, and several of them side by side.

A head reads one view, or several whose features stand in one row. Stored heads and reports name such a set as one
text, the names joined by "+"; nothing but this module takes that text apart or puts it together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

POOLED = "pooled"
"""The view that every encoder gives first, with unit-norm rows."""
_AND = "+"


def names_of(view: str) -> tuple[str, ...]:
    """Returns the names of the views that a head reads, in the order of its features."""
    return tuple(view.split(_AND))


def view_of(*names: str) -> str:
    """Returns what several views side by side are called."""
    return _AND.join(names)


def stacked(features: Mapping[str, NDArray[Any]], view: str) -> NDArray[Any]:
    """Returns the features of a view, shape (n, d); where it has several names, one after another in each row.

    Args:
        features: Features of n inputs by the encoder's names, each of shape (n, d of that name).
        view: What a head reads.
    """
    names = names_of(view)
    return (
        features[names[0]] if len(names) == 1 else np.concatenate([features[name] for name in names], axis=1)
    )
