"""What a job is, and the interface behind which jobs run: processes beside the server, or a cluster.

A kind of job is one `JobType`, in a light module that both sides import: whoever asks for it and the function that
does it share its payload and its result, and the type checker sees both. Neither has a path, or where the store is:
those differ from machine to machine, so a worker has them from its `Place`. What jobs hand each other besides lies in
the store, by key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker knows of where it runs. It gets this once, when it starts."""

    store: str = ""
    """Where the store is, for `Objects.open`; "": there is none."""
    cache: str = ""
    """The folder for what can be made again: this worker's own, or one that it shares with others."""
    backbones: Mapping[str, str] = field(default_factory=dict)
    """Name to source, as in the server's settings."""
    precision: str = "fp32"
    """What encoders compute in; one of `backbones.source.PRECISIONS`."""
    threads: int = 1
    """How many a tuning may use."""
    tuning_bytes: int = 1 << 30
    """What a tuning computes once is kept in memory up to here, and on disk beyond."""


TEMPORARY = "temporary"
"""The folder of a cache for what is on its way to its place, and for the temporary files of libraries."""
NOWHERE = Place()
"""Where there is neither a store nor a backbone: for jobs that need none."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    stage: str = ""
    fraction: float = 0.0
    """Of the whole job, 0 to 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    eta_s: float | None = None
    """Seconds that are left; None: unknown."""
    done: int = 0
    """How much of the stage is done, in units."""
    total: int = 0
    """How much there is to do in the stage; 0: nothing is counted."""
    unit: str = ""
    """What is counted, in the plural; "": nothing is."""


WAITING = "waiting"
"""The stage of a job that has no worker yet."""

OnProgress = Callable[[Progress], None]
Function = Callable[[P, Place, OnProgress], R]


@dataclass(frozen=True, slots=True)
class JobType(Generic[P, R]):
    """A kind of job: the function that does it, and the types of what it takes and gives.

    Both are plain dataclasses (or builtins) that msgspec can write and read.
    """

    function: str
    """"package.module:function". It may be called twice: a job whose process died is tried again."""
    payload: type[P]
    result: type[R]
    fresh: bool = False
    """If true, the function gets a process of its own, which ends with it: for what leaves much behind."""
    passed_on: bool = False
    """If true, a fresh process goes on to the next job of the same function that waits already, and ends after the
    last: for functions that import for longer than they compute."""

    def done_by(self, function: Function[P, R]) -> Function[P, R]:
        """Marks the function that does such jobs: a decorator. Workers run marked functions alone."""
        _DONE_BY[self.function] = Implementation(self, function)
        return function

    def job(self, payload: P, key: str = "") -> Job[P, R]:
        """A job of this kind; see `Job`."""
        return Job(self, payload, key)


@dataclass(frozen=True, slots=True)
class Implementation(Generic[P, R]):
    """A kind of job, and the function that does it."""

    of: JobType[P, R]
    function: Function[P, R]


_DONE_BY: dict[str, Implementation[Any, Any]] = {}


def implementation(function: str) -> Implementation[Any, Any]:
    """What does the jobs of a `JobType.function` whose module has been imported.

    Raises:
        LookupError: No function of that name is marked by `JobType.done_by`.
    """
    found = _DONE_BY.get(function)
    if found is None:
        raise LookupError(f"{function} does no job: mark it with the `done_by` of its JobType.")
    return found


@dataclass(frozen=True, slots=True)
class Job(Generic[P, R]):
    """A function to be called somewhere else."""

    of: JobType[P, R]
    payload: P
    key: str = ""
    """Jobs that have to wait take turns by key: the model's name."""


class Jobs(Protocol):
    """Where jobs run."""

    async def run(self, job: Job[P, R], on_progress: OnProgress) -> R:
        """Runs a job and returns its result. Cancelling the task that awaits it ends the job.

        Raises:
            DomainError: What the function raised.
            WorkerError: The function raised something else, or its process died twice.
        """


def unwatched(_: Progress) -> None:
    """For jobs whose progress nobody follows."""
