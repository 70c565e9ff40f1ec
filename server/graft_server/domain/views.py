"""Views: the named feature vectors that an encoder computes from an input, and several of them side by side.

A head reads one view, or several whose features are joined in one row. Stored heads and reports name such a set by
one string, the names joined by "+"; only this module joins or splits that string.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

POOLED = "pooled"
"""The first view of every encoder, with unit-norm rows."""
_AND = "+"


def names_of(view: str) -> tuple[str, ...]:
    """Returns the names of the views that a head reads, in the order of its features."""
    return tuple(view.split(_AND))


def view_of(*names: str) -> str:
    """Returns the name of several views side by side."""
    return _AND.join(names)


def stacked(features: Mapping[str, NDArray[Any]], view: str) -> NDArray[Any]:
    """Returns the features of a view, shape (n, d); if it has several names, their features joined in each row.

    Args:
        features: Features of n inputs by the encoder's names, each of shape (n, d of that name).
        view: The name of the view, or of several, that a head reads.
    """
    names = names_of(view)
    return (
        features[names[0]] if len(names) == 1 else np.concatenate([features[name] for name in names], axis=1)
    )
