"""Pools of threads, one for each kind of work, so that work that hangs does not hold up the other kinds.

Writes of the store, and what works on it in the background, run on the event loop's own pool (`asyncio.to_thread`):
a bucket that does not answer may take all of its threads. What callers wait to read has a pool of its own, `reading`;
so have computations: `preparing` turns inputs into what the encoder reads and looks after encoders, `learning` fits
interim heads and measures versions, `loading` describes and loads backbones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from graft_server.sharing.turns import Turns

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A pool of threads for one kind of work."""

    def __init__(self, kind: str, count: int) -> None:
        """Makes a pool of `count` threads, which start when they are needed; `kind` is their name."""
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=kind)
        self._turns = Turns(count)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Runs a function on a thread of the pool; returns what it returns, and raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    async def run_in_turn(self, key: Hashable, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Runs a function as `run` does, once it is the key's turn: keys that want a thread take turns."""
        async with self._turns.place(key):
            return await self.run(function, *arguments)

    def close(self) -> None:
        """Starts nothing more, and does not wait for running work."""
        self.executor.shutdown(wait=False, cancel_futures=True)
