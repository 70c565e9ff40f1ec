"""Lines of the log, one a happening that a person wants to know of afterwards, with a name and fields.

    version published: model=support/intents version=4 accuracy=0.914 examples=412 seconds=12.3 live=yes

The line is the message of an ordinary record of `logging`, whose attributes `event` and `fields` have the same as data,
for a handler that writes another form. Names of models, adaptations and commits are fields; inputs never are, and
labels are counted, not named: either may be personal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping

from graft_server.domain.errors import DomainError

Field = str | int | float | bool | None

NOT_MEASURED = "not measured"
SHORT_ID = 12
"""The characters of an encoder's id that tell it from the others."""
_MOST = 1_000
"""The most characters of a value."""
_PLAIN = re.compile(r"[A-Za-z0-9._/:@+,\[\]-]+")
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""")


def log_event(log: logging.Logger, event: str, /, **fields: Field) -> None:
    """Writes the line of something that went well.

    Args:
        log: The logger of the module whose work it is.
        event: What happened, in words that do not vary: "version published".
        fields: What is known of it, most important first. None is left out.
    """
    _log(log, logging.INFO, event, fields)


def log_failure(log: logging.Logger, event: str, error: DomainError, /, **fields: Field) -> None:
    """Writes the line of something that failed, with its reason and message but what that quotes of callers' values.

    Args:
        log: The logger of the module whose work it is.
        event: What failed, in words that do not vary: "publication failed".
        error: Why.
        fields: What else is known of it, most important first. None is left out.
    """
    detail = _QUOTED.sub("'…'", error.message)
    _log(log, logging.WARNING, event, {**fields, "reason": error.reason, "detail": detail})


def line(fields: Mapping[str, Field]) -> str:
    """Returns fields as name=value, separated by spaces. A value that could be misread is in double quotes."""
    return " ".join(f"{name}={_written(value)}" for name, value in fields.items())


def figure(value: float, *, measured: bool = True) -> Field:
    """Returns a figure as it stands in a line, to four digits behind the point."""
    return round(value, 4) if measured else NOT_MEASURED


def _log(log: logging.Logger, level: int, event: str, fields: Mapping[str, Field]) -> None:
    if log.isEnabledFor(level):
        known = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "%s: %s", event, line(known), extra={"event": event, "fields": known}, stacklevel=3)


def _written(value: Field) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return f"{value:.10g}" if isinstance(value, float) else str(value)
    if len(value) > _MOST:
        value = value[:_MOST] + "…"
    if _PLAIN.fullmatch(value):
        return value
    # JSON escapes quotes, backslashes and line breaks; the rest of what cannot be seen is escaped here.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(it if it.isprintable() else f"\\u{ord(it):04x}" for it in quoted)
