"""Pools of threads, one for each kind of work, so that work which hangs keeps no other kind waiting.

What reads and writes the store runs on the event loop's own pool (`asyncio.to_thread`): a bucket that does not answer
may take all of its threads. What computes has pools of its own, and goes on: `preparing` turns inputs into what the
encoder reads and looks after encoders, `learning` fits interim heads and measures versions. `app.py` makes all three.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A pool of threads for one kind of work."""

    def __init__(self, kind: str, count: int) -> None:
        """Makes a pool of `count` threads, which start as they are needed; `kind` is what they are called."""
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=kind)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Runs a function on a thread of the pool; returns what it returns, and raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    def close(self) -> None:
        """Starts nothing more. What runs is not waited for."""
        self.executor.shutdown(wait=False, cancel_futures=True)
