"""What a grpc.aio call really ended with.

When a server ends a call while the client is writing, the write fails, and grpc.aio replaces the status that
the server sent by an INTERNAL of its own (https://github.com/grpc/grpc/issues/36066). The server's comes
first in five of six cases, measured with grpcio 1.76, and is noted here as it comes. In the sixth it is
lost: an adaptation is then resumed like a broken one, and told again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from graft.errors import FailedCall, GraftError, from_call


class FinalStatus:
    """Follows one call from its opening, and keeps what it ended with."""

    def __init__(self, call: Any, explain: Callable[[GraftError], GraftError] = lambda it: it) -> None:
        self._explain = explain
        self._first: GraftError | None = None
        self._call = call
        call.add_done_callback(self._note)

    def error(self, raised: grpc.RpcError) -> GraftError:
        """The error to report for the one that grpc.aio raised."""
        return self._explain(self._first or from_call(_as_failed(raised)))

    def _note(self, _: Any) -> None:
        if self._first is not None:
            return
        code = _at_once(self._call.code())
        if code is not None and code is not grpc.StatusCode.OK:
            details = _at_once(self._call.details())
            self._first = from_call(_Ended(code, details, _at_once(self._call.trailing_metadata())))


class _Ended:
    """A call's end, in the form that errors are read from."""

    def __init__(self, code: grpc.StatusCode, details: str | None, trailers: Any) -> None:
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers


def _as_failed(raised: grpc.RpcError) -> FailedCall:
    if isinstance(raised, FailedCall):
        return raised
    return _Ended(grpc.StatusCode.INTERNAL, str(raised), None)


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that need not wait; the call has ended, so none of its getters does."""
    try:
        answer.send(None)
    except StopIteration as finished:
        return finished.value
    answer.close()
    return None
