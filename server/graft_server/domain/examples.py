"""What clients teach with, as plain data: inputs, examples, and changes to them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum


class Modality(StrEnum):
    """What a backbone reads."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"


class Kind(StrEnum):
    """What an input is; named as the fields of Input in the API."""

    TEXT = "text"
    TEXT_PAIR = "text_pair"
    IMAGE = "image"
    AUDIO = "audio"
    FEATURES = "features"


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to classify, as raw as the caller has it: a sum of its kinds.

    The defaults are those of a text: what was stored before there were other kinds reads as what it is.
    """

    text: str = ""
    """The text, or the first of a pair."""
    kind: Kind = Kind.TEXT
    second: str = ""
    """The second text of a pair."""
    data: bytes = b""
    """An encoded image or audio clip; features as little-endian float32."""

    @property
    def size(self) -> int:
        """About how many bytes it has: characters count as one."""
        return len(self.text) + len(self.second) + len(self.data)

    def digest(self) -> bytes:
        """Returns 16 bytes that are equal for equal inputs; an input of another kind never has them."""
        if self.kind is Kind.TEXT:
            content = self.text.encode()
        elif self.kind is Kind.TEXT_PAIR:
            first = self.text.encode()
            content = b"%d\0%b%b" % (len(first), first, self.second.encode())
        else:
            content = self.data
        return hashlib.blake2b(self.kind.encode() + b"\0" + content, digest_size=16).digest()


class Task(StrEnum):
    """What a model answers with."""

    SINGLE_LABEL = "single_label"
    """One of the labels."""
    MULTI_LABEL = "multi_label"
    """Any number of the labels."""
    REGRESSION = "regression"
    """A number."""
    DEFAULT = "single_label"
    """Another name of what a caller means who names no task, and of what was stored before there were others."""

    @property
    def words(self) -> str:
        """As people write it."""
        return self.value.replace("_", "-")


class Split(StrEnum):
    """Which part an example plays."""

    UNSPECIFIED = "unspecified"
    TRAIN = "train"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class Label:
    """A class that a model can answer with."""

    name: str
    description: str = ""

    @property
    def text(self) -> str:
        """What it says to a backbone that reads text: names are evidence."""
        words = " ".join(re.split(r"[_\-/\s]+", self.name)).strip() or self.name
        return f"{words}: {self.description}" if self.description else words


@dataclass(frozen=True, slots=True)
class Share:
    """A label's part of a distribution."""

    label: str
    probability: float
    """0 to 1; over a distribution they sum to 1."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled input. At most one of label, label_set, value and distribution is not None: its target."""

    id: str
    input: Input
    label: str | None = None
    weight: float = 1.0
    """Finite, >= 0."""
    split: Split = Split.UNSPECIFIED
    group: str = ""
    """Examples with the same non-empty group are never torn apart by cross-validation."""
    label_set: tuple[str, ...] | None = None
    """All labels that apply, sorted; () is a target too: none does."""
    value: float | None = None
    distribution: tuple[Share, ...] | None = None
    subject: str = ""
    """Whose data it is: what erasure goes by."""

    @property
    def labelled(self) -> bool:
        """Whether it has a target."""
        targets = (self.label, self.label_set, self.value, self.distribution)
        return any(target is not None for target in targets)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that its target names."""
        if self.label is not None:
            return (self.label,)
        return self.label_set or tuple(share.label for share in self.distribution or ())


@dataclass(frozen=True, slots=True)
class Change:
    """Adds, replaces or removes one example. Exactly one of the two is not None."""

    upsert: Example | None = None
    delete_id: str | None = None

    @property
    def id(self) -> str:
        """The id of the example."""
        return self.upsert.id if self.upsert is not None else self.delete_id or ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one change was refused."""

    sequence: int
    reason: str
    """UPPER_SNAKE_CASE."""
    field: str
    """The path of the field at fault within the change."""
    detail: str
    """For people; never quotes the input."""
    writer_id: str


@dataclass(frozen=True, slots=True)
class StoredExample:
    """One accepted change that added or replaced an example."""

    adaptation_id: str
    writer_id: str
    sequence: int
    example: Example
    superseded: bool
    """Whether a later change of the adaptation replaced or removed it."""

    @property
    def place(self) -> tuple[str, str, int]:
        """Adaptation, writer and sequence: what the examples of a model are sorted by."""
        return self.adaptation_id, self.writer_id, self.sequence
