"""The columns that answers have in a file or a frame: which there are, what they are called, what they hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from graft._records.inputs.label_cells import cell_of
from graft._records.predicting.predictions import Prediction
from graft.errors import GraftError

PREFIX: Final = "predicted_"
"""What comes before the name of a column that the input has a column of the same name for."""
_PLACE: Final = re.compile(r"^inputs\[\d+\](?:\.(\w+))?")
_DIGITS: Final = 7
"""So many digits tell any two numbers of 32 bits apart, nearly."""


class AnswerColumns:
    """The columns of answers to one task.

    Attributes:
        names: Their names, in order.
        kinds: What each holds, "text", "number", "flag", "texts" or "numbers", each of which may be missing.
        renamed: The usual names that others have, each with the one that is taken in its place.
    """

    def __init__(
        self,
        task: str,
        *,
        top_k: int = 0,
        labels: Sequence[str] = (),
        prefix: str = "",
        taken: Collection[str] = (),
    ) -> None:
        """Chooses the columns.

        Args:
            task: "single_label", "multi_label" or "regression".
            top_k: How many labels there are columns for, each with its probability. 0: the one that is answered.
            labels: Labels that have a column of their probability each.
            prefix: What comes before each name.
            taken: Names that the input's columns have: a name among them, in whatever case, gets `PREFIX`.
        """
        self._task = task
        self._top_k = 0 if task == "regression" else top_k
        self._labels = () if task == "regression" else tuple(labels)
        chosen = [*self._answer(), *((f"probability:{it}", "number") for it in self._labels)]
        chosen += [("abstained", "flag"), ("truncated", "flag"), ("novelty", "number"), ("error", "text")]
        used = {it.casefold() for it in taken}
        self.kinds = tuple(kind for _, kind in chosen)
        usual = [f"{prefix}{name}" for name, _ in chosen]
        self.names = tuple(_free(name, used) for name in usual)
        self.renamed = [(name, it) for name, it in zip(usual, self.names, strict=True) if name != it]

    def _answer(self) -> list[tuple[str, str]]:
        if self._task == "regression":
            return [("value", "number"), ("low", "number"), ("high", "number")]
        first = [("label", "text"), ("probability", "number")]
        if self._task == "multi_label":
            first = [("labels", "texts"), ("probabilities", "numbers")]
        begin = 1 if self._task == "multi_label" else 2
        more = [
            (f"{name}_{rank}", kind)
            for rank in range(begin, self._top_k + 1)
            for name, kind in (("label", "text"), ("probability", "number"))
        ]
        return first + more

    @property
    def scores(self) -> int:
        """How many scores an answer must have."""
        return len(self._labels) or max(self._top_k, 1)

    def values(self, answer: Prediction | str) -> list[Any]:
        """What the columns hold: of an answer, or of an error by its message."""
        if isinstance(answer, str):
            return [*[None] * (len(self.names) - 1), answer]
        if answer.error is not None:
            return [*[None] * (len(self.names) - 1), reason_of(answer.error)]
        rest = [answer.abstained, answer.truncated, _short(answer.novelty), None]
        return [*self._values(answer), *rest]

    def _values(self, answer: Prediction) -> list[Any]:
        if self._task == "regression":
            return [answer.value, answer.low, answer.high]
        ranked = answer.scores
        if self._task == "multi_label":
            chosen = [it for it in ranked if it.selected]
            found: list[Any] = [[it.label for it in chosen], [_short(it.probability) for it in chosen]]
            more = ranked[: self._top_k]
        else:
            found = [ranked[0].label, _short(ranked[0].probability)] if ranked else [None, None]
            more = ranked[1 : self._top_k]
        for score in more:
            found += [score.label, _short(score.probability)]
        found += [None] * (len(self._answer()) - len(found))
        if self._labels:
            by_label = {it.label: _short(it.probability) for it in ranked}
            found += [by_label.get(it) for it in self._labels]
        return found


def reason_of(error: GraftError) -> str:
    """Why an input could not be answered, without its place among those that were sent with it."""
    return _PLACE.sub(lambda it: f"the {(it[1] or 'input').replace('_', ' ')}", error.message)


def cell_text(value: Any) -> str:
    """What a cell of a table has for a value: "" if it is missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(it, float) for it in value)
        return ",".join(map(str, value)) if numbers else cell_of(value)
    return str(value)


def _short(number: float) -> float:
    """A number of 32 bits without the digits that the wider type adds."""
    return float(f"{number:.{_DIGITS}g}")


def _free(name: str, used: set[str]) -> str:
    """A name that is not in use: the same, or with `PREFIX`, or with a number behind."""
    found, count = name, 1
    if found.casefold() in used:
        name = found = f"{PREFIX}{name}"
    while found.casefold() in used:
        count += 1
        found = f"{name}_{count}"
    used.add(found.casefold())
    return found
