"""From a caller's changes to protobuf, and what is noticed of them on the way: what is missing, what is given twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from graft._records.adapting.live import stays
from graft._records.adapting.row_counts import RowCounts, RowTally
from graft._records.adapting.told import AdaptResult, CheckResult
from graft._records.evaluation.label_forms import MAX_SIMILAR, similar
from graft._records.inputs.examples import ChangeLike, Delete, Example, numbered_change_message
from graft._records.inputs.id_use import IdUse
from graft._records.inputs.list_cells import list_of
from graft._records.inputs.swapped import SwapGuess
from graft._records.inputs.task_guess import Guess
from graft.v1 import adaptation_pb2

OVERRULED_BY = "task='{}'"
"""How a caller of the client names another task."""
_MAX_LABELS = 1_000_000
"""The most labels that are counted; more are no labels."""


class Conversion:
    """Converts the changes of one `adapt` or `check`, in order."""

    def __init__(self, task: str, guess: Guess, *, checked: bool = False) -> None:
        """Begins.

        Args:
            task: "single_label", "multi_label", "regression", or "" if it is not known.
            guess: How the task was found, if the caller did not name it.
            checked: Whether to count what a check says.
        """
        self._task = task.replace("-", "_")
        self._guess = guess
        self._checked = checked
        self._unlabelled = 0
        self._labels: Counter[str] = Counter()
        self._ids = IdUse()
        self._tally = RowTally()
        self._swap = SwapGuess()

    def changes(self, changes: Iterable[ChangeLike]) -> Iterator[adaptation_pb2.ExampleChange]:
        """The protobuf form of all changes, one by one, as they arrive."""
        for number, change in enumerate(changes):
            yield self.change(number, change)

    def change(self, number: int, change: ChangeLike) -> adaptation_pb2.ExampleChange:
        """The protobuf form of change `number`, counted from 0 in errors."""
        message = numbered_change_message(number, change, self._task)
        self._tally.add(message)
        if self._swap.open:
            self._swap.add(message.upsert.input.text, message.upsert.label)
        if self._checked:
            self._count(message, change)
        return message

    def adapt_result(self, result: AdaptResult, first_sequence: int) -> AdaptResult:
        """The result of an adaptation, with what was noticed and counted.

        Args:
            result: As the server's answers tell it.
            first_sequence: The number of the first change in the writer's stream.
        """
        places = (it.sequence - first_sequence for it in result.rejected)
        rows = self._tally.counts(places, result.rejected_count)
        notices = (*self.notices, *result.notices, _stays(result), _mostly_refused(result, rows))
        return replace(result, notices=tuple(filter(None, notices)), rows=rows)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a caller should know, in sentences."""
        return tuple(filter(None, (self._guess.said(OVERRULED_BY), self._swap.said())))

    def check_result(self, model: str, examples: int, found: AdaptResult) -> CheckResult:
        """The result of a check of some examples: what the server found, and what was counted here."""
        ids = self._ids
        notices = [*self.notices]
        if self._unlabelled:
            notices.append(
                f"{self._unlabelled:,} of {examples:,} examples carry no target: they count as unlabelled"
            )
        if self._task == "single_label" and len(self._labels) == 1 and examples > 1:
            notices.append(
                f"all labelled examples carry the label {next(iter(self._labels))!r:.60}: a model needs 2 or more"
            )
        if ids.lossy:
            notices.append(
                f"{ids.said('examples', 'inputs')}: later ones would replace {ids.lost:,} of the same id"
            )
        if lists := [label for label in self._labels if list_of(label) is not None]:
            notices.append(
                f"{len(lists):,} labels look like lists, such as {lists[0]:.60}: give the labels as a set"
            )
        alike = similar(self._labels)
        return CheckResult(
            model,
            examples,
            found.rejected,
            found.rejected_count,
            task=self._task,
            unlabelled=self._unlabelled,
            similar_labels=alike[:MAX_SIMILAR],
            replaced=ids.lost,
            notices=tuple(notices),
            extension=found.extension,
            rows=self._tally.counts((it.sequence for it in found.rejected), found.rejected_count),
        )

    def _count(self, message: adaptation_pb2.ExampleChange, change: ChangeLike) -> None:
        if isinstance(change, Delete):
            self._ids.forget(change.id)
            return
        example = message.upsert
        match example.WhichOneof("target"):
            case None:
                self._unlabelled += 1
            case "label":
                self._carried([example.label])
            case "label_set":
                self._carried(set(example.label_set.labels))
            case "distribution":
                self._carried({it.label for it in example.distribution.labels})
        if isinstance(change, Example) and example.id:
            self._ids.add(change)

    def _carried(self, labels: Iterable[str]) -> None:
        if len(self._labels) < _MAX_LABELS:
            self._labels.update(labels)


def _stays(result: AdaptResult) -> str:
    """Says of a version that it is not live, and why; "" if it is."""
    why = stays(result.model, result.version, result.live_version, result.live_pinned_time, command=False)
    return why and f"version {result.version} was published; {why}"


def _mostly_refused(result: AdaptResult, rows: RowCounts | None) -> str:
    """That most examples were refused, and why; "" where that is not so."""
    if rows is None or 2 * rows.refused <= rows.read:
        return ""
    named = ", ".join(f"{reason} {count:,}" for reason, count in result.rejected_reasons.items())
    return f"most examples were refused: {rows.refused:,} of {rows.read:,} ({named})"
