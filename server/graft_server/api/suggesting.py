"""What to label next, of candidates that arrive in batches and of those that are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence

from graft_server.adapting.intake.validation import check_input
from graft_server.api.example_lists import some_of
from graft_server.domain.errors import InvalidError, OverloadError
from graft_server.domain.evaluated import ExampleError
from graft_server.domain.examples import Example, Kind, Modality, StoredExample
from graft_server.domain.names import shown
from graft_server.domain.suggestion import SuggestionRequest, Suggestions
from graft_server.serving.suggesting.suggester import Suggester
from graft_server.sharing.event_loop import in_slices
from graft_server.sharing.room import Share

DEFAULT_COUNT = 20
MAX_COUNT = 1_000
MAX_EXAMPLES = 10_000
"""Of a batch."""
MAX_CANDIDATES = 100_000
"""Of a call."""
EXAMPLES_AT_ONCE = 64
"""Of a batch, between two turns of the event loop."""
MAX_REJECTIONS = 100
SUGGESTING_BYTES = 256 << 20
"""The memory of what is kept for one call: 100,000 candidates with features of 1,100 numbers."""
ALL_SUGGESTING_BYTES = 512 << 20
"""Of all calls that this server carries out at once."""
RETRY_S = 10.0
"""The wait for a call that is one too many."""
_MODALITIES = {
    Kind.TEXT: Modality.TEXT,
    Kind.TEXT_PAIR: Modality.TEXT,
    Kind.IMAGE: Modality.IMAGE,
    Kind.AUDIO: Modality.AUDIO,
}


def checked_count(count: int) -> int:
    """Returns how many suggestions are wanted; raises InvalidError if they are more than there can be."""
    if not 0 <= count <= MAX_COUNT:
        raise InvalidError(
            f"count is {count:,}: ask for 1 to {MAX_COUNT:,} suggestions, or leave it 0 for {DEFAULT_COUNT}.",
            reason="COUNT_INVALID",
            field="count",
        )
    return count or DEFAULT_COUNT


def modality_of(batch: Sequence[Example | InvalidError]) -> Modality | None:
    """Returns what the first candidate that can be read is; None: features, or there is none."""
    kinds = (it.input.kind for it in batch if isinstance(it, Example))
    return _MODALITIES.get(next(kinds, Kind.FEATURES))


def nothing_to_rank(model: str, *, stored: bool) -> InvalidError:
    """The error where there was no candidate at all."""
    if stored:
        return InvalidError(
            f"Model {shown(model)} has no unlabelled example stored, and none was sent: send candidates.",
            reason="CANDIDATES_MISSING",
            field="examples",
        )
    return InvalidError(
        "There is no candidate: send examples without targets, or set stored for the unlabelled ones that are stored.",
        reason="CANDIDATES_MISSING",
        field="examples",
    )


def unlabelled_among(
    entries: Iterator[tuple[StoredExample, str]], ids: Collection[str] | None
) -> list[Example] | None:
    """Returns the next of a model's stored examples that are not labelled.

    Args:
        entries: What is stored, with tokens of pages.
        ids: The examples that count; None: all.

    Returns:
        Some of them, or none of the part that was looked at; None: there are no more.
    """
    some = some_of(entries)
    if not some:
        return None
    return [
        it.example
        for it, _ in some
        if not it.superseded and not it.example.labelled and (ids is None or it.example.id in ids)
    ]


def _no_room() -> OverloadError:
    return OverloadError(
        f"The calls of SuggestExamples that are carried out now take as much memory as they may "
        f"({ALL_SUGGESTING_BYTES >> 20} MiB): try again later.",
        reason="TOO_MANY_SUGGESTIONS",
        retry_after_s=RETRY_S,
    )


class Suggesting:
    """One call."""

    def __init__(self, suggester: Suggester, share: Share) -> None:
        """Begins without candidates.

        Args:
            suggester: Ranks them.
            share: What is kept of them takes room of it.
        """
        self._suggester = suggester
        self._share = share
        self._seen = 0
        self._rejected: list[ExampleError] = []
        self._total_rejected = 0

    async def add_all(self, batches: AsyncIterator[Sequence[Example | InvalidError]]) -> None:
        """Takes in candidates; a bad one is recorded, and the others are ranked.

        Raises:
            InvalidError: They are too many.
            OverloadError: Calls take as much memory as they may.
        """
        async for batch in batches:
            await self._add(batch)

    async def _add(self, batch: Sequence[Example | InvalidError]) -> None:
        if len(batch) > MAX_EXAMPLES:
            raise InvalidError(
                f"examples has {len(batch):,} entries: at most {MAX_EXAMPLES:,} a message are accepted.",
                reason="TOO_MANY_EXAMPLES",
                field="examples",
            )
        self._require_few(len(batch))
        checked = await in_slices(
            lambda place: _checked(batch[place], place), range(len(batch)), EXAMPLES_AT_ONCE
        )
        found = await self._suggester.add(
            self._seen, [it if isinstance(it, Example) else None for it in checked]
        )
        for index, (it, error) in enumerate(zip(checked, found, strict=True), self._seen):
            if isinstance(it, InvalidError):
                self._reject(index, it)
            elif error is not None:
                self._reject(index, error)
        self._seen += len(batch)
        self.hold()

    def _require_few(self, more: int) -> None:
        if self._seen + more > MAX_CANDIDATES or self._suggester.candidates > MAX_CANDIDATES:
            raise InvalidError(
                f"There are more than {MAX_CANDIDATES:,} candidates: send a random part of them, without stored ones.",
                reason="TOO_MANY_CANDIDATES",
                field="examples",
            )

    def hold(self) -> None:
        """Takes room for what is kept."""
        self._share.take(max(0, self._suggester.size - self._share.held), self._too_large, _no_room)

    def _too_large(self) -> InvalidError:
        return InvalidError(
            f"The first {self._suggester.candidates:,} candidates take as much memory as one call may "
            f"({SUGGESTING_BYTES >> 20} MiB): send a random part of them.",
            reason="SUGGESTION_TOO_LARGE",
            field="examples",
        )

    async def add_stored(self, parts: AsyncIterator[Sequence[Example]]) -> None:
        """Takes in stored examples, by their inputs.

        Raises:
            InvalidError: They are too many.
            OverloadError: Calls take as much memory as they may.
        """
        async for part in parts:
            for error in await self._suggester.add(None, part):
                self._total_rejected += error is not None
            self._require_few(0)
            self.hold()

    async def result(self, request: SuggestionRequest, model: str) -> Suggestions:
        """Ranks all candidates that were taken in.

        Raises:
            InvalidError: There was none.
        """
        suggester = self._suggester
        served = suggester.served
        seen = suggester.candidates + suggester.labelled + suggester.copies + self._total_rejected
        if not seen:
            raise nothing_to_rank(model, stored=request.stored)
        candidates = suggester.candidates
        return Suggestions(
            model=model,
            version=0 if served is None else served.version.number,
            task=None if served is None else served.manifest.task,
            suggestions=await suggester.suggestions(checked_count(request.count)),
            candidates=candidates,
            labelled=suggester.labelled,
            copies=suggester.copies,
            rejected=tuple(self._rejected),
            total_rejected=self._total_rejected,
        )

    def _reject(self, index: int, error: InvalidError) -> None:
        self._total_rejected += 1
        if len(self._rejected) < MAX_REJECTIONS:
            self._rejected.append(ExampleError(index, error.reason, error.message))


def _checked(example: Example | InvalidError, place: int) -> Example | InvalidError:
    """Returns a candidate, at `place` in the batch, or its error."""
    if isinstance(example, InvalidError):
        return example
    try:
        check_input(example.input, f"examples[{place}].input")
    except InvalidError as error:
        return error
    return example
