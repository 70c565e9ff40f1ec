"""What came of the examples of an adaptation that goes on from those of a version."""

from __future__ import annotations

from dataclasses import dataclass

from graft.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Extension:
    """What came of the examples beside those of a version, the base. Each example counts once, by its last change."""

    base_version: int
    """The version."""
    base_examples: int
    """How many examples that version has, but for those that were erased since."""
    added: int = 0
    """Examples that the base lacks."""
    replaced_by_id: int = 0
    """Examples of the base that were replaced by one with the same id."""
    replaced_by_content: int = 0
    """Examples of the base that were corrected by one without its id, which has the same input."""
    unchanged: int = 0
    """Examples of the base that were sent once more as they are there."""
    deleted: int = 0
    """Examples of the base that were removed."""
    match_content: bool = False
    """Whether examples without an id are those of the base that have the same input."""

    @property
    def nothing_new(self) -> bool:
        """Whether the examples are those of the base."""
        return not (self.added or self.replaced_by_id or self.replaced_by_content or self.deleted)

    @property
    def examples(self) -> int:
        """How many examples there are in all."""
        return self.base_examples + self.added - self.deleted

    def __str__(self) -> str:
        """Returns it in words: "version 4: 400 examples + 12 new, 3 replaced by id"."""
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.replaced_by_id, "replaced by id"),
                (self.replaced_by_content, "corrected by content"),
                (self.deleted, "removed"),
                (self.unchanged, "that were there already"),
            )
            if count
        ]
        base = f"version {self.base_version}: {self.base_examples:,} example{'s' * (self.base_examples != 1)}"
        return ", ".join([f"{base} + {self.added:,} new" if self.added or parts else base, *parts])


def extension_of(message: types_pb2.Extension) -> Extension:
    """The extension that a message carries."""
    return Extension(
        base_version=message.base_version,
        base_examples=message.base_examples,
        added=message.added,
        replaced_by_id=message.replaced_by_id,
        replaced_by_content=message.replaced_by_content,
        unchanged=message.unchanged,
        deleted=message.deleted,
        match_content=message.match_content,
    )


def extension_if(message: types_pb2.Extension, *, is_set: bool) -> Extension | None:
    """The extension that a message carries, or None where its field is not set."""
    return extension_of(message) if is_set else None
