"""Metadata that callers keep with models and adaptations: pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping


def metadata_message(pairs: Mapping[str, str]) -> dict[str, str]:
    """Returns the pairs as messages take them.

    Raises:
        TypeError: A key or a value is not a text, which the message names.
    """
    for key, value in pairs.items():
        if not isinstance(key, str):
            raise TypeError(f"metadata has the key {key!r}, of type {type(key).__name__}: give a text")
        if not isinstance(value, str):
            raise TypeError(
                f"metadata[{key!r}] is {value!r}, of type {type(value).__name__}: give a text, such as {str(value)!r}"
            )
    return dict(pairs)
