"""Which examples are stored of a model: every one that was accepted, in the state that its change gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graft_server.examples import Example
from graft_server.store.adaptations import AdaptationStore
from graft_server.store.rewriting import segments_of
from graft_server.store.segments import changes


@dataclass(frozen=True, slots=True)
class StoredExample:
    """One accepted change that added or replaced an example."""

    adaptation_id: str
    writer_id: str
    sequence: int
    example: Example
    superseded: bool
    """Whether a later change of the adaptation replaced or removed it."""

    @property
    def place(self) -> tuple[str, str, int]:
        """Adaptation, writer and sequence: what the examples of a model are sorted by."""
        return self.adaptation_id, self.writer_id, self.sequence


def ids_of_subject(store: AdaptationStore, subject: str) -> set[str]:
    """Returns the ids of the examples that are, or were once said to be, of a subject."""
    return {it.id for segment, _ in segments_of(store) for it in segment.upserts if it.subject == subject}


def stored_examples(store: AdaptationStore) -> Iterator[StoredExample]:
    """Yields the examples of an adaptation, by writer, then sequence; erased ones are not among them."""
    latest = _latest(store)
    for segment, first in segments_of(store):
        for it in changes(segment, first, segment.next_sequence):
            if it.change.upsert is None:
                continue
            place, example = (segment.writer_id, it.sequence), it.change.upsert
            superseded = latest[example.id] != place
            yield StoredExample(store.adaptation_id, *place, example, superseded)


def _latest(store: AdaptationStore) -> Mapping[str, tuple[str, int]]:
    """The place of the latest change of each id, in the order that training reads them."""
    latest: dict[str, tuple[str, int]] = {}
    for segment, first in segments_of(store):
        for it in changes(segment, first, segment.next_sequence):
            latest[it.change.id] = (segment.writer_id, it.sequence)
    return latest
