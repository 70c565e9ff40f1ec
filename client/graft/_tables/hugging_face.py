"""What the features of a data set of Hugging Face's `datasets` say of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def names_of_codes(feature: Any) -> Callable[[Any], Any] | None:
    """Returns what turns the values of a feature with codes of classes (ClassLabel) into their names; None: no codes.

    A negative code is a missing label.
    """
    if type(feature).__name__ == "ClassLabel":
        names = list(feature.names or ())
        return lambda it: _name(it, names)
    inner = _inner(feature)
    if inner is not None and (name := names_of_codes(inner)) is not None:
        return lambda it: None if it is None else [name(one) for one in it]
    if isinstance(feature, Mapping):
        named = {key: found for key, it in feature.items() if (found := names_of_codes(it)) is not None}
        if named:
            return lambda it: _with_names(it, named)
    return None


def _inner(feature: Any) -> Any:
    """What a list holds."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return getattr(feature, "feature", None)


def _name(code: Any, names: list[str]) -> Any:
    if not isinstance(code, int) or isinstance(code, bool):
        return code
    if code < 0:
        return None
    return names[code] if code < len(names) else code


def _with_names(values: Any, named: Mapping[str, Callable[[Any], Any]]) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: named[key](it) if key in named else it for key, it in values.items()}
