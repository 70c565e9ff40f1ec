"""Examples and inputs from callers, and their conversion to protobuf: the one place that knows the accepted inputs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as field_
from typing import Any, TypeAlias

from graft._records.inputs.media import media_message
from graft._records.inputs.shapes import Array, features_of, is_array, no_input, no_pair
from graft._records.inputs.targets import (
    distribution_of,
    is_missing,
    labels_of,
    number_of,
    target_fields,
    word_of,
)
from graft.v1 import adaptation_pb2, types_pb2

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest message that a server takes."""
_OVERHEAD_BYTES = 1024
# An example travels in a message of its own where it must, with a little around it.
_MAX_EXAMPLE_BYTES = MAX_MESSAGE_BYTES - _OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that are read together, such as a question and an answer, by a backbone that reads pairs."""

    first: str
    second: str


Input: TypeAlias = "str | TextPair | bytes | os.PathLike[str] | Array"
"""An input: a text (str) or a pair of texts; an image or a clip, as the content of its file (bytes) or as
its path; or features of the model's own backbone, a NumPy array of shape (d,)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled input, with all its attributes."""

    input: Input
    """The input: a text or a pair of texts, not blank, at most 1,000,000 bytes of UTF-8; an image
    (JPEG, PNG, WebP, GIF) or a clip (WAV, FLAC, OGG, MP3), as bytes or as a path, read as it is sent; or features, a
    NumPy array of shape (d,)."""
    label: str | None = None
    """The label of the input. At most one of this and labels, value and distribution is set; none, or one that is
    missing (None, NaN, NA, NaT): unlabelled."""
    id: str = ""
    """Unique within the model's lineage, at most 256 bytes; empty: the server derives one."""
    weight: float | None = None
    """The example's weight in training, relative to the others: >= 0. None: 1."""
    split: str = ""
    """"train", "validation" (never trained on), or "": training, with cross-validation for the report."""
    group: str = ""
    """Cross-validation keeps examples with the same group in one fold. At most 256 bytes."""
    subject: str = ""
    """The person whose data it is: `Client.delete_examples` erases by it. At most 256 bytes."""
    labels: Collection[str] | None = None
    """All labels that apply, for a multi-label model; empty: no label applies."""
    value: float | None = None
    """The number to predict, for a regression."""
    distribution: Mapping[str, float] | None = None
    """The probability of each label, with a sum of 1, for a single-label model."""
    origin: str = field_(default="", compare=False)
    """Where it came from, for people, such as "train.csv:17". At most 256 bytes; `read_examples` sets it. It says
    nothing of the example: two that differ in nothing else are equal."""
    confirmed: bool = False
    """Whether a person looked at the target and kept it: it is then not listed as a probable label error."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes an example: later versions are trained without it."""

    id: str
    """The example's id."""


@dataclass(frozen=True, slots=True)
class Label:
    """A class that a model can answer with."""

    name: str
    """The name, as Predict returns it."""
    description: str = ""
    """A description of the class. At most 1,024 bytes."""


Target: TypeAlias = str | Collection[str] | float | Mapping[str, float] | None
"""A label, a set of labels, a value (a float), a distribution over labels, or nothing."""
ExampleLike: TypeAlias = Example | tuple[Input, Target]
ChangeLike: TypeAlias = ExampleLike | Delete
LabelsLike: TypeAlias = Mapping[str, str] | Iterable[str | Label | tuple[str, str]]


def input_message(value: object) -> types_pb2.Input:
    """Returns the protobuf form of one input; further types of input belong here.

    Raises:
        TypeError: The value is not a supported input.
        ValueError: The text is not valid Unicode, a file is neither an image nor a clip, or features have another
            shape than (d,).
    """
    try:
        if isinstance(value, str):
            return types_pb2.Input(text=value)
        if isinstance(value, types_pb2.Input):  # features, as `Client.examples` returns them
            return value
        if isinstance(value, TextPair):
            return types_pb2.Input(text_pair=types_pb2.TextPair(first=value.first, second=value.second))
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid Unicode and cannot be sent as UTF-8: {error}") from None
    if isinstance(value, bytes | bytearray | memoryview | os.PathLike):
        return media_message(value)
    if is_array(value) and value.ndim:
        return types_pb2.Input(features=types_pb2.FeatureVector(values=features_of(value)))
    raise no_input(value)


def sendable_input(value: object) -> types_pb2.Input:
    """Returns the protobuf form of one input that travels without an example.

    Raises:
        TypeError: The value is not a supported input.
        ValueError: It cannot be sent: see `input_message`, or it is larger than a message may be.
    """
    message = input_message(value)
    if (size := message.ByteSize()) > _MAX_EXAMPLE_BYTES:
        raise ValueError(f"the input takes {size:,} bytes; at most {_MAX_EXAMPLE_BYTES:,} can be sent")
    return message


def example_messages(examples: Iterable[ExampleLike], task: str = "") -> Iterator[types_pb2.Example]:
    """Converts examples for a task to protobuf one by one, as they arrive; errors say which one is at fault."""
    for number, example in enumerate(examples):
        yield numbered_example_message(number, example, task)


def numbered_change_message(number: int, change: ChangeLike, task: str = "") -> adaptation_pb2.ExampleChange:
    """The protobuf form of change `number`, counted from 0 in errors."""
    if isinstance(change, Delete):
        return adaptation_pb2.ExampleChange(delete_id=change.id)
    return adaptation_pb2.ExampleChange(upsert=numbered_example_message(number, change, task))


def numbered_example_message(number: int, example: ExampleLike, task: str = "") -> types_pb2.Example:
    """The protobuf form of example `number`, counted from 0 in errors."""
    try:
        return _example_message(example, task)
    except TypeError as error:
        raise TypeError(f"example {number}: {error}") from None
    except ValueError as error:
        raise ValueError(f"example {number}: {error}") from None


def label_messages(labels: LabelsLike | None) -> list[types_pb2.Label]:
    """The protobuf form of labels given as names, pairs, Labels, or a mapping of name to description."""
    if labels is None:
        return []
    if isinstance(labels, str):
        raise TypeError(f"labels must be several names, not one text; did you mean [{labels!r}]?")
    items = labels.items() if isinstance(labels, Mapping) else labels
    return [_label_message(item) for item in items]


def _example_message(example: ExampleLike, task: str) -> types_pb2.Example:
    if not isinstance(example, Example):
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise no_pair(example)
        example = Example(example[0], **target_fields(example[1], task))
    message = types_pb2.Example(
        id=word_of(example.id),
        # The server refuses an empty text alone, and says so by its place.
        input=types_pb2.Input(text="") if is_missing(example.input) else input_message(example.input),
        weight=example.weight,
        split=split_number(word_of(example.split)),
        group=word_of(example.group),
        subject=word_of(example.subject),
        origin=word_of(example.origin),
        confirmed=bool(example.confirmed),
    )
    _set_target(message, example, task)
    if (size := message.ByteSize()) > _MAX_EXAMPLE_BYTES:
        raise ValueError(f"the example takes {size:,} bytes; at most {_MAX_EXAMPLE_BYTES:,} can be sent")
    return message


def _set_target(message: types_pb2.Example, example: Example, task: str) -> None:
    found: dict[str, Any] = {
        "label": None,
        "labels": None if example.labels is None else labels_of(example.labels),
        "value": number_of(example.value),
        "distribution": None if example.distribution is None else distribution_of(example.distribution),
    }
    for field, target in target_fields(example.label, task).items():
        if target is not None and found.get(field) is not None:
            raise ValueError(f"an example has one target, not label and {field}")
        found[field] = target
    given = [field for field, target in found.items() if target is not None]
    if len(given) > 1:
        raise ValueError(f"an example has one target, not {' and '.join(given)}")
    if (label := found["label"]) is not None:
        message.label = label
    if (labels := found["labels"]) is not None:
        message.label_set.SetInParent()  # an empty set of labels is a target too
        message.label_set.labels.extend(labels)
    if (value := found["value"]) is not None:
        message.value = value
    if (shares := found["distribution"]) is not None:
        message.distribution.SetInParent()
        for label, probability in shares.items():
            message.distribution.labels.add(label=label, probability=probability)


def _label_message(label: object) -> types_pb2.Label:
    if isinstance(label, Label):
        return types_pb2.Label(name=label.name, description=label.description)
    if isinstance(label, tuple | list):
        if len(label) != 2:
            raise TypeError(f"a label must be a name or a pair (name, description), not {label!r:.80}")
        return types_pb2.Label(name=word_of(label[0]), description=label[1])
    return types_pb2.Label(name=word_of(label))


def split_number(split: str) -> types_pb2.Split.ValueType:
    """The protobuf form of a split; raises ValueError for anything else than "train", "validation" and ""."""
    splits = {
        "": types_pb2.SPLIT_UNSPECIFIED,
        "train": types_pb2.SPLIT_TRAIN,
        "validation": types_pb2.SPLIT_VALIDATION,
    }
    try:
        return splits[split]
    except KeyError:
        raise ValueError(f"split is {split!r}; it must be 'train', 'validation' or empty") from None
