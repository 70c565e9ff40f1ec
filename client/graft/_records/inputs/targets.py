"""Targets from callers, whatever type holds them: what is missing, what is a label, what is a number.

Missing are None, the float NaN, pandas' NA and NaT, NumPy's NaN, NaT and masked values, a decimal NaN, and a text
without a character other than spaces. The texts "nan", "NA", "None" and "null" are labels as others are.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

_MISSING_TYPES: Final = frozenset({"NAType", "NaTType", "MaskedConstant"})
"""Types of pandas and NumPy whose only value stands for a missing one."""


def plain(value: object) -> object:
    """A single value as Python's own types have it; None if it is missing.

    Scalars of NumPy, PyTorch and PyArrow become what they hold, and a member of an enumeration its text: its value if
    that is a text, else its name. What is no single value is returned as it is.
    """
    if type(value) is str:  # most are
        return value if value and not value.isspace() else None
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name
    elif getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not _masked(value):
        value = value.item()
    elif hasattr(value, "as_py"):
        value = value.as_py()
    if _stands_for_none(value):
        return None
    return float(value) if isinstance(value, float) else value


def _masked(value: object) -> bool:
    return type(value).__name__ == "MaskedConstant"


def _stands_for_none(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or type(value).__name__ in _MISSING_TYPES


def is_missing(value: object) -> bool:
    """Whether a value stands for none."""
    return plain(value) is None


def word_of(value: object) -> str:
    """An id or a group as text; "" if it is missing. Ids and groups may be dates and UUIDs, too.

    Raises:
        TypeError: It is neither a text nor a number.
    """
    value = plain(value)
    return str(value) if isinstance(value, dt.date | dt.time | uuid.UUID) else label_of(value) or ""


def label_of(value: object) -> str | None:
    """The text of a label; None if it is missing. A whole number is written without a fraction: 2.0 is "2".

    Raises:
        TypeError: It is neither a text nor a number.
        ValueError: It is infinite.
    """
    value = plain(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is infinite, which is no label")
        return str(int(value)) if value == int(value) else str(value)
    remedy = ".decode() makes a text" if isinstance(value, bytes | bytearray) else "str() makes a text"
    raise TypeError(f"a label must be a text (str) or a number, not {value!r:.80}; {remedy}")


def number_of(value: object) -> float | None:
    """A number as a float; None if it is missing.

    Raises:
        TypeError: It is no number.
    """
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, int | float | Decimal):
        return float(value)
    try:
        found = float(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        raise TypeError(f"a value must be a number, not {value!r:.80}")
    return None if math.isnan(found) else found


def labels_of(values: Iterable[object]) -> tuple[str, ...] | None:
    """The texts of a collection of labels without the missing ones; None if all are missing, but () of an empty one.

    Raises:
        TypeError: It is one text, some are neither texts nor numbers, or they are the zeros and ones of a row of
            indicators.
    """
    if isinstance(values, str):
        raise TypeError(f"labels must be a set of texts, not one text; did you mean [{values!r:.80}]?")
    found = [plain(value) for value in values]
    given = [value for value in found if value is not None]
    numbers = [value for value in given if isinstance(value, int | float)]
    if (
        len(given) > 1
        and len(numbers) == len(given)
        and not isinstance(values, set | frozenset)
        and set(numbers) <= {0, 1}
    ):
        raise TypeError(
            f"labels must be a set of texts, not the zeros and ones of {values!r:.80}; give the names of the labels "
            "that are 1"
        )
    texts = tuple(text for value in given if (text := label_of(value)) is not None)
    return None if found and not texts else texts


def distribution_of(shares: Mapping[Any, object]) -> dict[str, float] | None:
    """Probabilities by label without the missing ones; None if all are missing, but {} of an empty mapping.

    Raises:
        TypeError: A label or a probability is of another type.
        ValueError: A label is missing.
    """
    found: dict[str, float] = {}
    for name, share in shares.items():
        probability = number_of(share)
        if probability is None:
            continue
        label = label_of(name)
        if label is None:
            raise ValueError(f"a distribution gives {probability:g} to a label that is missing: {name!r}")
        found[label] = probability
    return None if shares and not found else found


def is_collection(value: object) -> bool:
    """Whether a target is a collection of labels: a set, a list, a tuple, or an array of one axis."""
    return isinstance(value, set | frozenset | list | tuple) or (
        getattr(value, "ndim", None) == 1 and isinstance(value, Collection)
    )


def target_fields(target: object, task: str) -> dict[str, Any]:
    """The fields of an `Example` that a target means to a task; none if it is missing.

    Numbers are labels, but of a regression. Where the task is not known, a fraction is a value.

    Args:
        target: A label, a set of labels, a value, a distribution, or nothing.
        task: "single_label", "multi_label", "regression" or "".

    Raises:
        TypeError: The target is none of these.
        ValueError: A label is infinite or missing in a set or a distribution.
    """
    if isinstance(target, Mapping):
        return {"distribution": distribution_of(target)}
    if is_collection(target):
        return {"labels": labels_of(target)}  # type: ignore[arg-type]
    value = plain(target)
    if value is None:
        return {}
    if task == "regression" or _is_value(value, known=bool(task)):
        return _value_or_label(value)
    try:
        return {"label": label_of(value)}
    except TypeError:
        kinds = "a label (str), a set of labels, a value (float) or a distribution over labels (dict)"
        raise TypeError(
            f"a target must be {kinds}, not {value!r:.80}; str() makes a label, float() a value"
        ) from None


def _is_value(value: object, *, known: bool) -> bool:
    """Whether a number is no label: infinite ones, which the server refuses alone, and fractions of no known task."""
    if not isinstance(value, float | Decimal):
        return False
    return not math.isfinite(value) or (not known and bool(value % 1))


def _value_or_label(value: object) -> dict[str, Any]:
    """A text that is no number stays a label, which the server refuses alone."""
    try:
        return {"value": number_of(value)}
    except TypeError:
        return {"label": label_of(value)}
