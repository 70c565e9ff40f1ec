"""What came of an adaptation's examples beside those of its base, as a message."""

from __future__ import annotations

import dataclasses

from graft.v1 import types_pb2
from graft_server.domain.extension import Extension


def extension(value: Extension | None) -> types_pb2.Extension | None:
    """Returns the message; None: there is no base."""
    return None if value is None else types_pb2.Extension(**dataclasses.asdict(value))
