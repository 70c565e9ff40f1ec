"""Labels in a caller's examples that a version cannot answer with: counted, with their places."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from graft_server.domain.evaluated import UnknownLabel
from graft_server.domain.wording import wording

MAX_LABELS = 50
"""The most labels that are named."""
MAX_INDICES = 10
"""The most places of one label that are named."""
COUNTED_BYTES = 500
"""The memory of a label that is counted, besides its characters."""
LIKENESS = 0.8
"""The least share of equal characters of two labels of which one is probably meant for the other."""
MAX_CHARACTERS = 100
"""The longest label for which a similar one is sought: the time grows with the square of the length."""


@dataclass(slots=True)
class _Counted:
    examples: int = 0
    indices: list[int] = field(default_factory=list)


class UnknownLabels:
    """The labels that a version does not know, as examples come in.

    Attributes:
        examples: How many examples carry one.
        size: The memory that they take, in bytes.
    """

    def __init__(self, known: Sequence[str]) -> None:
        """Begins without examples; `known` are the version's labels."""
        self.examples = 0
        self.size = 0
        self._known = frozenset(known)
        self._counted: dict[str, _Counted] = {}

    def add(self, index: int, labels: Sequence[str]) -> None:
        """Counts the labels of an example; `index` is its place in the stream."""
        unknown = [label for label in labels if label not in self._known]
        self.examples += bool(unknown)
        for label in unknown:
            if label not in self._counted:
                self.size += COUNTED_BYTES + len(label)
            counted = self._counted.setdefault(label, _Counted())
            counted.examples += 1
            if len(counted.indices) < MAX_INDICES:
                counted.indices.append(index)

    def found(self) -> tuple[UnknownLabel, ...]:
        """Returns the most frequent ones."""
        similar = _Similar(sorted(self._known))
        most = sorted(self._counted.items(), key=lambda it: (-it[1].examples, it[0]))[:MAX_LABELS]
        return tuple(
            UnknownLabel(label, it.examples, tuple(it.indices), similar.to(label)) for label, it in most
        )


class _Similar:
    """Finds the label that is spelt most alike."""

    def __init__(self, known: Sequence[str]) -> None:
        self._by_wording = {wording(label): label for label in known}
        self._by_case = {label.casefold(): label for label in known if len(label) <= MAX_CHARACTERS}

    def to(self, label: str) -> str:
        """Returns the label that was probably meant; "" if none is similar."""
        words = wording(label)
        if words and words in self._by_wording:
            return self._by_wording[words]
        if len(label) > MAX_CHARACTERS:
            return ""
        closest = difflib.get_close_matches(label.casefold(), self._by_case, n=1, cutoff=LIKENESS)
        return self._by_case[closest[0]] if closest else ""
