"""The one table from domain errors to gRPC statuses, and how a status carries its details.

A status travels in the trailers, of which plain clients take 8 KiB in all: a longer message reaches its reader as
RESOURCE_EXHAUSTED. So each part has a limit, and what is left out is marked. The worst case, bytes that gRPC writes as
three and details in base64, is 7 KiB.
"""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from graft_server.domain import errors
from graft_server.domain.adaptation import Failure

DOMAIN = "graft"

MESSAGE_BYTES = 1_536
"""Of a message as gRPC writes it: a character of another alphabet takes 6 to 12."""
DESCRIPTION_BYTES = 512
"""Of the message again, beside the field at fault."""
FIELD_BYTES = 128
FACT_BYTES = 128
"""Of a key or a value of the metadata."""
MOST_FACTS = 5
_CUT = "… (cut)"

Context = Any
"""grpc.aio.ServicerContext, of whatever request and response."""
_Trailers = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooLargeError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MissingError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.StateError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OverloadError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DrainingError: grpc.StatusCode.UNAVAILABLE,
    errors.AgedError: grpc.StatusCode.UNAVAILABLE,
    errors.IdleError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.BackboneError: grpc.StatusCode.UNAVAILABLE,
    errors.CorruptError: grpc.StatusCode.DATA_LOSS,
    errors.NewerError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreError: grpc.StatusCode.UNAVAILABLE,
    errors.WorkerError: grpc.StatusCode.INTERNAL,
    errors.FaultError: grpc.StatusCode.INTERNAL,
}
"""An error has the code of the nearest of its classes that is listed."""

_ESCAPED = bytes({*range(256)} - {*range(0x20, 0x7F)} | {ord("%")})

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_BY_NAME = {kind.__name__: code for kind, code in CODES.items()}


def to_status(error: errors.DomainError) -> status_pb2.Status:
    """Returns the status of a domain error, with ErrorInfo always, and BadRequest and RetryInfo where they apply."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    status = _status(code, error.message, error.reason, error.field, error.metadata)
    if isinstance(error, errors.OverloadError | errors.StoreFullError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        status.details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def failure_status(failure: Failure) -> status_pb2.Status:
    """Returns the status of a stored domain error."""
    code = _BY_NAME.get(failure.kind, grpc.StatusCode.INTERNAL)
    return _status(code, failure.message, failure.reason, failure.field, failure.metadata)


def end(context: Context, error: errors.DomainError) -> None:
    """Gives a call the error's status, for a handler that then returns: cheaper than to abort by raising."""
    code, message, metadata = _trailers(error)
    context.set_code(code)
    context.set_details(message)
    context.set_trailing_metadata(metadata)


async def abort(context: Context, error: errors.DomainError) -> NoReturn:
    """Ends the call with the error's status; for handlers that are generators."""
    code, message, metadata = _trailers(error)
    await context.abort(code, message, trailing_metadata=metadata)
    raise AssertionError  # abort() has raised


def _trailers(error: errors.DomainError) -> _Trailers:
    """Returns code, message and metadata; facts such as `next_sequence` are in the metadata too."""
    if type(error) is errors.OverloadError:
        return _refusal(error.message, error.reason, error.retry_after_s)
    return _made(error)


@functools.lru_cache(maxsize=256)
def _refusal(message: str, reason: str, retry_after_s: float) -> _Trailers:
    """Makes a status once: an overloaded server refuses thousands of calls alike."""
    return _made(errors.OverloadError(message, reason=reason, retry_after_s=retry_after_s))


def _made(error: errors.DomainError) -> _Trailers:
    status = to_status(error)
    metadata: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if "next_sequence" in error.metadata:
        metadata.append(("next_sequence", fitted(error.metadata["next_sequence"], FACT_BYTES)))
    return _BY_NUMBER[status.code], status.message, tuple(metadata)


def _status(
    code: grpc.StatusCode, message: str, reason: str, field: str, metadata: dict[str, str]
) -> status_pb2.Status:
    number = code_pb2.Code.Value(code.name)
    message = fitted(message, MESSAGE_BYTES)
    status = status_pb2.Status(code=number, message=message)
    facts = {
        fitted(key, FACT_BYTES): fitted(metadata[key], FACT_BYTES) for key in list(metadata)[:MOST_FACTS]
    }
    status.details.append(_any(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts)))
    if field and code is grpc.StatusCode.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=fitted(field, FIELD_BYTES), description=fitted(message, DESCRIPTION_BYTES), reason=reason
        )
        status.details.append(_any(error_details_pb2.BadRequest(field_violations=[violation])))
    return status


def fitted(text: str, most_bytes: int) -> str:
    """Returns a text that takes at most so many bytes as gRPC writes it; a longer one ends with a mark."""
    if _written(text) <= most_bytes:
        return text
    room, kept = most_bytes - _written(_CUT), 0
    while (room := room - _written(text[kept])) >= 0:
        kept += 1
    return text[:kept] + _CUT


def _written(text: str) -> int:
    """Returns the bytes of a text as gRPC writes it: as three each but for printable ASCII."""
    encoded = text.encode("utf-8", "surrogatepass")
    return 3 * len(encoded) - 2 * len(encoded.translate(None, _ESCAPED))


def _any(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
