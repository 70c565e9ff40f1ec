"""An evaluation on examples that arrive in batches: good ones are taken in, bad ones refused with a reason."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import replace

from graft_server.adapting.intake.targets import TargetRules
from graft_server.adapting.intake.validation import check_input, check_weight
from graft_server.api.unknown_labels import UnknownLabels
from graft_server.domain.errors import InvalidError, OverloadError
from graft_server.domain.evaluated import EvaluatedVersion, ExampleError
from graft_server.domain.examples import Example
from graft_server.serving.evaluator import Evaluator
from graft_server.sharing.event_loop import in_slices
from graft_server.sharing.room import Share

MAX_EXAMPLES = 10_000
"""Of a batch."""
EXAMPLES_AT_ONCE = 64
"""Of a batch, between two turns of the event loop."""
MAX_REJECTIONS = 100
MAX_TRAINED_ON = 100
"""The most examples that the version was trained on whose places are named where not all are asked for."""
MAX_CLASS_REPORTS = 2_000


EVALUATION_BYTES = 256 << 20
"""The memory of what is kept for one evaluation: 100,000 examples of 77 labels."""
EVALUATIONS_BYTES = 512 << 20
"""Of all evaluations that this server carries out at once."""
RETRY_S = 10.0
"""The wait for an evaluation that is one too many."""


def _no_room() -> OverloadError:
    return OverloadError(
        f"The evaluations that are carried out now take as much memory as they may ({EVALUATIONS_BYTES >> 20} MiB): "
        "try again later.",
        reason="TOO_MANY_EVALUATIONS",
        retry_after_s=RETRY_S,
    )


class Evaluation:
    """One evaluation."""

    def __init__(self, evaluator: Evaluator, share: Share, *, all_places: bool = False) -> None:
        """Begins without examples.

        Args:
            evaluator: Measures them.
            share: What is kept of them takes room of it.
            all_places: Whether all that the version was trained on are named, and not the first alone.
        """
        self._most_trained_on = sys.maxsize if all_places else MAX_TRAINED_ON
        self._evaluator = evaluator
        self._share = share
        self._targets = TargetRules(evaluator.task)
        self._seen = 0
        self._rejected: list[ExampleError] = []
        self._total_rejected = 0
        self._trained_on: array[int] = array("q")
        self._total_trained_on = 0
        self._counted: array[int] = array("q")
        """The places in the stream of the examples that count, as far as that is known before all have come."""
        self._unknown = UnknownLabels([label.name for label in evaluator.served.labels])

    async def add(self, batch: Sequence[Example | InvalidError]) -> None:
        """Takes in a batch; a bad example is recorded, and the others are measured.

        Raises:
            InvalidError: The batch has too many examples, or the evaluation.
            OverloadError: Evaluations take as much memory as they may.
        """
        if len(batch) > MAX_EXAMPLES:
            raise InvalidError(
                f"examples has {len(batch):,} entries: at most {MAX_EXAMPLES:,} a message are accepted.",
                reason="TOO_MANY_EXAMPLES",
                field="examples",
            )
        checked = await in_slices(
            lambda place: self._checked(batch[place], place), range(len(batch)), EXAMPLES_AT_ONCE
        )
        found = iter(await self._evaluator.add([it for it in checked if isinstance(it, Example)]))
        for index, it in enumerate(checked, self._seen):
            if isinstance(it, Example):
                self._note(index, it, next(found))
            else:
                self._reject(index, it)
        self._seen += len(batch)
        size = self._evaluator.size + self._unknown.size + 8 * (len(self._counted) + len(self._trained_on))
        self._share.take(max(0, size - self._share.held), self._too_large, _no_room)

    def _too_large(self) -> InvalidError:
        return InvalidError(
            f"The first {self._seen:,} examples take as much memory as one evaluation may "
            f"({EVALUATION_BYTES >> 20} MiB): measure on fewer, or on parts of them one after the other.",
            reason="EVALUATION_TOO_LARGE",
            field="examples",
        )

    async def result(self) -> EvaluatedVersion:
        """Returns how good the version is on all examples that were taken in."""
        measured, copies = await self._evaluator.measure()
        trained_on = sorted([*self._trained_on, *(self._counted[it] for it in copies)])
        version = self._evaluator.served.version
        return EvaluatedVersion(
            version.model,
            version.number,
            replace(measured, per_class=measured.per_class[:MAX_CLASS_REPORTS]),
            tuple(self._rejected),
            self._total_rejected,
            tuple(trained_on[: self._most_trained_on]),
            self._total_trained_on + len(copies),
            await self._evaluator.threads.run(self._unknown.found),
            self._unknown.examples,
            training_examples_missing=not self._evaluator.trained.complete,
        )

    def _checked(self, example: Example | InvalidError, place: int) -> Example | InvalidError:
        """Returns an example, at `place` in the batch, with its target cleaned, or its error."""
        if isinstance(example, InvalidError):
            return example
        path = f"examples[{place}]"
        try:
            check_input(example.input, f"{path}.input")
            check_weight(example.weight, f"{path}.weight")
            _require_target(example, f"{path}.target")
            return self._targets.check(example, f"{path}.")
        except InvalidError as error:
            return error

    def _note(self, index: int, example: Example, found: InvalidError | bool) -> None:
        """Takes note of an example; `found` is the error of its input, or whether it counts."""
        if isinstance(found, InvalidError):
            self._reject(index, found)
            return
        self._unknown.add(index, example.labels)
        if found:
            self._counted.append(index)
        else:
            self._total_trained_on += 1
            if len(self._trained_on) < self._most_trained_on:
                self._trained_on.append(index)

    def _reject(self, index: int, error: InvalidError) -> None:
        self._total_rejected += 1
        if len(self._rejected) < MAX_REJECTIONS:
            self._rejected.append(ExampleError(index, error.reason, error.message))


def _require_target(example: Example, field: str) -> None:
    if not example.labelled:
        raise InvalidError(f"{field} is not set: give the right answer.", reason="LABEL_EMPTY", field=field)
