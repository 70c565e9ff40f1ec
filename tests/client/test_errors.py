"""Status details on the wire become attributes of the error."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import graft
from graft.errors import from_call, from_status


def packed(*messages: Message) -> list[Any]:
    details = [Any() for _ in messages]
    for detail, message in zip(details, messages, strict=True):
        detail.Pack(message)
    return details


class Ended:
    """The end of a call, as grpc presents it."""

    def __init__(
        self, code: grpc.StatusCode, details: str, trailers: Iterable[tuple[str, str | bytes]] | None
    ) -> None:
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        return self._trailers


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, graft.InvalidArgumentError),
        (grpc.StatusCode.NOT_FOUND, graft.NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, graft.AlreadyExistsError),
        (grpc.StatusCode.ABORTED, graft.AbortedError),
        (grpc.StatusCode.FAILED_PRECONDITION, graft.FailedPreconditionError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, graft.ResourceExhaustedError),
        (grpc.StatusCode.UNAUTHENTICATED, graft.UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, graft.PermissionDeniedError),
        (grpc.StatusCode.UNAVAILABLE, graft.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, graft.DeadlineExceededError),
        (grpc.StatusCode.CANCELLED, graft.CancelledError),
        (grpc.StatusCode.UNIMPLEMENTED, graft.UnimplementedError),
        (grpc.StatusCode.DATA_LOSS, graft.DataLossError),
        (grpc.StatusCode.INTERNAL, graft.InternalError),
    ],
)
def test_each_code_has_its_class(code: grpc.StatusCode, expected: type[graft.GraftError]) -> None:
    error = from_call(Ended(code, "what was wrong", None))
    assert type(error) is expected
    assert error.code is code
    assert error.message == "what was wrong"


def test_a_code_without_a_class_of_its_own_keeps_its_code() -> None:
    error = from_status(status_pb2.Status(code=grpc.StatusCode.OUT_OF_RANGE.value[0], message="too far"))
    assert type(error) is graft.GraftError
    assert error.code is grpc.StatusCode.OUT_OF_RANGE


def test_details_in_the_trailers_become_attributes() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="inputs[2].text", description="is blank")
    status = status_pb2.Status(
        code=3,
        message="inputs[2].text is blank",
        details=packed(
            error_details_pb2.ErrorInfo(reason="INPUT_EMPTY", domain="graft", metadata={"index": "2"}),
            error_details_pb2.BadRequest(field_violations=[violation]),
        ),
    )
    trailers = [("other", "value"), ("grpc-status-details-bin", status.SerializeToString())]
    error = from_call(Ended(grpc.StatusCode.INVALID_ARGUMENT, "short", trailers))
    assert error.message == "inputs[2].text is blank"
    assert (error.reason, error.domain, error.metadata) == ("INPUT_EMPTY", "graft", {"index": "2"})
    assert error.field_violations == (graft.FieldViolation("inputs[2].text", "is blank"),)
    assert str(error) == "inputs[2].text is blank [INPUT_EMPTY]"


def test_retry_info_becomes_seconds() -> None:
    info = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    error = from_status(status_pb2.Status(code=8, message="queue full", details=packed(info)))
    assert error.retry_after == 2.5


def test_unknown_details_are_passed_over() -> None:
    status = status_pb2.Status(
        code=13, message="broke", details=packed(error_details_pb2.DebugInfo(detail="x"))
    )
    assert from_status(status).message == "broke"


def test_broken_details_do_not_hide_the_error() -> None:
    error = from_call(
        Ended(grpc.StatusCode.NOT_FOUND, "no such model", [("grpc-status-details-bin", b"\xff\xff")])
    )
    assert type(error) is graft.NotFoundError
    assert error.message == "no such model"


def test_errors_survive_pickling() -> None:
    error = graft.AbortedError(
        "moved",
        reason="ALIAS_MOVED",
        domain="graft",
        metadata={"version": "4"},
        field_violations=[graft.FieldViolation("alias", "moved")],
        retry_after=1.5,
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is graft.AbortedError
    assert vars(again) == vars(error)
