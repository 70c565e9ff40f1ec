"""What a bundle's model may be asked; every sample runner has this inside. Needs NumPy alone.

A runner takes what a client of a Graft server takes, and refuses what that client and server refuse, in their words:
what is no input at all by a TypeError or ValueError, and what the model cannot answer by a `Refused` in its place.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_TEXT_BYTES = 1 << 20
IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
CLIPS = (
    b"fLaC",
    b"OggS",
    b"ID3",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",  # W64
    b"\xff\xfb",
    b"\xff\xfa",
    b"\xff\xf3",
    b"\xff\xf2",
    b"\xff\xe3",
    b"\xff\xe2",
)
RIFF = {b"WEBP": "image", b"WAVE": "audio"}
NEITHER = "neither an image (JPEG, PNG, WebP, GIF) nor a clip (WAV, FLAC, OGG, MP3); a text is given as str"


class Refused(NamedTuple):
    """Why one input has no answer. The others have theirs."""

    reason: str
    """UPPER_SNAKE_CASE, as a Graft server gives it."""
    error: str
    """For people."""


class Given(NamedTuple):
    """One input."""

    kind: str
    """text, text_pair, image, audio or features."""
    value: Any
    """A text, two texts, the content of a file, or an array of shape (d,)."""


def several(inputs: Any) -> Iterable[Any]:
    """Returns what is to be iterated for several inputs; a single one is one input.

    An array holds texts, or the features of one input, or of several, one in each row.

    Raises:
        TypeError: Iterating it would not give inputs in an order that the caller knows.
    """
    if isinstance(inputs, str | bytes | bytearray | memoryview | os.PathLike):
        return [inputs]
    if _is_pair(inputs) and not isinstance(
        inputs, tuple
    ):  # a tuple of two texts is two inputs, as a list of them
        return [inputs]
    if isinstance(inputs, np.ndarray):
        return _of_array(inputs)
    kind = f"inputs is a {type(inputs).__name__}"
    if isinstance(inputs, Mapping):
        raise TypeError(f"{kind}, and iterating it gives its keys: give list(inputs.values()), or a list")
    for attribute in ("column_names", "columns"):
        columns = getattr(inputs, attribute, None)
        if isinstance(columns, Iterable) and (names := [str(it) for it in columns]):
            has = ", ".join(names[:8])
            raise TypeError(
                f"{kind}, and iterating it gives no rows; its columns are {has}: give inputs[{names[0]!r}]"
            )
    if isinstance(inputs, set | frozenset):
        raise TypeError(f"{kind}, whose order is not known: give a list")
    if hasattr(inputs, "read"):
        raise TypeError(f"{kind}, an open file: give its lines, as file.read().splitlines(), or its path")
    if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
        raise TypeError(f"{kind}, not several: give a list")
    return inputs  # type: ignore[no-any-return]


def given(value: Any, number: int, *, paths: bool) -> Given:
    """Returns one input as what it is.

    Args:
        value: The input: a text, a tuple of two texts, the content of a file or its path, or features.
        number: Its place among the inputs, from 0, for errors.
        paths: Whether a str is the path of a file, not a text.

    Raises:
        TypeError: It is no input.
        ValueError: A text is not valid Unicode, or a file is neither an image nor a clip.
    """
    try:
        return _given(Path(value) if paths and isinstance(value, str) else value)
    except UnicodeEncodeError as error:
        raise ValueError(f"input {number}: the text is not valid Unicode: {error}") from None
    except TypeError as error:
        raise TypeError(f"input {number}: {error}") from None
    except ValueError as error:
        raise ValueError(f"input {number}: {error}") from None


def refused(asked: Given, number: int, settings: Mapping[str, Any]) -> Refused | None:
    """Returns why the model cannot answer an input; None if it can, as far as is known before it is read.

    Args:
        asked: The input.
        number: Its place among the inputs, from 0.
        settings: Those in preprocessing.json.
    """
    field = f"inputs[{number}].{asked.kind}"
    if asked.kind == "features":
        return _refused_features(asked.value, field, settings["features"])
    if asked.kind == "text":
        found = _refused_text(asked.value, field)
    elif asked.kind == "text_pair":
        first, second = asked.value
        found = _refused_text(first, f"{field}.first") or _refused_text(second, f"{field}.second")
    else:
        found = None
    kinds, modality = settings["kinds"], settings["modality"]
    if found is None and asked.kind not in kinds:
        return Refused(
            "INPUT_WRONG_MODALITY",
            f"The input is of kind {asked.kind}, but the model's backbone reads {modality}: give {', '.join(kinds)}, "
            "or features of it.",
        )
    return found


def _of_array(array: np.ndarray[Any, Any]) -> Iterable[Any]:
    if array.dtype.names:
        names = array.dtype.names
        raise TypeError(
            f"inputs is an array of records with the fields {', '.join(names)}: give one field, as inputs[{names[0]!r}]"
        )
    if array.ndim == 0:
        return [array.item()]
    if array.dtype.kind in "OSTU":
        if array.ndim > 1:
            raise TypeError(
                f"inputs is an array of shape {array.shape} that holds no numbers: give one of shape (n,), with an "
                "input in each place"
            )
        values: list[Any] = array.tolist()
        return values
    if not array.shape[0]:
        return []
    return [array] if array.ndim == 1 else array


def _given(value: Any) -> Given:
    if _is_missing(value):  # of a column with gaps: it is refused in its place, as an empty text is
        return Given("text", "")
    if isinstance(value, str):
        value.encode()  # raises UnicodeEncodeError
        return Given("text", str(value))
    if _is_pair(value) or (isinstance(value, list) and _is_pair(tuple(value))):
        first, second = value if isinstance(value, tuple | list) else (value.first, value.second)
        (first + second).encode()
        return Given("text_pair", (str(first), str(second)))
    if isinstance(value, bytes | bytearray | memoryview):
        return _file(bytes(value), f"the {len(value):,} bytes are")
    if isinstance(value, os.PathLike):
        try:
            return _file(Path(value).read_bytes(), f"{Path(value)} is")
        except OSError as error:
            raise ValueError(f"{Path(value)} cannot be read: {error.strerror or error}") from None
    if isinstance(value, np.ndarray) and value.ndim:
        if value.ndim > 1:
            raise ValueError(
                f"features must have shape (d,), but the array has {value.ndim} axes; give its rows one by one"
            )
        if value.dtype.kind not in "fiu":
            raise TypeError(f"features must be numbers, not {value.dtype}")
        return Given("features", value.astype(np.float32))
    raise TypeError(
        "an input must be a text (str), a tuple of two texts, an image or clip (bytes or a path), or features (a NumPy "
        f"array), not {type(value).__name__}"
    )


def _is_missing(value: Any) -> bool:
    """Whether it stands for no value: None, NaN, or the NA and NaT of pandas."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _is_pair(value: Any) -> bool:
    """Whether it is a tuple of two texts, or a graft.TextPair."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(isinstance(it, str) for it in value)
    return isinstance(getattr(value, "first", None), str) and isinstance(getattr(value, "second", None), str)


def _file(data: bytes, what: str) -> Given:
    """Returns the content of a file as what it is; names of files may be wrong."""
    if data.startswith(IMAGES):
        return Given("image", data)
    if data.startswith((b"RIFF", b"RF64", b"BW64")):
        kind = RIFF.get(data[8:12])
    else:
        kind = "audio" if data.startswith(CLIPS) else None
    if kind is None:
        empty = "" if data else "empty (it has 0 bytes), "
        raise ValueError(f"{what} {empty}{NEITHER}")
    return Given(kind, data)


def _refused_text(text: str, field: str) -> Refused | None:
    if not text or text.isspace():
        return Refused("INPUT_EMPTY", f"{field} is empty: give a text with something in it.")
    if (size := len(text.encode())) > MAX_TEXT_BYTES:
        return Refused(
            "INPUT_TOO_LONG", f"{field} has {size:,} bytes: at most {MAX_TEXT_BYTES:,} are accepted."
        )
    return None


def _refused_features(
    vector: np.ndarray[Any, Any], field: str, settings: Mapping[str, Any]
) -> Refused | None:
    if not len(vector):
        return Refused("INPUT_EMPTY", f"{field} is empty: give the numbers of a vector.")
    if settings["refused"]:
        return Refused("FEATURES_VIEW", settings["refused"])
    if len(vector) != settings["dimension"]:
        return Refused(
            "FEATURES_DIMENSION",
            f"The features have {len(vector):,} numbers, but the model's backbone gives {settings['dimension']:,}: "
            "send features of that backbone.",
        )
    length = np.linalg.norm(vector.astype(np.float64))
    if not np.isfinite(length) or length == 0:
        return Refused(
            "FEATURES_INVALID",
            "The features are not finite numbers, or all 0: send those that the backbone gave.",
        )
    return None
