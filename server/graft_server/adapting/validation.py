"""What an example must be to be accepted. A bad one is refused alone, by its sequence number."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from graft_server.errors import InvalidError
from graft_server.examples import Change, Example, Input
from graft_server.names import MAX_ID_BYTES, clean_label, shown

MAX_TEXT_BYTES = 1 << 20


def check_input(value: Input, field: str) -> Input:
    """Returns the input, or raises InvalidError."""
    if not value.text or value.text.isspace():
        raise InvalidError(
            f"{field}.text is empty: give a text with something in it.",
            reason="INPUT_EMPTY",
            field=f"{field}.text",
        )
    size = len(value.text.encode())
    if size > MAX_TEXT_BYTES:
        raise InvalidError(
            f"{field}.text has {size:,} bytes: at most {MAX_TEXT_BYTES:,} are accepted.",
            reason="INPUT_TOO_LONG",
            field=f"{field}.text",
        )
    return value


def check_change(change: Change, *, default_id: str, labels: Collection[str] | None) -> Change:
    """Returns the change, cleaned and with its id, or raises InvalidError.

    Args:
        change: As the client sent it.
        default_id: The id of an example that has none of its own.
        labels: The labels that are allowed; None: any.
    """
    if change.upsert is not None:
        example = _check_example(change.upsert, labels)
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


def _check_example(example: Example, labels: Collection[str] | None) -> Example:
    check_input(example.input, "upsert.input")
    check_weight(example.weight, "upsert.weight")
    _check_size(example.id, "upsert.id")
    _check_size(example.group, "upsert.group")
    if example.label is None:
        return example
    label = clean_label(example.label, "upsert.label")
    if labels is not None and label not in labels:
        raise InvalidError(
            f"upsert.label is {shown(label)}, which is not among the {len(labels)} labels of start, and "
            "closed_labels allows no others.",
            reason="LABEL_UNKNOWN",
            field="upsert.label",
        )
    return replace(example, label=label)


def _check_size(value: str, field: str) -> None:
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidError(
            f"{field} is {shown(value)}, {len(value.encode()):,} bytes: at most {MAX_ID_BYTES} are accepted.",
            reason="ID_TOO_LONG",
            field=field,
        )
