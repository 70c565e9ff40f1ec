"""A change on its way from its writer to a durable segment."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.domain.examples import Change, Rejection
from graft_server.store.adaptations.segments import Record

RECORD_BYTES = 600
"""The memory of a change besides its input."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A change as a client sent it, checked."""

    digest: int
    """`store.adaptations.segments.content_digest` of what was sent."""
    result: Change | Rejection
    subject: str = ""
    """The subject of the data, even if the change was refused."""
    own_id: bool = True
    """Whether its example came with an id; otherwise the id in it is a derived one."""
    weighted: bool = True
    """Whether its example came with a weight."""

    @property
    def record(self) -> Record:
        """The record that is stored."""
        if isinstance(self.result, Rejection):
            return Record(self.digest, rejection=self.result, subject=self.subject)
        return Record(self.digest, change=self.result)

    @property
    def size(self) -> int:
        """The memory that it takes while it waits for the disk and the encoder, in bytes."""
        if isinstance(self.result, Change) and self.result.upsert:
            return self.result.upsert.input.size + RECORD_BYTES
        return RECORD_BYTES
