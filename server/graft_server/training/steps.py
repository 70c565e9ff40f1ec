"""How far a training is: its stages, what is done and left in each, and the share of its time that has passed.

Nobody knows beforehand how long a search takes, because each of its answers decides the next question. So stages and
steps have costs that are expected, and each expectation may be replaced by a better one at any time. The share that is
done goes on from where it is, and what is left of it is dealt out anew to what is left to do: it never falls, and comes
to 1 where everything is done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from graft_server.jobs.job import OnProgress, Progress, unwatched

A_TICK = 0.05
"""What a tick takes off what is left of its step, unless it says otherwise: a solver does not know how often it will
iterate."""


class Steps:
    """The way through a training. Ticks may come from any thread.

    Attributes:
        metrics: Figures that go along with what is told.
    """

    def __init__(self, tell: OnProgress = unwatched) -> None:
        """Begins at 0; `tell` hears of each change, which may be often."""
        self.metrics: Mapping[str, float] = {}
        self._tell = tell
        self._lock = threading.Lock()
        self._left: dict[str, float] = {}
        """The expected cost of what is left of each stage."""
        self._fraction = 0.0
        self._stage = self._unit = ""
        self._done = self._total = 0
        self._step_left = 0.0

    def plan(self, costs: Mapping[str, float]) -> None:
        """Says what stages are expected to take, in any one unit; others that were planned before are dropped."""
        with self._lock:
            self._left = dict(costs)

    def begin(self, stage: str, total: int = 0, unit: str = "") -> None:
        """Enters a stage; what was left of the one before is dropped.

        Args:
            stage: One of the plan.
            total: How many units there are to be done; 0: none are counted.
            unit: What is counted, in the plural.
        """
        with self._lock:
            if stage != self._stage:
                self._left.pop(self._stage, None)
            self._stage, self._unit = stage, unit
            self._done, self._total, self._step_left = 0, total, 0.0
            self._say()

    def expect(self, costs: Sequence[float]) -> None:
        """Says what is left of the present stage: what each of the units will take that are still to be done."""
        with self._lock:
            self._left[self._stage] = sum(costs)
            self._total = self._done + len(costs)
            self._say()

    @contextmanager
    def step(self, cost: float, count: int = 1) -> Iterator[None]:
        """A part of the present stage, at the end of which `count` more units are done; not within another one."""
        with self._lock:
            self._left[self._stage] = max(self._left.get(self._stage, 0.0), cost)
            self._step_left = cost
        yield
        with self._lock:
            self._spend(self._step_left)
            self._step_left = 0.0
            self._done += count if self._unit else 0
            self._total = max(self._total, self._done)
            self._say()

    def tick(self, share: float = A_TICK) -> None:
        """Notes that a share of what is left of the present step, if there is one, has been done."""
        with self._lock:
            if spent := share * self._step_left:
                self._spend(spent)
                self._step_left -= spent
                self._say()

    def _spend(self, cost: float) -> None:
        left = sum(self._left.values())
        if left > 0:
            self._fraction += (1 - self._fraction) * min(cost / left, 1.0)
        self._left[self._stage] = max(self._left.get(self._stage, 0.0) - cost, 0.0)

    def _say(self) -> None:
        self._tell(
            Progress(
                self._stage,
                min(self._fraction, 1.0),
                self.metrics,
                done=self._done,
                total=self._total,
                unit=self._unit,
            )
        )
