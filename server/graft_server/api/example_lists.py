"""Which stored examples a caller asks for, and where a page of them begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graft_server.api.paging import bad_token
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import ExamplesWanted, StoredExample

MAX_IDS = 10_000
"""Of examples to erase at once."""
MAX_LISTED_IDS = 1_000
"""Of examples to list, in one request."""
ANY_EXAMPLE = ExamplesWanted()
EXAMPLES_AT_ONCE = 64
BYTES_AT_ONCE = 1 << 20
"""The approximate bytes of stored examples that are read at once; a page may end after any of them."""


def place_of(token: str) -> tuple[str, str, int] | None:
    """Returns where a page of examples begins: adaptation, writer and sequence."""
    if not token:
        return None
    match token.split("/"):
        case [adaptation_id, writer_id, sequence] if sequence.isascii() and sequence.isdigit():
            return adaptation_id, writer_id, int(sequence)
    raise bad_token(token)


def token_of(example: StoredExample) -> str:
    """Returns the token of a page that begins with an example."""
    return f"{example.adaptation_id}/{example.writer_id}/{example.sequence}"


def some_of(entries: Iterator[tuple[StoredExample, str]]) -> list[tuple[StoredExample, str]]:
    """Yields the next entries, a few at a time: for large inputs no more than a page may have."""
    found: list[tuple[StoredExample, str]] = []
    size = 0
    for entry in entries:
        found.append(entry)
        size += entry[0].example.input.size
        if len(found) == EXAMPLES_AT_ONCE or size >= BYTES_AT_ONCE:
            break
    return found


def check_wanted(wanted: ExamplesWanted) -> None:
    """Raises InvalidError where nothing can be listed that is asked for so."""
    if len(wanted.ids) > MAX_LISTED_IDS:
        raise InvalidError(
            f"ids has {len(wanted.ids):,} entries: at most {MAX_LISTED_IDS:,} a request are accepted.",
            reason="TOO_MANY_EXAMPLES",
            field="ids",
        )
    if "" in wanted.ids:
        raise InvalidError(
            "ids has an empty entry: name the examples to list.", reason="ID_EMPTY", field="ids"
        )
    if wanted.version < 0:
        raise InvalidError(
            f"version is {wanted.version}: versions count from 1; 0 lists all that is stored.",
            reason="VERSION_INVALID",
            field="version",
        )


def require_some(ids: Sequence[str], subject: str) -> None:
    """Raises InvalidError where it is not said which examples to erase."""
    if not ids and not subject:
        raise InvalidError(
            "Neither ids nor subject is set: say which examples to erase.",
            reason="EXAMPLES_UNNAMED",
            field="ids",
        )
    if len(ids) > MAX_IDS:
        raise InvalidError(
            f"ids has {len(ids):,} entries: at most {MAX_IDS:,} a request are accepted.",
            reason="TOO_MANY_EXAMPLES",
            field="ids",
        )
    if "" in ids:
        raise InvalidError(
            "ids has an empty entry: name the examples to erase.", reason="ID_EMPTY", field="ids"
        )
