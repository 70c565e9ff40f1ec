"""What the examples that a report names are: joined when a report is shown, since the stored report quotes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graft._records.inputs.examples import Input, TextPair


@dataclass(frozen=True, slots=True)
class Quote:
    """What an example that a report names is."""

    text: str = ""
    """Its text; of a pair both, with a bar between them. Empty for files and features."""
    origin: str = ""
    """Where it came from, such as "train.csv:17", or ""."""
    content: bytes = field(default=b"", repr=False)
    """The file of an image or a clip, if it was read."""
    confirmed: bool = False
    """Whether a person looked at its label and kept it."""

    @property
    def name(self) -> str:
        """What people know it by: its text, or where it came from; "" if neither is known."""
        return self.text or self.origin


@dataclass(frozen=True, slots=True)
class Quotes:
    """What the examples that a report names are, as far as they may be read."""

    found: Mapping[str, Quote] = field(default_factory=dict)
    """By the examples' ids."""
    missing: int = 0
    """How many of the examples were erased since, or are not stored any more."""
    reason: str = ""
    """Why none can be read, if none can."""

    def of(self, id_: str) -> Quote:
        """The quote of an example; an empty one where there is none."""
        return self.found.get(id_, _NOTHING)

    @property
    def said(self) -> str:
        """What cannot be shown, and why, as a sentence; "" if all can be."""
        if self.reason:
            return f"The examples cannot be read, so only their ids are shown: {self.reason}"
        if not self.missing:
            return ""
        what = (
            "1 example that is named was"
            if self.missing == 1
            else f"{self.missing:,} examples that are named were"
        )
        return f"{what} erased since: only the id is shown."


_NOTHING = Quote()


def quote_of(value: Input | object | None, origin: str, *, confirmed: bool) -> Quote:
    """The quote of a stored example's input."""
    match value:
        case str():
            return Quote(value, origin, confirmed=confirmed)
        case TextPair():
            return Quote(f"{value.first} | {value.second}", origin, confirmed=confirmed)
        case bytes():
            return Quote("", origin, value, confirmed=confirmed)
        case _:
            return Quote("", origin, confirmed=confirmed)
