"""Gives labels that a person reads as one the same name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from graft._records.evaluation.label_forms import reading, similar, spelled

_SHOWN = 10


class MergedLabels:
    """Names labels. The first form of a label that is known names all its forms."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """Begins with the names of known labels."""
        self._names: dict[str, str] = {}
        self._changed: Counter[tuple[str, str]] = Counter()
        for label in known:
            self._names.setdefault(reading(label), label)

    def prefer_frequent(self, examples: Mapping[str, int]) -> None:
        """Names similar labels after the most frequent one, where no name is known."""
        for group in similar(examples):
            self._names.setdefault(reading(group.labels[0].label), group.labels[0].label)

    def __call__(self, label: str) -> str:
        """The name of a label."""
        name = self._names.setdefault(reading(label), label.strip())
        if name != label.strip():
            self._changed[label, name] += 1
        return name

    @property
    def notes(self) -> list[str]:
        """What was merged, in sentences."""
        if not self._changed:
            return []
        found = self._changed.most_common()
        listed = "; ".join(
            f"{spelled(it)} ({count:,}) into {spelled(name)}" for (it, name), count in found[:_SHOWN]
        )
        more = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        return [f"merged labels: {listed}{more}"]
