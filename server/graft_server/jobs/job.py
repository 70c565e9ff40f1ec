"""What a job is, and the interface behind which jobs run: processes beside the server, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A function to be called somewhere else."""

    function: str
    """"package.module:function", of the signature `(payload, progress) -> result`, where progress takes a
    dict. It may be called twice: a job whose process died is tried again."""
    payload: Any
    """Its argument, of builtin types and bytes; its result and progress are of the same kind."""
    key: str = ""
    """Jobs that have to wait take turns by key: the model's name."""
    fresh: bool = False
    """If true, the function gets a process of its own, which ends with it: for what leaves much behind."""
    passed_on: bool = False
    """If true, a fresh process goes on to the next job of the same function that waits already, and ends after the
    last: for functions that import for longer than they compute."""


class Jobs(Protocol):
    """Where jobs run."""

    async def run(self, job: Job, on_progress: OnProgress) -> Any:
        """Runs a job and returns its result. Cancelling the task that awaits it ends the job.

        Raises:
            DomainError: What the function raised.
            WorkerError: The function raised something else, or its process died twice.
        """
