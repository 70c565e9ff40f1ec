"""The latest state of every example of a lineage, and what its last adaptation made of the examples before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from graft_server.domain.examples import Example, still_confirmed
from graft_server.domain.extension import Extension
from graft_server.store.adaptations.keys import parsed_name
from graft_server.store.adaptations.segments import Recorded


def derived_id(adaptation_id: str, writer_id: str, sequence: int) -> str:
    """Returns the id of an example that was sent without one: unique in every lineage of its model."""
    return f"{adaptation_id}/{writer_id}/{sequence}"


def is_derived(id_: str, adaptation_ids: Collection[str]) -> bool:
    """Whether an id is a derived one of one of the adaptations."""
    adaptation_id, _, rest = id_.partition("/")
    return adaptation_id in adaptation_ids and rest.rpartition("/")[2].isdecimal()


@dataclass(frozen=True, slots=True)
class Row:
    """An example in its latest state."""

    example: Example
    origin: tuple[str, int]
    """(writer, sequence) of the change that gave it that state."""
    features_key: str
    row: int
    """The row among the features of its segment."""
    source: str
    """The name under which the adaptation of that change is stored."""
    replaced: int = 0
    """How often its id got another input within that adaptation."""


@dataclass(frozen=True, slots=True)
class _Matched:
    """An example of the base that was sent again without its id."""

    writer_id: str
    """Who sent it."""
    base: Row | None
    """What the base has; None: it is gone."""
    corrected: bool
    """Whether it was sent with another target."""


class Lineage:
    """Takes the records of a lineage in order: by adaptation, oldest first, then writer, then sequence.

    The latest change of an id wins; rows come in the order of their latest changes. So the result does not depend on
    how the writers' streams interleaved.

    Writers of one adaptation may be served by servers that do not know of each other. Where two of them sent the same
    example of the base without its id, it is the first writer's, and the other's is an example of its own.

    Attributes:
        rows: The latest state of each example, by id.
        refused: How many changes of the last adaptation were refused, by the reason.
        overruled: The ids whose confirmed target the last adaptation replaced by one that is not confirmed.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.refused: Counter[str] = Counter()
        self.overruled: set[str] = set()
        self._source = ""
        self._base: Mapping[str, Row] = {}
        self._matched: dict[str, _Matched] = {}
        self._unchanged: set[str] = set()
        self._renamed: dict[str, tuple[str, bool]] = {}
        """Id of its own to the id that the base has for the example, and whether that is all that is new."""

    def begin(self, source: str) -> None:
        """Begins with an adaptation, by the name under which it is stored."""
        self._source = source
        self._base = dict(self.rows)
        self._matched, self._unchanged, self._renamed = {}, set(), {}
        self.refused, self.overruled = Counter(), set()

    def apply(self, recorded: Recorded, writer_id: str, features_key: str) -> None:
        """Takes the next record."""
        record, change = recorded.record, recorded.record.change
        if change is None:
            if record.rejection is not None:
                self.refused[record.rejection.reason] += 1
            elif record.unchanged:
                self._repeat(record.unchanged, writer_id, recorded.sequence)
            return
        if change.upsert is None:
            self.rows.pop(change.id, None)
            return
        renamed = self.rows.pop(record.renames, None) if record.renames else None
        if record.renames:
            self._renamed[change.id] = record.renames, bool(record.unchanged)
        example = change.upsert
        if record.by_content and not record.renames:
            example = self._correct(example, writer_id, recorded.sequence)
        before = self.rows.pop(example.id, None)  # so that the row moves to the end
        replaced = 0
        if before is not None and before.source == self._source:
            replaced = before.replaced + (before.example.input != example.input)
        origin = writer_id, recorded.sequence
        known = before or renamed
        example = still_confirmed(example, None if known is None else known.example)
        self._note_confirmed(example, None if known is None else known.example)
        self.rows[example.id] = Row(example, origin, features_key, recorded.row, self._source, replaced)

    def extension(self, base: Extension) -> Extension:
        """Returns what the last adaptation made of the examples before it."""
        by_id = by_content = unchanged = deleted = 0
        renamed = {old for old, _ in self._renamed.values()}
        for id_, before in self._base.items():
            now, matched = self.rows.get(id_), self._matched.get(id_)
            if now is None:
                deleted += id_ not in renamed
            elif now is before:
                unchanged += id_ in self._unchanged
            elif _alike(now.example, before.example):
                unchanged += 1
            elif matched is not None and matched.corrected:
                by_content += 1
            else:
                by_id += 1
        kept = {id_: it for id_, it in self._renamed.items() if id_ in self.rows and it[0] in self._base}
        same = sum(it[1] for it in kept.values())
        gone = renamed - {old for old, _ in kept.values()}
        return replace(
            base,
            base_examples=len(self._base),
            added=sum(id_ not in self._base and id_ not in kept for id_ in self.rows),
            replaced_by_id=by_id,
            replaced_by_content=by_content + len(kept) - same,
            unchanged=unchanged + same,
            deleted=deleted + sum(old in self._base and old not in self.rows for old in gone),
        )

    def _note_confirmed(self, example: Example, before: Example | None) -> None:
        if (
            before is not None
            and before.confirmed
            and not example.confirmed
            and example.target != before.target
        ):
            self.overruled.add(example.id)
        elif example.confirmed:
            self.overruled.discard(example.id)

    def _correct(self, example: Example, writer_id: str, sequence: int) -> Example:
        """Returns an example that was sent without its id, by the id of the base, or by one of its own."""
        matched = self._matched.get(example.id)
        if matched is not None and matched.writer_id != writer_id:
            return replace(example, id=self._own_id(writer_id, sequence))
        self._matched[example.id] = _Matched(writer_id, self._base.get(example.id), corrected=True)
        return example

    def _repeat(self, id_: str, writer_id: str, sequence: int) -> None:
        """Takes an example that is there already."""
        matched = self._matched.get(id_)
        if matched is None or matched.writer_id == writer_id or not matched.corrected:
            self._unchanged.add(id_)
            self._matched.setdefault(id_, _Matched(writer_id, self._base.get(id_), corrected=False))
        elif matched.base is not None:
            # Another writer corrected it: what this one sent is what the base has, and stays beside the correction.
            own_id = self._own_id(writer_id, sequence)
            self.rows[own_id] = replace(matched.base, example=replace(matched.base.example, id=own_id))

    def _own_id(self, writer_id: str, sequence: int) -> str:
        return derived_id(parsed_name(self._source)[0], writer_id, sequence)


def _alike(one: Example, other: Example) -> bool:
    """Whether two states of an example are the same to train on: they may come from different files."""
    return replace(one, origin="", confirmed=False) == replace(other, origin="", confirmed=False)
