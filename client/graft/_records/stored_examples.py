"""Stored examples, and the result of erasing some, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft._records.inputs.examples import Example, Input, TextPair
from graft.v1 import model_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example in the state after one change."""

    adaptation_id: str
    """The adaptation that it was sent to."""
    writer_id: str
    """The writer that sent it."""
    sequence: int
    """The change's number."""
    id: str
    """The example's id."""
    label: str | None
    """Its label; None: unlabelled, or the target is one of labels, value and distribution."""
    split: str
    """"train", "validation", or "": unspecified."""
    group: str
    """The group that cross-validation keeps together, or ""."""
    subject: str
    """The person whose data it is, or ""."""
    deleted: bool
    """Whether a later change replaced or removed it: it is still stored, but not trained on."""
    text: str | None = field(repr=False)
    """The input, if it is a text and was requested."""
    labels: tuple[str, ...] | None = None
    """All labels that apply, for a multi-label model's example; None: it has no set of labels."""
    value: float | None = None
    """The number to predict, for a regression's example."""
    distribution: Mapping[str, float] | None = None
    """The probability of each label, if given."""
    weight: float = 1.0
    """Its weight in training, relative to the others."""
    origin: str = ""
    """Where it came from, for people, such as "train.csv:17", or ""."""
    confirmed: bool = False
    """Whether a person looked at its target and kept it."""
    input: Input | types_pb2.Input | None = field(default=None, repr=False)
    """The input of any kind, if it was requested, in a form that can be sent again: a text, a pair, or a file's bytes;
    features as their message."""

    @property
    def target(self) -> str | tuple[str, ...] | float | Mapping[str, float] | None:
        """Its label, labels, value or distribution; None: it is unlabelled."""
        found = (self.label, self.labels, self.value, self.distribution)
        return next((it for it in found if it is not None), None)

    def example(self, **changes: Any) -> Example:
        """Returns the example as it can be sent again, with its id, its target and all else, but for some changes.

        Args:
            changes: Fields of `Example` with other values. A target that is given takes the place of the present one.

        Raises:
            ValueError: The input was not requested.
        """
        if "input" not in changes and self.input is None:
            raise ValueError(
                f"the input of example {self.id!r} was not requested: ask with include_inputs=True"
            )
        names = ("label", "labels", "value", "distribution")
        kept = {} if changes.keys() & set(names) else {name: getattr(self, name) for name in names}
        others = {
            name: getattr(self, name)
            for name in ("input", "id", "weight", "split", "group", "subject", "origin", "confirmed")
        }
        return Example(**{**others, **kept, **changes})


@dataclass(frozen=True, slots=True)
class Erasure:
    """The result of a request to erase examples."""

    erased: int
    """The number of erased stored states of examples."""
    affected_versions: tuple[int, ...]
    """The existing versions that may have been trained on examples erased now or before."""
    deleted_versions: tuple[int, ...]
    """The versions that were deleted."""


def stored_example_of(message: model_pb2.StoredExample) -> StoredExample:
    """The stored example that a message carries."""
    example = message.example
    target = example.WhichOneof("target")
    shares = example.distribution.labels
    return StoredExample(
        adaptation_id=message.adaptation_id,
        writer_id=message.writer_id,
        sequence=message.sequence,
        id=example.id,
        label=example.label if target == "label" else None,
        split={types_pb2.SPLIT_TRAIN: "train", types_pb2.SPLIT_VALIDATION: "validation"}.get(
            example.split, ""
        ),
        group=example.group,
        subject=example.subject,
        deleted=message.deleted,
        text=example.input.text if example.input.WhichOneof("kind") == "text" else None,
        labels=tuple(example.label_set.labels) if target == "label_set" else None,
        value=example.value if target == "value" else None,
        distribution={it.label: it.probability for it in shares} if target == "distribution" else None,
        weight=example.weight if example.HasField("weight") else 1.0,
        origin=example.origin,
        confirmed=example.confirmed,
        input=_stored_input(example.input),
    )


def _stored_input(message: types_pb2.Input) -> Input | types_pb2.Input | None:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "text_pair":
            return TextPair(message.text_pair.first, message.text_pair.second)
        case "image":
            return message.image
        case "audio":
            return message.audio
        case "features":
            return message
        case _:
            return None
