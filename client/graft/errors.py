"""Every error that a call to Graft can raise.

    GraftError
    ├── InvalidArgumentError      the request can never work as it is: see `field_violations`
    ├── NotFoundError             no such model, version, alias, adaptation or backbone
    ├── AlreadyExistsError        it exists already
    ├── PermissionDeniedError     it is not yours
    ├── UnauthenticatedError      no or wrong credentials
    ├── FailedPreconditionError   it could work in another state, for example with a second class
    ├── AbortedError              somebody else was faster: look again, then decide
    ├── ResourceExhaustedError    no room now: `retry_after` says when to come back
    ├── DeadlineExceededError     the deadline passed first
    ├── CancelledError            the call or the work was cancelled
    ├── UnavailableError          no server can be reached, or it is shutting down
    ├── UnimplementedError        this server is older than the request
    ├── DataLossError             what arrived is not what was sent
    └── InternalError             something broke in the server

One class for each canonical gRPC code that callers act on; the rest are plain `GraftError`s. What a
program should branch on within a class is `reason`, which is stable; messages are for people.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field of a request."""

    field: str
    """The field's path within the request, for example "inputs[3].text"."""
    description: str
    """What is wrong with it and what would be right."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one example was refused."""

    sequence: int
    """The example: its place in the writer's stream, from 0."""
    reason: str
    """UPPER_SNAKE_CASE, for programs, for example "INPUT_EMPTY"."""
    field: str
    """The path of the field at fault within the change."""
    detail: str
    """What was wrong, with what value, and what would be right."""
    writer_id: str
    """The writer that sent the example."""
    row: int | None = None
    """The row of the table that was given, by its position from 0; None where examples were no table."""
    origin: str = ""
    """Where the row is, in words: "row 17", or "row 17 (index 'x')" where a data frame's index is no position."""


def reasons_of(rejections: Iterable[Rejection]) -> dict[str, int]:
    """How many examples were refused for each reason, the most frequent first."""
    return dict(Counter(it.reason for it in rejections).most_common())


class GraftError(Exception):
    """An answer of the server, or the lack of one, that is not a result.

    Attributes:
        code: The canonical gRPC status code.
        message: What was wrong, with what value, and what would be right.
        reason: UPPER_SNAKE_CASE, stable, for programs; "" if gRPC itself made the error.
        domain: The source of the reason, "graft" for Graft's own; "" if gRPC itself made the error.
        metadata: Further facts for programs.
        field_violations: The fields at fault.
        retry_after: The seconds after which to try again, if the server said so.
        rejections: The examples that were refused before an adaptation failed, by sequence; the first 10,000.
        rejected_count: How many they were.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.message = message
        self.reason = reason
        self.domain = domain
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_after = retry_after
        self.rejections: tuple[Rejection, ...] = ()
        self.rejected_count = 0

    @property
    def rejected_reasons(self) -> dict[str, int]:
        """How many of `rejections` there are for each reason, the most frequent first."""
        return reasons_of(self.rejections)

    def __str__(self) -> str:
        label = self.reason or self.code.name
        return f"{self.message} [{label}]" if self.message else label

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by their positional arguments alone; these would lose everything else.
        return type(self), (self.message,), self.__dict__


class InvalidArgumentError(GraftError):
    """The request can never work as it is."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ArgumentError(InvalidArgumentError, ValueError):
    """An argument of the client itself is wrong; nothing was sent."""


class NotFoundError(GraftError):
    """Something that the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(GraftError):
    """Something that the request would create exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDeniedError(GraftError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(GraftError):
    """The caller did not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class FailedPreconditionError(GraftError):
    """The request could work in another state of the system."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(GraftError):
    """Somebody else was faster: an alias moved, another call of the same writer took over."""

    code = grpc.StatusCode.ABORTED


class ResourceExhaustedError(GraftError):
    """There is no room now, or a message is larger than the transport takes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceededError(GraftError):
    """The deadline passed before the answer came."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class CancelledError(GraftError):
    """The call, or the work that it waited for, was cancelled."""

    code = grpc.StatusCode.CANCELLED


class UnavailableError(GraftError):
    """No server can be reached, or the one reached is shutting down."""

    code = grpc.StatusCode.UNAVAILABLE


class UnimplementedError(GraftError):
    """The server does not know the method: it is older than this client."""

    code = grpc.StatusCode.UNIMPLEMENTED


class DataLossError(GraftError):
    """What arrived is not what was sent."""

    code = grpc.StatusCode.DATA_LOSS


class InternalError(GraftError):
    """Something broke in the server, or between it and here."""

    code = grpc.StatusCode.INTERNAL


_CLASSES: dict[grpc.StatusCode, type[GraftError]] = {cls.code: cls for cls in GraftError.__subclasses__()}


@runtime_checkable
class FailedCall(Protocol):
    """The common interface of the errors of grpc and of grpc.aio."""

    def code(self) -> grpc.StatusCode:
        """The status code."""

    def details(self) -> str | None:
        """The message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Returns the metadata after the last message."""


def client_closed() -> CancelledError:
    """Returns the error for a call on a closed client."""
    return CancelledError("The client was closed.", reason="CLIENT_CLOSED", domain="graft")


def from_status(status: status_pb2.Status) -> GraftError:
    """The error that a google.rpc.Status describes."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    facts: dict[str, Any] = {}
    for detail in status.details:
        # Details pass through proxies; a broken one must not hide the error that it is about.
        with contextlib.suppress(DecodeError):
            _read_detail(detail, facts)
    return _CLASSES.get(code, GraftError)(status.message, code=code, **facts)


def from_call(call: FailedCall) -> GraftError:
    """The error that a failed gRPC call describes, with the details of its trailers where it has any."""
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            status = _parsed(value) or status
    return from_status(status)


def from_rpc_error(error: grpc.RpcError) -> GraftError:
    """The error that grpc or grpc.aio raised, as one of ours."""
    if isinstance(error, FailedCall):
        return from_call(error)
    return InternalError(str(error))


def _parsed(serialized: bytes) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status = status_pb2.Status.FromString(serialized)
    except DecodeError:
        return None
    return status


def _read_detail(detail: Any, facts: dict[str, Any]) -> None:
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    if detail.Unpack(info):
        facts.update(reason=info.reason, domain=info.domain, metadata=dict(info.metadata))
    elif detail.Unpack(bad):
        facts["field_violations"] = [
            FieldViolation(field=violation.field, description=violation.description)
            for violation in bad.field_violations
        ]
    elif detail.Unpack(retry):
        facts["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
