"""Joins small segments, so that a stream of months does not become millions of objects.

A slow stream makes a segment of every few examples. 64 consecutive ones become one, 64 of the results one again, up
to a size that is still read at once: each example is written about once more for each factor of 64, and a stream of n
segments is read back as about n / 64 or fewer. One listing is enough to plan, without reading a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graft_server.domain.adaptation import AdaptationState
from graft_server.store.adaptations.erasure import put_together
from graft_server.store.adaptations.generations import ordinal_of
from graft_server.store.adaptations.keys import writer_folder
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

FAN_IN = 64
"""The number of segments that become one."""
LEAST = 8
"""The fewest segments that are joined where larger ones follow, so that no more can come."""
LARGEST_BYTES = 1 << 20
"""The most bytes of a joined segment. As text this is some thousand examples, whose features take some MB."""


@dataclass(frozen=True, slots=True)
class _Small:
    """A segment as it is listed."""

    ordinal: int
    ordinals: int
    size: int

    @property
    def level(self) -> int:
        """How often it was joined: segments join only within a level, so that large ones are seldom rewritten."""
        level, ordinals = 0, self.ordinals
        while ordinals >= LEAST:
            level, ordinals = level + 1, ordinals // FAN_IN
        return level


def compact(
    objects: Objects, store: AdaptationStore, encoder_id: str, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Joins the small segments of an open adaptation, wherever enough of them follow each other.

    Args:
        objects: The store.
        store: The adaptation.
        encoder_id: The encoder whose features the segments must already have.
        stopped: Called between two joins; says whether to stop.

    Returns:
        The number of segments that were joined with others.
    """
    before = -1
    count = 0
    while count > before and not stopped():
        before = count
        for run in _runs(objects, store):
            if stopped():
                break
            if put_together(objects, store, encoder_id, run):
                count += len(run)
    return count


def _runs(objects: Objects, store: AdaptationStore) -> list[list[tuple[str, int]]]:
    """Returns the runs of segments to join, each as (writer, ordinal) of its segments."""
    listed = {writer_id: _listed(objects, store, writer_id) for writer_id in store.writer_ids()}
    # Read after the listing: a commit that closes the adaptation later includes all of them. A closed one is left as
    # it is, because a segment that came too late for the closing commit may be among them.
    store.refresh()
    if store.state is not AdaptationState.OPEN:
        return []
    return [
        [(writer_id, it.ordinal) for it in run]
        for writer_id, small in listed.items()
        for run in _grouped(small)
    ]


def _listed(objects: Objects, store: AdaptationStore, writer_id: str) -> list[_Small]:
    """Returns a writer's segments, ascending, without the last, which may still be refused."""
    folder = writer_folder(store.model, store.name, writer_id)
    sizes = {
        key.removeprefix(folder).removesuffix(".seg"): size for key, size in objects.sizes(folder).items()
    }
    store.generations.refresh()
    found = [
        _Small(it.first_ordinal, it.next_ordinal - it.first_ordinal, sizes.get(it.name, LARGEST_BYTES))
        for it in store.generations.pieces(writer_id)
    ]
    found += [
        _Small(ordinal, 1, size)
        for name, size in sizes.items()
        if (ordinal := ordinal_of(name)) is not None and store.generations.piece(writer_id, ordinal) is None
    ]
    return sorted(found, key=lambda it: it.ordinal)[:-1]


def _grouped(small: list[_Small]) -> Iterator[list[_Small]]:
    run: list[_Small] = []
    size = 0
    for it in small:
        full = size + it.size > LARGEST_BYTES
        if run and (full or it.level != run[0].level):
            # If smaller, newer ones follow, more may be to come.
            if len(run) >= LEAST and it.level >= run[0].level:
                yield run
            run, size = [], 0
        run.append(it)
        size += it.size
        if len(run) == FAN_IN:
            yield run
            run, size = [], 0
