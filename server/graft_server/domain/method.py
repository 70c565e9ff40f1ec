"""How much of a backbone is trained."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How much of a backbone an adaptation trains."""

    AUTO = "auto"
    """The head; within a time budget the layers too, if that is better by more than noise."""
    FROZEN = "frozen"
    """The head alone."""
    PARTIAL = "partial"
    """The head and the upper layers."""
    FULL = "full"
    """The head and all layers."""
