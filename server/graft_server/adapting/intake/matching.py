"""Which example of the base an example is that comes without an id: the one with the same input.

Identity by content holds between an adaptation and its base only. Within the adaptation, copies and conflicting labels
are examples of their own: the first copy is the first that the base has of the input, the second the second, and
further ones are new. Where the base has an input with several targets, one that comes with one of them is that one.

What was decided is stored with each change, so nothing is decided again after a restart. Writers that one server
serves are matched together. What they send through several servers at once is put right when it is read: see
`store.adaptations.lineage`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.intake.bases import Bases
from graft_server.adapting.intake.incoming import Incoming
from graft_server.domain.examples import Change, Example, Input, Split
from graft_server.domain.model import Source
from graft_server.store.adaptations.keys import parsed_name
from graft_server.store.adaptations.lineage import is_derived
from graft_server.store.adaptations.segments import Record
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_lineage
from graft_server.store.objects.objects import Objects

FREE, SEEN, CHANGED = 0, 1, 2
"""What became of an example of the base: nothing, it was sent once more as it is, or it was replaced or removed."""

MOST_COPIES = 4_096
"""Of so many examples with the same input, the one with the same target is looked for; of more, among the first."""

_Attributes = tuple[float, Split, str, str]
"""Weight, split, group and subject."""


class KnownExamples:
    """The examples that an adaptation goes on from, as digests: about 200 bytes each."""

    def __init__(self, examples: Sequence[Example], adaptation_ids: Iterable[str]) -> None:
        """Describes the base.

        Args:
            examples: Its n examples, each with `digest_of` its input.
            adaptation_ids: The adaptations of its lineage.
        """
        self.ids = [it.id for it in examples]
        self.places = {id_: place for place, id_ in enumerate(self.ids)}
        self.state: NDArray[np.uint8] = np.zeros(len(examples), np.uint8)
        self._targets = np.array([_target(it) for it in examples], np.int64)
        known: dict[_Attributes, _Attributes] = {}
        self._attributes = [known.setdefault(it, it) for it in map(_attributes, examples)]
        self._confirmed = np.array([it.confirmed for it in examples], bool)
        derived = frozenset(adaptation_ids)
        self._derived = np.array([is_derived(it, derived) for it in self.ids], bool)
        self._halves = _halves([it.input.data for it in examples])
        self._order = np.lexsort((np.arange(len(examples)), self._halves[:, 1], self._halves[:, 0]))
        self._digests = self._halves[self._order]
        self._firsts = np.ascontiguousarray(self._digests[:, 0])
        self._following: dict[int, int] = {}
        """Of copies: where those begin of which the first is free, by where all begin."""

    @classmethod
    def of(cls, examples: Sequence[Example], sources: Sequence[Source]) -> KnownExamples:
        """Returns it for the examples of a lineage."""
        return cls(examples, [parsed_name(it.adaptation_id)[0] for it in sources])

    def __len__(self) -> int:
        return len(self.ids)

    def copies(self, value: Input) -> Iterator[int]:
        """Yields the places of the examples with an input, in the order of the base, from the first free one on."""
        first, second = _halves([value.digest()])[0]
        begin, end = (int(np.searchsorted(self._firsts, first, side)) for side in ("left", "right"))
        following = self._following.get(begin, begin)
        while following < end and self.state[self._order[following]] != FREE:
            following += 1
        if following > begin:
            self._following[begin] = following
        for it in range(following, end):
            if self._digests[it, 1] == second:
                yield int(self._order[it])

    def has(self, place: int, value: Input) -> bool:
        """Whether an example has an input."""
        return bool((self._halves[place] == _halves([value.digest()])[0]).all())

    def completed(self, example: Example, place: int, *, weighted: bool) -> Example:
        """Returns an example with what it leaves out of the attributes, as the base has it."""
        weight, split, group, subject = self._completed(example, place, weighted=weighted)
        return replace(example, weight=weight, split=split, group=group, subject=subject)

    def same(self, example: Example, place: int, *, weighted: bool) -> bool:
        """Whether the base has the target and the attributes of an example, and knows that it was confirmed."""
        return bool(
            self._targets[place] == _target(example)
            and self._completed(example, place, weighted=weighted) == self._attributes[place]
            and (self._confirmed[place] or not example.confirmed)
        )

    def _completed(self, example: Example, place: int, *, weighted: bool) -> _Attributes:
        weight, split, group, subject = self._attributes[place]
        return (
            example.weight if weighted else weight,
            split if example.split is Split.UNSPECIFIED else example.split,
            example.group or group,
            example.subject or subject,
        )

    def free_copy(self, example: Example, *, weighted: bool, derived: bool) -> int | None:
        """Returns the place of the example of the base that an example is, which nothing became of; None: none.

        Args:
            example: The example.
            weighted: Whether it came with a weight.
            derived: Whether the example of the base must have no id of its own.
        """
        first = None
        for it in itertools.islice(self.copies(example.input), MOST_COPIES):
            if self.state[it] != FREE or (derived and not self._derived[it]):
                continue
            if self.same(example, it, weighted=weighted):
                return it
            first = it if first is None else first
        return first


class Matching:
    """Matches the changes of one adaptation with its base. Thread-safe."""

    def __init__(self, base: KnownExamples) -> None:
        """Has seen no change yet."""
        self.base = base
        self._lock = threading.Lock()

    def records(self, sent: Iterable[Incoming]) -> list[Record]:
        """Returns the records of changes, in order, and counts them in."""
        with self._lock:
            return [self._record(it) for it in sent]

    def count_in(self, record: Record) -> None:
        """Takes note of a record that is stored already."""
        for id_, state in ((record.unchanged, SEEN), (record.renames, CHANGED), (_id(record), CHANGED)):
            place = self.base.places.get(id_) if id_ else None
            if place is not None:
                self.base.state[place] = max(self.base.state[place], state)

    def _record(self, sent: Incoming) -> Record:
        record = sent.record
        example = record.change.upsert if record.change is not None else None
        if example is not None:
            record = self._matched(sent, example, record)
        self.count_in(record)
        return record

    def _matched(self, sent: Incoming, example: Example, record: Record) -> Record:
        base = self.base
        by_id = base.places.get(example.id) if sent.own_id else None
        if by_id is not None:
            return self._by_id(sent, example, by_id, record)
        place = base.free_copy(example, weighted=sent.weighted, derived=sent.own_id)
        if place is None:
            return record
        id_ = base.ids[place]
        # What comes without a target says nothing of the one that the base has.
        same = base.same(example, place, weighted=sent.weighted) or not example.labelled
        if same and not sent.own_id:
            return Record(sent.digest, unchanged=id_)
        example = base.completed(example, place, weighted=sent.weighted)
        if not sent.own_id:
            change = Change(upsert=replace(example, id=id_))
            return Record(sent.digest, change=change, by_content=True)
        # The base has no id of its own for it: from now on it has this one.
        if not example.labelled:
            return record
        return Record(
            sent.digest,
            change=Change(upsert=example),
            renames=id_,
            unchanged=id_ if same else "",
            by_content=True,
        )

    def _by_id(self, sent: Incoming, example: Example, place: int, record: Record) -> Record:
        base = self.base
        if base.state[place] == CHANGED or not base.has(place, example.input):
            return record
        if base.same(example, place, weighted=sent.weighted):
            return Record(sent.digest, unchanged=example.id)
        change = Change(upsert=base.completed(example, place, weighted=sent.weighted))
        return Record(sent.digest, change=change)


class StoredMatching:
    """The matching of a stored adaptation, read when it is needed. Thread-safe."""

    def __init__(
        self,
        objects: Objects,
        store: AdaptationStore,
        bases: Bases,
        attended: Callable[[], bool] = lambda: True,
    ) -> None:
        """Reads nothing yet.

        Args:
            objects: Where everything is stored.
            store: What is stored of the adaptation.
            bases: Room for the examples of the base.
            attended: Whether a call of the adaptation is open, so that the base stays in memory.
        """
        self._objects = objects
        self._store = store
        self._bases = bases
        self._attended = attended
        self._lock = threading.Lock()
        self._matching: Matching | None = None
        self._ends: dict[str, tuple[int, int]] = {}
        """Writer to the sequence number and the ordinal up to which its changes are counted in."""

    def follow(self) -> int:
        """Reads the base, and what other servers stored of the adaptation, and returns how many examples the base has.

        Raises:
            CorruptError: A segment is damaged.
            ObjectMissingError: A segment is missing.
            OverloadError: Other adaptations' bases leave no room for it.
        """
        with self._lock:
            return len(self._followed().base)

    def records(self, changes: Sequence[Incoming]) -> list[Record]:
        """Returns the records of changes that come next in their writer's stream; `forget` if they are not stored."""
        with self._lock:
            matching = self._matching or self._followed()
            return matching.records(changes)

    def forget(self) -> None:
        """Reads everything anew when it is needed: examples were erased, or what was matched was not stored."""
        with self._lock:
            self._matching = None
            self._ends = {}
            self._bases.give_back(self)

    def make_way(self) -> bool:
        """Lets go of the base if no call needs it now, and returns whether it did; does not wait."""
        if self._attended() or not self._lock.acquire(blocking=False):
            return False
        try:
            self._matching = None
            self._ends = {}
        finally:
            self._lock.release()
        return True

    def _followed(self) -> Matching:
        matching = self._matching
        if matching is None:
            sources = self._store.start.lineage
            rows = read_lineage(self._objects, self._store.model, sources).rows.values()
            self._bases.take(self, len(rows))
            matching = Matching(KnownExamples.of([it.example for it in rows], sources))
        for record in self._unread():
            matching.count_in(record)
        self._matching = matching
        return matching

    def _unread(self) -> Iterator[Record]:
        for writer_id, end in self._store.read_positions().items():
            sequence, ordinal = self._ends.get(writer_id, (0, 0))
            while sequence < end:
                segment = self._store.segment(writer_id, ordinal)
                yield from segment.records
                sequence, ordinal = segment.next_sequence, segment.next_ordinal
            self._ends[writer_id] = sequence, ordinal


def _id(record: Record) -> str:
    return "" if record.change is None else record.change.id


def _attributes(example: Example) -> _Attributes:
    return example.weight, example.split, example.group, example.subject


def _target(example: Example) -> int:
    """64 bits that are equal for equal targets, in this process."""
    return hash(example.target)


def _halves(digests: Sequence[bytes]) -> NDArray[np.uint64]:
    """Returns n digests as numbers, shape (n, 2)."""
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(digests), 2)
