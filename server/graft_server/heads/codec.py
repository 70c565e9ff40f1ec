"""A head as bytes: MessagePack with raw arrays. Self-describing, so that old versions stay readable.

It carries no digest: the store seals its objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from graft_server.domain.errors import CorruptError, NewerError
from graft_server.domain.examples import Task
from graft_server.heads.head import Head
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.heads.packing import FORMAT, require
from graft_server.heads.regression import RegressionHead
from graft_server.heads.single_label import SingleLabelHead

HEADS: Mapping[Task, type[Head]] = {
    Task.SINGLE_LABEL: SingleLabelHead,
    Task.MULTI_LABEL: MultiLabelHead,
    Task.REGRESSION: RegressionHead,
}
"""The kind of head of each task."""


class _AnyHead(msgspec.Struct, frozen=True):
    """The fields that tell heads apart. A head of the default task may leave its task out."""

    format: int
    task: Task = Task.DEFAULT


def encode(head: Head) -> bytes:
    """Returns the head as bytes."""
    return msgspec.msgpack.encode(head.packed())


def decode(data: bytes) -> Head:
    """Returns the head from bytes of `encode`; raises CorruptError for any others, NewerError for a newer release's."""
    try:
        said = msgspec.msgpack.decode(data, type=_AnyHead)
        if said.format > FORMAT:
            raise NewerError.of_format("A stored head", said.format, FORMAT)
        require(said.format == FORMAT, "format and release")
        return HEADS[said.task].unpacked(data)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptError("A stored head cannot be read.", reason="HEAD_CORRUPT") from error
