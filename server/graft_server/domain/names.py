"""The rules for names, and the one place that checks them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from graft_server.domain.errors import InvalidError
from graft_server.domain.label_forms import shows_nothing, spelled

SEGMENT = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
IDENTIFIER = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
MAX_MODEL_SEGMENTS = 4
MAX_LABEL_BYTES = 256
MAX_ID_BYTES = 256

_MODEL = re.compile(rf"{SEGMENT}(?:/{SEGMENT}){{0,{MAX_MODEL_SEGMENTS - 1}}}")
_SEGMENT = re.compile(SEGMENT)
_IDENTIFIER = re.compile(IDENTIFIER)


def shown(value: str, limit: int = 64) -> str:
    """Quotes a caller's value for a message, cut to `limit` characters."""
    return repr(value if len(value) <= limit else value[:limit] + "…")


def listed(values: Sequence[str], limit: int = 10) -> str:
    """Quotes the first of a caller's values for a message, and says how many more there are."""
    named = ", ".join(map(shown, values[:limit]))
    return named if len(values) <= limit else f"{named} and {len(values) - limit:,} more"


def check_model(name: str, field: str = "model") -> str:
    """Returns the model's name, or raises InvalidError."""
    if not _MODEL.fullmatch(name):
        raise InvalidError(
            f"{field} is {shown(name)}: a model's name is one to {MAX_MODEL_SEGMENTS} segments joined by '/', "
            "each of 1 to 63 lower-case letters, digits, '.', '_' and '-', beginning and ending with a "
            "letter or digit.",
            reason="MODEL_NAME_INVALID",
            field=field,
        )
    return name


def is_model(name: str) -> bool:
    """Whether a model can have this name."""
    return _MODEL.fullmatch(name) is not None


def check_alias(alias: str, field: str = "alias") -> str:
    """Returns the alias, or raises InvalidError."""
    if not _SEGMENT.fullmatch(alias) or alias.isdigit():
        raise InvalidError(
            f"{field} is {shown(alias)}: an alias is 1 to 63 lower-case letters, digits, '.', '_' and '-', "
            "beginning and ending with a letter or digit, and is not a number.",
            reason="ALIAS_INVALID",
            field=field,
        )
    return alias


def check_identifier(value: str, field: str) -> str:
    """Returns an adaptation's, writer's or commit's id, or raises InvalidError."""
    if not _IDENTIFIER.fullmatch(value):
        raise InvalidError(
            f"{field} is {shown(value)}: an id is 1 to 128 letters, digits, '.', '_' and '-', beginning and "
            "ending with a letter or digit.",
            reason="ID_INVALID",
            field=field,
        )
    return value


def clean_label(label: str, field: str) -> str:
    """Returns the label NFC-normalised and trimmed, or raises InvalidError."""
    # Long labels are refused before they are normalised: normalising 32 MiB takes seconds.
    if len(label) <= 4 * MAX_LABEL_BYTES:
        label = unicodedata.normalize("NFC", label).strip()
        if not label:
            raise InvalidError(
                f"{field} is empty: give the example a label of 1 to {MAX_LABEL_BYTES} bytes.",
                reason="LABEL_EMPTY",
                field=field,
            )
        if shows_nothing(label):
            raise InvalidError(
                f"{field} is {spelled(label[:16])}, which has invisible characters alone: give the example a label "
                "that can be read.",
                reason="LABEL_EMPTY",
                field=field,
            )
        if len(label.encode()) <= MAX_LABEL_BYTES:
            return label
    raise InvalidError(
        f"{field} is {shown(label)}, {len(label.encode()):,} bytes: a label is at most {MAX_LABEL_BYTES} bytes.",
        reason="LABEL_TOO_LONG",
        field=field,
    )
