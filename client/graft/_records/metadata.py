"""Metadata that callers keep with models and adaptations: pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value", str, str | None)


def checked_metadata(pairs: Mapping[str, Value], *, removable: bool = False) -> dict[str, Value]:
    """Returns the pairs, whose keys and values are texts.

    Args:
        pairs: The pairs.
        removable: Whether a value may be None, for a pair that is to be removed.

    Raises:
        TypeError: They are no mapping, or a key or a value is not a text; the message names it.
    """
    if not isinstance(pairs, Mapping):
        raise TypeError(
            f"metadata is {pairs!r}, of type {type(pairs).__name__}: give a mapping of texts to texts"
        )
    for key, value in pairs.items():
        if not isinstance(key, str):
            raise TypeError(f"metadata has the key {key!r}, of type {type(key).__name__}: give a text")
        if not (isinstance(value, str) or (removable and value is None)):
            raise TypeError(
                f"metadata[{key!r}] is {value!r}, of type {type(value).__name__}: give a text, such as {str(value)!r}"
            )
    return dict(pairs)
