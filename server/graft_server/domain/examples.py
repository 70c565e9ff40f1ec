"""The training data that clients send, as plain data: inputs, examples, and changes to them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from enum import StrEnum

DIGEST_BYTES = 16
"""The length of the digest of an input."""


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
    """One thing to classify, in the raw form that the caller has: a sum of its kinds.

    The defaults describe a text, so that stored inputs without a kind are read as texts.
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
        """The approximate size in bytes: a character counts as one."""
        return len(self.text) + len(self.second) + len(self.data)

    def digest(self) -> bytes:
        """Returns 16 bytes that are equal for equal inputs and differ between kinds."""
        if self.kind is Kind.TEXT:
            content = self.text.encode()
        elif self.kind is Kind.TEXT_PAIR:
            first = self.text.encode()
            content = b"%d\0%b%b" % (len(first), first, self.second.encode())
        else:
            content = self.data
        return hashlib.blake2b(self.kind.encode() + b"\0" + content, digest_size=DIGEST_BYTES).digest()


class Task(StrEnum):
    """The kind of answer that a model gives."""

    SINGLE_LABEL = "single_label"
    """One of the labels."""
    MULTI_LABEL = "multi_label"
    """Any number of the labels."""
    REGRESSION = "regression"
    """A number."""
    DEFAULT = "single_label"
    """The default: another name for a caller that names no task, and for stored data without one."""

    @property
    def words(self) -> str:
        """The task's name as people write it."""
        return self.value.replace("_", "-")


class Split(StrEnum):
    """The part that an example plays in training and evaluation."""

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
        """The text that a text backbone reads for the label: names are evidence."""
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
    """Cross-validation keeps examples with the same non-empty group in one fold."""
    label_set: tuple[str, ...] | None = None
    """All labels that apply, sorted; () is a target too: no label applies."""
    value: float | None = None
    distribution: tuple[Share, ...] | None = None
    subject: str = ""
    """The person whose data it is: erasure finds examples by it."""
    origin: str = ""
    """Where it came from, for people."""
    confirmed: bool = False
    """Whether a person looked at the target and kept it."""

    @property
    def target(self) -> tuple[object, ...]:
        """What it should be answered with: equal for equal targets."""
        return self.label, self.label_set, self.value, self.distribution

    @property
    def labelled(self) -> bool:
        """Whether it has a target."""
        return any(target is not None for target in self.target)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that its target names."""
        if self.label is not None:
            return (self.label,)
        return self.label_set or tuple(share.label for share in self.distribution or ())


def still_confirmed(example: Example, before: Example | None) -> Example:
    """Returns an example that replaces another one, confirmed if that one was, with the same input and target."""
    if before is None or example.confirmed or not before.confirmed:
        return example
    same = example.target == before.target and example.input == before.input
    return replace(example, confirmed=True) if same else example


@dataclass(frozen=True, slots=True)
class Change:
    """Adds, replaces or removes one example. Exactly one of the two fields is not None."""

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
class ExamplesWanted:
    """Which of a model's examples are asked for: those that all fields allow."""

    adaptation_id: str = ""
    """Only this adaptation's; "": all."""
    subject: str = ""
    """Only this subject's; "": anybody's."""
    ids: frozenset[str] = frozenset()
    """Only those with one of these ids; none: any."""
    version: int = 0
    """Only what this version was made of, in the state that it was made with; 0: all that is stored."""
    label: str = ""
    """Only those that carry this label, alone or among others; "": any."""
    split: Split = Split.UNSPECIFIED
    """Only those of this split; UNSPECIFIED: any."""

    def covers(self, example: Example) -> bool:
        """Whether an example is one of them, as far as it tells itself."""
        return (
            self.subject in ("", example.subject)
            and (not self.ids or example.id in self.ids)
            and (not self.label or self.label in example.labels)
            and self.split in (Split.UNSPECIFIED, example.split)
        )


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
        """Adaptation, writer and sequence: the sort key of a model's examples."""
        return self.adaptation_id, self.writer_id, self.sequence
