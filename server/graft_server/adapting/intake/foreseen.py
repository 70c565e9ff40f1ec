"""What would come of changes beside the examples of a base, where they are only checked and nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from graft_server.adapting.basing import Base
from graft_server.adapting.intake.incoming import Incoming
from graft_server.adapting.intake.matching import KnownExamples, Matching
from graft_server.domain.errors import InvalidError, OverloadError
from graft_server.domain.extension import Extension
from graft_server.sharing.room import Share
from graft_server.store.adaptations.lineage import Lineage
from graft_server.store.adaptations.segments import Record, Recorded
from graft_server.store.adaptations.training_rows import digested, read_lineage
from graft_server.store.objects.objects import Objects

CHECK_BYTES = 256 << 20
"""The memory of one check beside a base, for about 330,000 examples: those of the base, and those that are sent."""
CHECKS_BYTES = 512 << 20
"""The memory of all of them together."""
EXAMPLE_BYTES = 800
RETRY_S = 10.0
"""The wait for a check that finds no room: others end in some seconds."""


def take_room(share: Share, examples: int) -> None:
    """Takes room for so many more examples of a check.

    Raises:
        InvalidError: The check alone would take more than one may (CHECK_TOO_LARGE).
        OverloadError: Other checks leave no room for it now (TOO_MANY_CHECKS).
    """
    share.take(examples * EXAMPLE_BYTES, _too_large, _no_room)


def _too_large() -> InvalidError:
    return InvalidError(
        f"The check and the version that it goes on from have more than {CHECK_BYTES // EXAMPLE_BYTES:,} examples: "
        "check fewer at a time, or without start.base_version and start.base_alias.",
        reason="CHECK_TOO_LARGE",
        field="examples",
    )


def _no_room() -> OverloadError:
    return OverloadError(
        "The checks that run hold as many examples as this server keeps for checks: try again later.",
        reason="TOO_MANY_CHECKS",
        retry_after_s=RETRY_S,
    )


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
