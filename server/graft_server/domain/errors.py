"""Every error that the domain raises on purpose.

    DomainError
    ├── InvalidError        the request can never work as it is
    ├── TooLargeError       the request has more bytes than are read
    ├── MissingError        something that the request names does not exist
    ├── ConflictError       somebody else was faster: look again, then decide
    ├── StateError          the request could work in another state of the system
    ├── OverloadError       try again later
    ├── DrainingError       this server is going away: try another
    ├── AgedError           the call has lasted for as long as its connection may: call again
    ├── IdleError           the call was idle, and its place is needed: call again
    ├── DeadlineError       the caller's deadline passed before the work was done
    └── FaultError          something broke here; the caller did nothing wrong
        ├── StoreError      an object could not be written or read
        │   ├── CorruptError    an object is not what was written
        │   ├── NewerError      a newer release wrote an object
        │   └── StoreFullError  there is no space left
        ├── BackboneError   a backbone cannot be used
        └── WorkerError     a worker process failed

They know nothing of gRPC: `frontends.grpc.errors` has the one table that gives each its status code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

UPGRADE = "upgrade this server to that release, or serve this store with it. Nothing is written over it."
"""What helps where something is newer than this release."""


class DomainError(Exception):
    """An error with a reason for programs and a message for people.

    Attributes:
        message: What was wrong, with what value, and what would be right. Shown to callers, so it must
            never name a path of this machine or quote an internal error.
        reason: UPPER_SNAKE_CASE, stable.
        field: The path of the field at fault within the request, or "".
        metadata: Further facts for programs.
    """

    def __init__(
        self, message: str, *, reason: str, field: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})


class InvalidError(DomainError):
    """The request can never work as it is."""


class TooLargeError(DomainError):
    """The request has more bytes than are read."""


class MissingError(DomainError):
    """Something that the request names does not exist."""


class ConflictError(DomainError):
    """Somebody else was faster."""


class StateError(DomainError):
    """The request could work in another state of the system."""


class OverloadError(DomainError):
    """There is no room now.

    Attributes:
        retry_after_s: An honest estimate of when there will be room, in seconds.
    """

    def __init__(self, message: str, *, reason: str, retry_after_s: float) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class DrainingError(DomainError):
    """This server is going away."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; call again, here or elsewhere.", reason="DRAINING")


class AgedError(DomainError):
    """A call has lasted for as long as its connection may."""

    def __init__(self) -> None:
        super().__init__(
            "The connection is renewed at this age; call again and go on from there.",
            reason="CONNECTION_AGED",
        )


class IdleError(DomainError):
    """A call was idle, and its place is needed for another one."""

    def __init__(self, next_sequence: int) -> None:
        super().__init__(
            "The call was idle, and its place is needed for another one: call again when there is something to send, "
            f"and continue at sequence {next_sequence:,}.",
            reason="STREAM_IDLE",
            metadata={"next_sequence": str(next_sequence)},
        )


class DeadlineError(DomainError):
    """The caller's deadline passed before the work was done."""

    def __init__(self) -> None:
        super().__init__("The deadline passed before the request was answered.", reason="DEADLINE_EXCEEDED")


class FaultError(DomainError):
    """Something broke here; the caller did nothing wrong."""


class StoreError(FaultError):
    """An object could not be written or read."""


class CorruptError(StoreError):
    """An object is not what was written."""


class NewerError(StoreError):
    """An object is what was written, by a newer release than this one, which cannot read it."""

    @classmethod
    def of_format(cls, what: str, number: int, reads: int, metadata: Mapping[str, str] = {}) -> Self:
        """Returns the error for something of a newer format.

        Args:
            what: What it is: the subject of a sentence.
            number: Its format.
            reads: The newest format that this release knows.
            metadata: Further facts for programs.
        """
        return cls(
            f"{what} was written by a newer release of Graft (format {number}; this release reads up to {reads}): "
            f"{UPGRADE}",
            reason="OBJECT_NEWER",
            metadata={**metadata, "format": str(number), "reads": str(reads)},
        )


class StoreFullError(StoreError):
    """There is no space left for an object.

    Attributes:
        retry_after_s: When to try again, in seconds: somebody has to make room first.
    """

    retry_after_s = 5.0


class BackboneError(FaultError):
    """A backbone cannot be used."""


class WorkerError(FaultError):
    """A worker process failed."""
