"""What would come of changes beside the examples of a base, where they are only checked and nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from graft_server.adapting.basing import Base
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.matching import KnownExamples, Matching
from graft_server.domain.extension import Extension
from graft_server.store.adaptations.lineage import Lineage
from graft_server.store.adaptations.segments import Record, Recorded
from graft_server.store.adaptations.training_rows import digested, read_lineage
from graft_server.store.objects.objects import Objects


class Foreseen:
    """Takes the changes of a check in order, as an adaptation would."""

    def __init__(self, lineage: Lineage, base: Base, adaptation_id: str, writer_id: str) -> None:
        """Has taken no change yet.

        Args:
            lineage: The examples of the base, each with `digest_of` its input.
            base: The base.
            adaptation_id: The adaptation that there would be.
            writer_id: Its writer.
        """
        self._lineage = lineage
        self._writer_id = writer_id
        self._sequence = 0
        examples = [it.example for it in lineage.rows.values()]
        self._matching = Matching(KnownExamples.of(examples, base.lineage))
        self._base = replace(base.extension, base_examples=len(examples))
        lineage.begin(adaptation_id)

    @property
    def base(self) -> Extension:
        """The base, with how many examples it has."""
        return self._base

    @property
    def extension(self) -> Extension:
        """What the changes so far come to."""
        return self._lineage.extension(self._base)

    def take(self, changes: Sequence[Incoming]) -> None:
        """Takes the next changes; call it in a thread."""
        for record in self._records(changes):
            change = None if record.change is None else digested(record.change)
            small = msgspec.structs.replace(record, change=change)
            self._lineage.apply(Recorded(self._sequence, small, -1), self._writer_id, "")
            self._sequence += 1

    def _records(self, changes: Sequence[Incoming]) -> list[Record]:
        if self._base.match_content:
            return self._matching.records(changes)
        return [it.record for it in changes]


def read_foreseen(objects: Objects, model: str, base: Base, adaptation_id: str, writer_id: str) -> Foreseen:
    """Reads the examples of a base for a check.

    Raises:
        CorruptError: A segment is damaged.
        ObjectMissingError: A segment is missing.
    """
    return Foreseen(read_lineage(objects, model, base.lineage), base, adaptation_id, writer_id)
