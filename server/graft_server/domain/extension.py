"""What came of the examples of an adaptation that goes on from those of a version, its base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extension:
    """What came of an adaptation's examples beside those of its base; each example counts once, by its last change."""

    base_version: int
    base_examples: int = 0
    """The examples of the base, but for those that were erased since."""
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
