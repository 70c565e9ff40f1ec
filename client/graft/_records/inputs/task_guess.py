"""The task that a caller's targets are for, where the caller does not name it."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from graft._records.inputs.examples import ChangeLike, Delete, Example
from graft._records.inputs.targets import is_collection, plain

_MAX_KINDS: Final = 1_000
"""The most different numbers that are told apart; more are no codes of classes."""
_FEW: Final = 20
"""So many different whole numbers may be names of classes, however rarely each occurs."""
_SHOWN: Final = 4
_NUMBERS: Final = "numbers"
"""What may be labels or values, among the tasks that targets tell."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A task, and the reason for it."""

    task: str
    """ "single_label", "multi_label" or "regression"; "" if nothing tells."""
    because: str = ""
    """The reason, where a person may see it otherwise; "" where the type of the targets says it."""
    doubtful: bool = False
    """Whether the targets are whole numbers, or true and false, which may be either."""

    def said(self, overruled_by: str) -> str:
        """The guess in a sentence; "" where there is nothing to say.

        Args:
            overruled_by: What names another task, with {} in place of the task.
        """
        if not self.because:
            return ""
        other = "regression" if self.task == "single_label" else "single_label"
        overruled = overruled_by.format(other.replace("_", "-"))
        return f"task: {self.task.replace('_', '-')}, guessed because {self.because}; {overruled} overrules"


class TaskGuess:
    """Looks at targets, one example at a time, until they tell the task.

    Each set of labels, distribution, named field and text is for one task. Missing targets tell nothing. Numbers are
    values, but for three kinds: integers, which are labels unless nearly every one is another; the floats 0.0 and 1.0
    alone; and whole floats 0.0, 1.0, 2.0 beside missing ones, because a missing code makes floats of codes in pandas.
    """

    def __init__(self) -> None:
        self._tasks: Counter[str] = Counter()
        self._missing = 0
        self._integers = 0
        self._whole = 0
        self._fractions = 0
        self._kinds: set[int] = set()
        self._truths: set[bool] = set()

    @property
    def open(self) -> bool:
        """Whether the next example may tell more than those before."""
        return not (self._fractions or self._tasks.keys() - {_NUMBERS})

    def add(self, change: ChangeLike) -> None:
        """Looks at one example."""
        if isinstance(change, Delete):
            return
        if not isinstance(change, Example):
            if isinstance(change, tuple | list) and len(change) == 2:
                self._add_target(change[1])
            return
        if change.labels is not None:
            self._tasks["multi_label"] += 1
        elif change.distribution is not None:
            self._tasks["single_label"] += 1
        elif plain(change.value) is not None:
            self._tasks["regression"] += 1
        else:
            self._add_target(change.label)

    def _add_target(self, target: object) -> None:
        if is_collection(target):
            self._tasks["multi_label"] += 1
        elif (value := plain(target)) is None:
            self._missing += 1
        elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            self._add_number(value)
        else:
            if isinstance(value, bool):
                self._truths.add(value)
            self._tasks["single_label"] += 1

    def _add_number(self, value: float | Decimal) -> None:
        self._tasks[_NUMBERS] += 1
        if not math.isfinite(value) or value % 1:
            self._fractions += 1
            return
        if isinstance(value, int):
            self._integers += 1
        else:
            self._whole += 1
        if len(self._kinds) < _MAX_KINDS:
            self._kinds.add(int(value))

    def result(self) -> Guess:
        """The task of the most targets, and of several tasks with as many, the task of the first target."""
        if not self._tasks:
            return Guess("")
        (most, _), *_ = self._tasks.most_common(1)
        if most == "single_label" and self._truths:
            words = " and ".join(str(it) for it in sorted(self._truths, reverse=True))
            return Guess(most, f"targets are {words}, which are taken for the names of classes", True)
        if most != _NUMBERS:
            return Guess(most)
        if self._fractions:
            return Guess("regression", f"targets are numbers, {self._fractions:,} of them fractions")
        return self._of_whole_numbers()

    def _of_whole_numbers(self) -> Guess:
        codes = sorted(self._kinds)
        shown = _listed(str(code) for code in codes)
        count = self._integers + self._whole
        if self._integers >= self._whole:
            if len(codes) > _FEW and 2 * len(codes) > count:
                return Guess(
                    "regression",
                    f"targets are {count:,} whole numbers, {len(codes):,} of them different",
                    True,
                )
            return Guess(
                "single_label", f"targets are the whole numbers {shown}, which may be names of classes", True
            )
        if self._missing and _are_codes(codes, count):
            return Guess(
                "single_label",
                f"targets are the whole numbers {shown} and {self._missing:,} {_are(self._missing)} missing, which "
                "makes floats of codes",
                True,
            )
        if codes == [0, 1] and count > len(codes):
            return Guess("single_label", "targets are 0.0 and 1.0 alone", True)
        return Guess("regression", f"targets are the floats {_listed(f'{code}.0' for code in codes)}", True)


def _listed(words: Iterable[str]) -> str:
    first = list(itertools.islice(words, _SHOWN + 1))
    return ", ".join(first[:_SHOWN]) + (", …" if len(first) > _SHOWN else "")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _are_codes(codes: list[int], count: int) -> bool:
    """Whether whole numbers are likely to be codes of classes: few, counted from 0 or 1, most of them in use."""
    if len(codes) < 2 or codes[0] not in (0, 1):
        return False
    all_used = len(codes) == codes[-1] - codes[0] + 1
    if codes[0] == 0 and all_used:
        return count > len(codes)
    return 2 * len(codes) >= codes[-1] - codes[0] + 1 and count >= 3 * len(codes)
