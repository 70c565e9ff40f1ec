"""The processes of a server that is tested."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any


def workers(server: Any) -> list[int]:
    """The worker processes of a server."""
    children: list[int] = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children += [int(pid) for pid in (task / "children").read_text().split()]
    found = []
    for pid in children:
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"graft_server.jobs.local.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
