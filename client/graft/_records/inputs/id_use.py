"""Which ids stand for several examples: a later one replaces an earlier one of the same id."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from graft._records.inputs.examples import Example, TextPair
from graft._records.inputs.shapes import is_array
from graft._records.inputs.targets import word_of

_HALF = 0xFFFF_FFFF


class Use(enum.Enum):
    """How an id is used once more."""

    NEW = "new"
    """For the first time."""
    SAME = "same"
    """For the same input with the same target: nothing is lost."""
    OTHER_TARGET = "other_target"
    """For the same input with another target: the earlier target is lost."""
    OTHER_INPUT = "other_input"
    """For another input: the earlier example is lost."""


class IdUse:
    """Counts how ids are used. It keeps a digest of each id and of its example, about 150 bytes."""

    def __init__(self) -> None:
        self.examples = 0
        """Examples with an id."""
        self.repeats = dict.fromkeys(Use, 0)
        """Examples by how they use their id."""
        self._seen: dict[int, int] = {}
        self._several: set[int] = set()
        self._contradicted: set[int] = set()

    @property
    def ids(self) -> int:
        """Different ids."""
        return len(self._seen)

    @property
    def lossy(self) -> bool:
        """Whether some example would be lost."""
        return bool(self._several or self._contradicted)

    def add(self, example: Example) -> Use:
        """Notes an example that has an id, and says how it uses the id."""
        key, digest = hash(word_of(example.id)), _digest(example)
        before = self._seen.get(key)
        self._seen[key] = digest
        self.examples += 1
        use = _use(before, digest)
        self.repeats[use] += 1
        if use is Use.OTHER_INPUT:
            self._several.add(key)
        elif use is Use.OTHER_TARGET:
            self._contradicted.add(key)
        return use

    def forget(self, id_: str) -> None:
        """Notes that an example is taken back: its id is free."""
        self._seen.pop(hash(word_of(id_)), None)

    def said(self, rows: str, inputs: str) -> str:
        """The ids that are lost examples, in words: "15 ids for 30 rows, 14 of them with different texts"."""
        counts = [
            f"{len(found):,} of them with different {what}"
            for found, what in ((self._several, inputs), (self._contradicted, "labels"))
            if found
        ]
        return f"{self.ids:,} ids for {self.examples:,} {rows}, {' and '.join(counts)}"

    @property
    def lost(self) -> int:
        """Examples that a later one of the same id would replace."""
        return self.repeats[Use.OTHER_INPUT] + self.repeats[Use.OTHER_TARGET]


def _use(before: int | None, digest: int) -> Use:
    if before is None:
        return Use.NEW
    if before == digest:
        return Use.SAME
    return Use.OTHER_TARGET if before >> 32 == digest >> 32 else Use.OTHER_INPUT


def _digest(example: Example) -> int:
    """64 bits: the upper half of the input, the lower one of the target."""
    target = (
        example.label,
        None if example.labels is None else frozenset(map(str, example.labels)),
        example.value,
        None if example.distribution is None else frozenset(map(str, example.distribution.items())),
    )
    return (hash(_content(example.input)) & _HALF) << 32 | (hash(target) & _HALF)


def _content(value: object) -> object:
    if isinstance(value, TextPair):
        return value.first, value.second
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if is_array(value):
        return str(value.tolist())
    return str(value) if isinstance(value, Mapping | list) else value
