"""The rules for an acceptable example. A bad one is refused alone, by its sequence number."""

from __future__ import annotations

import math
from dataclasses import replace

from graft_server.adapting.intake.targets import TargetRules
from graft_server.domain.errors import InvalidError
from graft_server.domain.examples import Change, Example, Input, Kind
from graft_server.domain.names import MAX_ID_BYTES, shown

MAX_TEXT_BYTES = 1 << 20


def check_input(value: Input, field: str) -> Input:
    """Returns the input, or raises InvalidError. The preprocessor checks whether a backbone can read it."""
    if value.kind is Kind.TEXT:
        _check_text(value.text, f"{field}.text")
    elif value.kind is Kind.TEXT_PAIR:
        _check_text(value.text, f"{field}.text_pair.first")
        _check_text(value.second, f"{field}.text_pair.second")
    elif not value.data:
        raise InvalidError(
            f"{field}.{value.kind} is empty: give {_SOMETHING[value.kind]}.",
            reason="INPUT_EMPTY",
            field=f"{field}.{value.kind}",
        )
    return value


_SOMETHING = {
    Kind.IMAGE: "the bytes of an image file",
    Kind.AUDIO: "the bytes of an audio file",
    Kind.FEATURES: "the numbers of a vector",
}


def _check_text(text: str, field: str) -> None:
    if not text or text.isspace():
        raise InvalidError(
            f"{field} is empty: give a text with something in it.", reason="INPUT_EMPTY", field=field
        )
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise InvalidError(
            f"{field} has {size:,} bytes: at most {MAX_TEXT_BYTES:,} are accepted.",
            reason="INPUT_TOO_LONG",
            field=field,
        )


def check_change(change: Change, *, default_id: str, targets: TargetRules) -> Change:
    """Returns the change, cleaned and with its id, or raises InvalidError.

    Args:
        change: As the client sent it.
        default_id: The id of an example that has none of its own.
        targets: The adaptation's rules for targets.
    """
    if change.upsert is not None:
        example = _check_example(change.upsert, targets)
        return Change(upsert=replace(example, id=example.id or default_id))
    if not change.delete_id:
        raise InvalidError(
            "delete_id is empty: name the example to remove.", reason="ID_EMPTY", field="delete_id"
        )
    _check_size(change.delete_id, "delete_id")
    return change


def check_weight(weight: float, field: str) -> float:
    """Returns the weight, or raises InvalidError."""
    if not (math.isfinite(weight) and weight >= 0):
        raise InvalidError(
            f"{field} is {weight}: a weight is a finite number, 0 or greater.",
            reason="WEIGHT_INVALID",
            field=field,
        )
    return weight


def _check_example(example: Example, targets: TargetRules) -> Example:
    check_input(example.input, "upsert.input")
    check_weight(example.weight, "upsert.weight")
    _check_size(example.id, "upsert.id")
    _check_size(example.group, "upsert.group")
    _check_size(example.subject, "upsert.subject")
    _check_size(example.origin, "upsert.origin")
    return targets.check(example, "upsert.")


def _check_size(value: str, field: str) -> None:
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidError(
            f"{field} is {shown(value)}, {len(value.encode()):,} bytes: at most {MAX_ID_BYTES} are accepted.",
            reason="ID_TOO_LONG",
            field=field,
        )
