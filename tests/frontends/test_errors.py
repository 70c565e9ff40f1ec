"""The table of errors: each has a code, and its trailers fit into what plain clients take."""

from __future__ import annotations

import base64
import inspect
from typing import Any
from urllib.parse import quote

import grpc
import pytest

from graft_server.domain import errors
from graft_server.domain.adaptation import Failure
from graft_server.domain.names import listed
from graft_server.frontends.grpc.errors import CODES, MESSAGE_BYTES, end, failure_status, fitted, to_status

PLAIN_BYTES = 8 << 10
"""Of all trailers, in gRPC's clients as they are."""
OWN_BYTES = 512
"""For what gRPC and proxies add."""
NAMES = {
    "ascii": "a" * 20_000,
    "percent": "%" * 20_000,
    "latin": "ß" * 20_000,
    "chinese": "錠" * 20_000,
    "emoji": "🔒" * 20_000,
    "control": "\x01\n" * 20_000,
    "short": "x",
    "none": "",
}


class Recorder:
    """The side of a call that a status is written to."""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, message: str) -> None:
        self.message = message

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.metadata = metadata

    def size(self) -> int:
        """The trailers' bytes as HTTP/2 counts them, with messages and binary values as gRPC writes them."""
        entries = [("grpc-status", str(self.code.value[0])), ("grpc-message", "x" * written(self.message))]
        for name, value in self.metadata:
            entries.append((name, base64.b64encode(value).decode() if isinstance(value, bytes) else value))
        return sum(len(name) + len(value) + 32 for name, value in entries)


def made(kind: type[errors.DomainError], text: str) -> errors.DomainError:
    """An error of a kind that repeats a caller's text wherever one can stand."""
    takes = inspect.signature(kind).parameters
    if "message" not in takes:
        return kind(*[1] * len(takes))  # type: ignore[call-arg]
    if kind is errors.OverloadError:
        return errors.OverloadError(text, reason="QUEUE_FULL", retry_after_s=1.5)
    facts = {f"{number}{text}": text for number in range(100)} | {"next_sequence": text}
    return kind(text, reason="TEST", field=text, metadata=facts)


@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("kind", CODES, ids=lambda it: it.__name__)
def test_the_trailers_of_every_error_fit(kind: type[errors.DomainError], text: str) -> None:
    recorder, error = Recorder(), made(kind, text)
    end(recorder, error)
    assert recorder.code is CODES[kind]
    assert recorder.size() < PLAIN_BYTES - OWN_BYTES
    if len(error.message) < 100:
        assert recorder.message == error.message
    elif error.message == text:
        assert recorder.message == fitted(text, MESSAGE_BYTES)
        assert recorder.message.startswith(text[:100])
        assert recorder.message.endswith("… (cut)")


@pytest.mark.parametrize("kind", CODES, ids=lambda it: it.__name__)
def test_a_status_within_a_message_is_as_short(kind: type[errors.DomainError]) -> None:
    error = made(kind, NAMES["emoji"])
    assert to_status(error).ByteSize() < PLAIN_BYTES
    failure = Failure(
        kind=kind.__name__,
        reason=error.reason,
        message=error.message,
        field=error.field,
        metadata=error.metadata,
    )
    assert failure_status(failure).ByteSize() < PLAIN_BYTES


@pytest.mark.parametrize("text", ["", "a", "ä" * 2_000, "a" * 1_536, "a" * 1_537, "\ud800" * 2_000])
def test_a_text_is_cut_only_where_it_is_too_long(text: str) -> None:
    cut = fitted(text, 1_536)
    assert (cut == text) == (written(text) <= 1_536)
    assert written(cut) <= 1_536


def written(text: str) -> int:
    """The bytes of a message as gRPC writes it: all but printable ASCII as three a byte."""
    safe = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
    return len(quote(text.encode("utf-8", "surrogatepass"), safe=safe))


def test_a_list_says_how_many_more_there_are() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([f"name{number}" for number in range(117)], 2) == "'name0', 'name1' and 115 more"
