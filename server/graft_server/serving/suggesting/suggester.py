"""Takes candidates, and ranks them by what their labels would teach a version. Nothing is stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.preprocessing import Prepared, features_unread
from graft_server.domain.caller import Caller, new_call
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import DIGEST_BYTES, Example, Input, Kind
from graft_server.domain.prediction import Prediction
from graft_server.domain.suggestion import Suggestion, Why
from graft_server.domain.views import POOLED, stacked
from graft_server.encoding.encoder import Features
from graft_server.encoding.fair_queue import Arrays
from graft_server.encoding.queueing import Lane
from graft_server.encoding.trunk import Trunk
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.serving.stored_inputs import Stored, digests_of
from graft_server.serving.suggesting.choosing import Choice, choose
from graft_server.serving.versions import ServedVersion
from graft_server.sharing.event_loop import in_slices
from graft_server.sharing.threads import Threads

UNCERTAIN_ABOVE = 0.7
"""The uncertainty above which it is a reason: of one label, where the best is ahead of the next by less than 0.3."""
TOP_LABELS = 3
"""The labels that a suggestion's prediction has."""
ROW_BYTES = 400
"""The memory of a candidate besides its features and its id."""
_VIEW = "view"
_AT_ONCE = 4_096
"""Candidates whose uncertainty is computed at once."""


@dataclass(slots=True)
class Suggester:
    """Takes candidates in batches, and ranks them when all have come.

    It keeps a candidate's features and id, not the input. What is labelled already, and what is the same input as an
    earlier candidate, is counted and left out.
    """

    trunk: Trunk
    served: ServedVersion | None
    """The version; None: there is none, and candidates are compared with each other alone."""
    stored: Stored
    """What the version has stored."""
    threads: Threads
    """The threads on which candidates are ranked."""
    caller: Caller = field(default_factory=new_call)
    """Whose request it is."""
    seed: int = 0
    labelled: int = 0
    """Candidates that are labelled already."""
    copies: int = 0
    """Candidates that are the same input as an earlier one."""
    size: int = 0
    """The memory that all of it takes, in bytes."""
    _seen: set[bytes] = field(default_factory=set)
    _features: list[NDArray[np.float16]] = field(default_factory=list)
    """shape (d,) each."""
    _places: list[tuple[int, str]] = field(default_factory=list)
    """The place in the stream, or -1, and the id of each candidate."""
    _truncated: list[bool] = field(default_factory=list)

    @property
    def view(self) -> str:
        """The features that candidates are compared by."""
        return POOLED if self.served is None else self.served.head.view

    @property
    def candidates(self) -> int:
        """How many there are."""
        return len(self._places)

    async def add_stored(self) -> None:
        """Takes in the version's unlabelled examples by their stored features, if those were read."""
        await self.threads.run(self._add_stored)

    def _add_stored(self) -> None:
        if self.stored.features is None:
            return
        for example, features in zip(self.stored.unlabelled, self.stored.features, strict=True):
            data = example.input.data
            if self._is_new(data[:DIGEST_BYTES], data[DIGEST_BYTES:]):
                self._add(-1, example.id, features, truncated=False)

    async def add(self, first: int | None, examples: Sequence[Example | None]) -> list[InvalidError | None]:
        """Takes in candidates.

        Args:
            first: The place of the first one in the stream; None: they are stored examples.
            examples: The candidates; None: one that is refused already.

        Returns:
            The error of each input that cannot be read.
        """
        errors: list[InvalidError | None] = [None] * len(examples)
        fresh = await self.threads.run(self._fresh, examples)
        encoded = await self._encoded([example.input for _, example in fresh])

        def take(entry: int) -> None:
            (place, example), found = fresh[entry], encoded[entry]
            if isinstance(found, InvalidError):
                errors[place] = found
            else:
                self._add(-1 if first is None else first + place, example.id, *found)

        await in_slices(take, range(len(fresh)))
        return errors

    def _fresh(self, examples: Sequence[Example | None]) -> list[tuple[int, Example]]:
        """Returns the candidates that are new, with their places."""
        return [
            (place, it)
            for place, it in enumerate(examples)
            if it is not None and self._is_new(*digests_of(it.input))
        ]

    def _is_new(self, digest: bytes, wording: bytes) -> bool:
        """Whether an input is neither labelled nor a candidate; it is one from now on."""
        if self.stored.knows(digest, wording):
            self.labelled += 1
            return False
        key = wording or digest
        if key in self._seen:
            self.copies += 1
            return False
        self._seen.add(key)
        return True

    def _add(self, place: int, id_: str, features: NDArray[np.float16], truncated: bool) -> None:
        self._places.append((place, id_))
        self._features.append(features)
        self._truncated.append(truncated)
        self.size += features.nbytes + len(id_) + ROW_BYTES

    async def _encoded(
        self, inputs: Sequence[Input]
    ) -> list[tuple[NDArray[np.float16], bool] | InvalidError]:
        """Returns the features of each input, and whether it was cut; behind predictions, in turns with adaptations."""
        if not inputs:
            return []
        await self.trunk.ready()
        parts = await self.trunk.in_turns(self.caller, inputs, self._encoded_part)
        rows = {place: row for places, found in parts for place, row in zip(places, found, strict=True)}
        return [rows[place] for place in range(len(inputs))]

    async def _encoded_part(
        self, inputs: Sequence[Input]
    ) -> list[tuple[NDArray[np.float16], bool] | InvalidError]:
        found = self._readable(inputs, await self.trunk.prepare_all(inputs, self.caller))
        prepared = [it for it in found if not isinstance(it, InvalidError)]
        if not prepared:
            return [it for it in found if isinstance(it, InvalidError)]
        encoded = await self.trunk.encode(
            prepared,
            lane=Lane.ADAPT,
            reader=partial(_read, self.view),
            tuned=None if self.served is None else self.served.tuned,
            caller=self.caller,
        )
        rows = (
            # Copies: a view of one row would keep the whole batch.
            encoded.faults.get(row) or (encoded.arrays[_VIEW][row].copy(), it.truncated)
            for row, it in enumerate(prepared)
        )
        return [it if isinstance(it, InvalidError) else next(rows) for it in found]

    def _readable(
        self, inputs: Sequence[Input], prepared: Sequence[Prepared | InvalidError]
    ) -> Sequence[Prepared | InvalidError]:
        unread = features_unread(self.view, tuned=self.served is not None and self.served.tuned is not None)
        if unread is None:
            return prepared
        return [unread if it.kind is Kind.FEATURES else one for it, one in zip(inputs, prepared, strict=True)]

    async def suggestions(self, count: int) -> tuple[Suggestion, ...]:
        """Returns up to `count` candidates whose labels would teach most, the best first."""
        if not self._features:
            return ()
        left = threading.Event()
        try:
            return await self.threads.run(self._suggestions, count, left.is_set)
        finally:
            left.set()  # if the caller has left

    def _suggestions(self, count: int, left: Callable[[], bool]) -> tuple[Suggestion, ...]:
        features = np.stack(self._features)
        self._features.clear()
        uncertainty = None if self.served is None else _uncertainty(self.served, features)
        known = self._known(features.shape[1])
        choice = choose(features, known, uncertainty, count, seed=self.seed, left=left)
        predictions = self._predictions(features, choice)
        return tuple(
            self._suggestion(
                choice, entry, 0.0 if uncertainty is None else float(uncertainty[row]), prediction
            )
            for entry, (row, prediction) in enumerate(zip(choice.rows, predictions, strict=True))
        )

    def _known(self, dimension: int) -> NDArray[np.floating[Any]]:
        """Returns what stands for the labelled inputs, shape (m, dimension).

        Where their features are not stored, it is the centroids of the classes by which the head tells novelty.
        """
        if self.stored.labelled is not None:
            return self.stored.labelled
        if self.served is not None:
            return self.served.head.novelty.anchors
        return np.zeros((0, dimension), np.float32)

    def _predictions(self, features: NDArray[np.float16], choice: Choice) -> list[Prediction | None]:
        served = self.served
        if served is None:
            return [None] * len(choice.rows)
        output = served.head.scores(features[choice.rows].astype(np.float32))
        answers = served.head.answers(served.labels, output.read(TOP_LABELS))
        return [
            Prediction(answer, float(novelty), bool(novelty > ABSTAIN_ABOVE), self._truncated[row], None)
            for row, answer, novelty in zip(choice.rows, answers, output.novelty, strict=True)
        ]

    def _suggestion(
        self, choice: Choice, entry: int, uncertainty: float, prediction: Prediction | None
    ) -> Suggestion:
        place, id_ = self._places[choice.rows[entry]]
        similar = int(choice.similar[entry])
        holds = {
            Why.NOVEL: prediction is not None and prediction.abstained,
            Why.UNCERTAIN: uncertainty > UNCERTAIN_ABOVE,
            Why.TYPICAL: similar > 1,
        }
        why = tuple(it for it, is_so in holds.items() if is_so) or (Why.VARIETY,)
        return Suggestion(place, id_, float(choice.gains[entry]), why, similar, uncertainty, prediction)


def _read(view: str, features: Features) -> Arrays:
    """Reads what candidates are compared by, on the encoder's thread."""
    return {_VIEW: stacked(features, view).astype(np.float16)}


def _uncertainty(served: ServedVersion, features: NDArray[np.float16]) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(features), _AT_ONCE):
        output = served.head.scores(features[start : start + _AT_ONCE].astype(np.float32))
        parts.append(served.head.uncertainty(output))
    return np.concatenate(parts)
