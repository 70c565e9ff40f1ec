"""The shapes in which callers hand in several inputs or examples: which are read, and what is said of the others.

Iterating a dict gives its keys, and iterating a data frame the names of its columns: no caller wants answers for them.
NumPy, pandas, polars and torch are told by what their objects have: importing them would make them dependencies.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeGuard, TypeVar, cast

T = TypeVar("T")

_TEXTS: Final = frozenset("OSTU")
"""NumPy's kinds of arrays that hold texts, or anything: objects, bytes, texts of any length, texts of one length."""
_NUMBERS: Final = frozenset("fiu")
_SHOWN_COLUMNS: Final = 8


class DataType(Protocol):
    """The parts of a NumPy array's type that are used."""

    @property
    def kind(self) -> str:
        """A letter for the kind of the array's values."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """The fields of a structured array."""


class Array(Protocol):
    """The parts of a NumPy array that are used: NumPy itself is not needed."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""

    @property
    def dtype(self) -> DataType:
        """The type of the values."""

    def tolist(self) -> Any:
        """Returns the values as lists."""


def is_array(value: object) -> TypeGuard[Array]:
    """Whether it is a NumPy array, with any number of axes."""
    return any(
        it.__name__ == "ndarray" and it.__module__.partition(".")[0] == "numpy" for it in type(value).__mro__
    )


def several_inputs(given: object) -> Iterable[Any]:
    """Returns what is to be iterated for several inputs.

    An array holds texts, or the features of one input, or of several, one in each row.

    Raises:
        TypeError: Iterating it would not give inputs in an order that the caller knows.
    """
    if is_array(given):
        return _inputs_of_array(given)
    return _checked(given, "inputs", "list(inputs.values())", "inputs[{0!r}]")


def several_examples(given: T) -> T:
    """Returns several examples as they were given.

    Raises:
        TypeError: Iterating it would not give examples in an order that the caller knows.
    """
    if isinstance(given, AsyncIterable):
        return given
    if isinstance(given, str | bytes | bytearray | memoryview):
        absent = f": there is no file or folder {given!r:.80}" if isinstance(given, str) else ""
        raise TypeError(
            f"examples must be several pairs (input, label), not one {type(given).__name__}{absent}"
        )
    _checked(given, "examples", "examples.items()", "zip(examples[{0!r}], examples[{1!r}])")
    return given


def features_of(array: Array) -> list[float]:
    """Returns the numbers of one input's features.

    Raises:
        TypeError: They are no numbers.
        ValueError: The array has another number of axes than one.
    """
    if array.ndim != 1:
        raise ValueError(
            f"features must have shape (d,), but the array has {array.ndim} axes; give its rows one by one"
        )
    if array.dtype.kind not in _NUMBERS:
        raise TypeError(f"features must be numbers, not {array.dtype}")
    return cast("list[float]", array.tolist())


def no_pair(value: object) -> TypeError:
    """Returns the error for something that is no example."""
    remedy = ""
    if isinstance(value, str):
        remedy = "; an input without a label is (input, None)"
    elif hasattr(value, "__array__") or (isinstance(value, tuple | list) and len(value) > 2):
        remedy = "; inputs and labels that lie in two columns are put together by zip(inputs, labels)"
    return TypeError(
        f"an example must be a pair (input, label) or a graft.Example, not {value!r:.80}{remedy}"
    )


def no_input(value: object) -> TypeError:
    """Returns the error for something that is no input."""
    return TypeError(
        "an input must be a text (str), a graft.TextPair, an image or clip (bytes or a path), or features (a NumPy "
        f"array), not {type(value).__name__}{_meant(value)}"
    )


def _inputs_of_array(array: Array) -> Iterable[Any]:
    if array.dtype.names:
        columns = ", ".join(array.dtype.names)
        raise TypeError(
            f"inputs is an array of records with the fields {columns}: give one field, as "
            f"inputs[{array.dtype.names[0]!r}]"
        )
    if array.ndim == 0:
        return [array.tolist()]
    if array.dtype.kind in _TEXTS:
        if array.ndim == 2 and array.shape[1] == 1:  # one column
            return [value for (value,) in array.tolist()]
        if array.ndim > 1:
            raise TypeError(
                f"inputs is an array of shape {array.shape} that holds no numbers: give one of shape (n,), with an "
                "input in each place; two texts that belong together are a graft.TextPair, and features are an "
                "array of floats"
            )
        return cast("Iterable[Any]", array.tolist())
    if not array.shape[0]:
        return []
    return [array] if array.ndim == 1 else cast("Iterable[Any]", array)


def _checked(given: object, name: str, values: str, column: str) -> Iterable[Any]:
    """Returns it if iterating it gives items in their order.

    Args:
        given: What a caller handed in.
        name: The argument's name.
        values: What to give in place of a mapping.
        column: What to give in place of a data frame, with places for the names of its first two columns.
    """
    kind = f"{name} is a {type(given).__name__}"
    if isinstance(given, Mapping):
        raise TypeError(f"{kind}, and iterating it gives its keys: give {values}, or a list")
    if (columns := _columns(given)) is not None:
        named = [*map(str, columns), "text", "label"]
        has = ", ".join(named[: min(len(columns), _SHOWN_COLUMNS)]) or "none"
        raise TypeError(
            f"{kind}, and iterating it gives no rows; its columns are {has}: give {column.format(*named)}"
        )
    if isinstance(given, set | frozenset):
        raise TypeError(f"{kind}, whose order is not known: give a list")
    if callable(getattr(given, "read", None)):
        raise TypeError(
            f"{kind}, an open file: give its lines, as file.read().splitlines(), or its path; graft.read_examples "
            "reads files of examples"
        )
    if isinstance(given, AsyncIterable):
        raise TypeError(
            f"{kind}, which comes asynchronously: give a list, or ask by AsyncClient.predict_stream"
        )
    if not isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
        raise TypeError(f"{kind}, not several: give a list")
    if callable(to_pylist := getattr(given, "to_pylist", None)):
        return cast("Iterable[Any]", to_pylist())  # iterating an Arrow array gives scalars of Arrow
    return cast("Iterable[Any]", given)


def _columns(given: object) -> list[Any] | None:
    """The names of a data frame's or a table's columns; None for anything else."""
    for attribute in (
        "column_names",
        "columns",
    ):  # of an Arrow table, the second gives the columns themselves
        found = getattr(given, attribute, None)
        if found is not None and not callable(found) and isinstance(found, Iterable):
            return list(found)
    return [] if hasattr(given, "__dataframe__") else None


def _meant(value: object) -> str:
    """What to do about something that is no input, as the end of a sentence; empty where that cannot be said."""
    if isinstance(value, tuple | list):
        if value and all(isinstance(it, int | float) for it in value):
            return "; features are a NumPy array of shape (d,), as numpy.asarray(row) gives"
        return "; two texts that belong together are a graft.TextPair"
    return next((what for is_so, what in _MEANT if is_so(value)), "")


def _is_missing(value: object) -> bool:
    """Whether it is None, NaN, or what pandas has for a missing value."""
    return (
        value is None
        or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN alone differs from itself
        or type(value).__name__ in {"NAType", "NaTType"}
    )


_MEANT: Final[tuple[tuple[Callable[[object], bool], str], ...]] = (
    (_is_missing, "; the input is missing: leave it out"),
    (lambda it: isinstance(it, Mapping), "; give the value that is the input, as row['text']"),
    (lambda it: hasattr(it, "read"), "; give the file's content, as file.read(), or its path"),
    (lambda it: hasattr(it, "input"), "; give its input alone"),
    (lambda it: hasattr(it, "as_py"), "; give Python's own values, as column.to_pylist()"),
    (
        lambda it: hasattr(it, "__array__"),
        "; features are given by numpy.asarray, an image by the bytes of its file",
    ),
)
"""What something that is no input is told by, and what to do about it; the first that holds counts."""
