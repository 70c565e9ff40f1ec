"""How far a commit is, and how long it will still take: by what its parts have taken so far.

The work has parts: examples without features are encoded, a head is trained, a backbone is perhaps tuned. Each part
says which share of it is done. What it will take is expected at first, by what such work took on this server before,
and is measured as soon as some of it is done. The share of the whole that is done goes on from where it is whenever an
expectation changes, so that it never falls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from graft_server.domain.stream import Progress
from graft_server.jobs.job import WAITING

SETTLED_S = 10.0
"""From when on what is left is told, and how long a part is measured until its expectation counts no more."""
EVIDENCE_S = 3.0
"""How much work, in expected seconds, says as much about the speed of uneven work as what was known before."""
SHORTEST_S = 0.25
"""Between two words on the same stage: what comes in between is left out, and the newest is told."""
LONGEST_S = 1.0
"""Between two words, whatever happens."""
ALMOST = 0.999
"""The most that is told of a commit that has no outcome yet."""


@dataclass(slots=True)
class Part:
    """A part of a commit's work."""

    expected_s: float
    """What all of it is expected to take; 0: it was done before."""
    known: bool = True
    """Whether that is more than a guess: nothing is said about the end before it is."""
    even: bool = False
    """Whether equal shares take equal times, so that the first of them say how long the others take."""
    share: float = 0.0
    _began: float | None = None
    _first_share: float = 0.0
    _changed: float = 0.0
    _told_left_s: float | None = None

    def begin(self, share: float, now: float) -> None:
        """Notes what was done before it began: that is no work of the commit."""
        if self._began is None:
            self._began = self._changed = now
            self._first_share = self.share = min(max(share, 0.0), 1.0)

    def tell(self, share: float, now: float, left_s: float | None = None) -> None:
        """Notes the share that is done, which does not fall, and what is left by its own account, if it says so."""
        if share > self.share:
            self.share, self._changed = min(share, 1.0), now
        if left_s is not None:
            self._told_left_s, self._changed, self.known = left_s, now, True

    def left_s(self, now: float) -> float:
        """What is left of it, in seconds."""
        if self.share >= 1:
            return 0.0
        left = self._at_change()
        # Until the next word it counts down; where that does not come, no further than to half.
        return left if self._began is None else max(left - (now - self._changed), left / 2)

    def stands(self, now: float) -> bool:
        """Whether it has said nothing for so long that what is left cannot be told."""
        return self._began is not None and now - self._changed > self._at_change() + SETTLED_S

    def _at_change(self) -> float:
        """What was left when it said something last."""
        if self._told_left_s is not None:
            return self._told_left_s
        expected = self.expected_s * (1 - self.share)
        gained = self.share - self._first_share
        if self._began is None or gained <= 0:
            return expected
        spent = self._changed - self._began
        if self.even:
            weight = min(spent / SETTLED_S, 1.0)
            return weight * spent * (1 - self.share) / gained + (1 - weight) * expected
        # How much slower than expected, as far as what is done is evidence of it.
        return expected * (spent + EVIDENCE_S) / (gained * self.expected_s + EVIDENCE_S)


class Pace:
    """Tells of one commit's work. Belongs to one event loop.

    Attributes:
        parts: The parts of the work, by name, in order.
    """

    def __init__(
        self, commit_id: str, tell: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins the clock.

        Args:
            commit_id: The commit.
            tell: Hears of it: each LONGEST_S at least while `running`, and no more often than needed.
            clock: Seconds, never going back.
        """
        self.parts: dict[str, Part] = {}
        self._tell = tell
        self._clock = clock
        self._began = clock()
        self._last_told = -SHORTEST_S
        self._fraction = 0.0
        self._now = Progress(commit_id)
        self._said = ""
        """The stage that was told last."""

    def plan(self, parts: Mapping[str, Part]) -> None:
        """Says what the rest of the work consists of, in order. What is done already stays done."""
        self.parts = dict(parts)

    def stage(self, stage: str) -> None:
        """Tells of a stage of which nothing is counted."""
        self._now = replace(self._now, stage=stage, done=0, total=0, unit="", metrics={})
        self._say()

    def told(self, part: str, share: float, progress: Progress) -> None:
        """Tells of a part.

        Args:
            part: Its name.
            share: How much of it is done, 0 to 1.
            progress: The stage, its counts and its figures, and `eta_s` where the part itself knows what is left.
        """
        if progress.stage == WAITING:
            self.stage(WAITING)
            return
        now, own = self._clock(), self.parts[part]
        own.begin(share, now)
        before, whole, share_before = own.left_s(now), self._left_s(now), own.share
        own.tell(share, now, progress.eta_s)
        if own.share > share_before and whole > 0:
            gained = before * (own.share - share_before) / (1 - share_before)
            self._fraction += (1 - self._fraction) * min(gained / whole, 1.0)
        if progress.stage == self._now.stage and not progress.metrics:
            progress = replace(progress, metrics=self._now.metrics)
        self._now = replace(progress, commit_id=self._now.commit_id)
        self._say()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Meanwhile something is told each LONGEST_S, if only that time passes."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LONGEST_S)
            if self._now.stage:
                self._emit(self._clock())

    def _say(self) -> None:
        now = self._clock()
        if self._now.stage != self._said or now - self._last_told >= SHORTEST_S:
            self._emit(now)

    def _emit(self, now: float) -> None:
        self._last_told, self._said = now, self._now.stage
        elapsed = now - self._began
        fraction = min(self._fraction, ALMOST)
        self._tell(replace(self._now, fraction=fraction, eta_s=self._eta_s(now), elapsed_s=elapsed))

    def _left_s(self, now: float) -> float:
        return sum(part.left_s(now) for part in self.parts.values())

    def _eta_s(self, now: float) -> float | None:
        if self._now.stage == WAITING or now - self._began < SETTLED_S:
            return None
        parts = [part for part in self.parts.values() if part.share < 1]
        if any(not part.known or part.stands(now) for part in parts):
            return None
        return self._left_s(now)


class Speeds:
    """What work took on this server so far, and so what it is expected to take."""

    def __init__(self) -> None:
        self._encoding_s: dict[str, float] = {}
        """Seconds an example, by encoder."""
        self._training = 1.0
        """Seconds of a training over those of `usual`."""

    def encoding_s(self, encoder_id: str, examples: int) -> float:
        """What encoding so many examples is expected to take."""
        return examples * self._encoding_s.get(encoder_id, USUAL_ENCODING_S)

    def training_s(self, usual_s: float) -> float:
        """What a training is expected to take that usually takes `usual_s`."""
        return usual_s * self._training

    def encoded(self, encoder_id: str, examples: int, seconds: float) -> None:
        """Notes what an encoding took."""
        if examples >= MANY_EXAMPLES:
            self._encoding_s[encoder_id] = seconds / examples

    def trained(self, usual_s: float, seconds: float) -> None:
        """Notes what a training took that usually takes `usual_s`."""
        self._training = (self._training + min(max(seconds / usual_s, 0.1), 10.0)) / 2


USUAL_ENCODING_S = 0.005
"""For each example of an encoder that this server has not measured yet."""
MANY_EXAMPLES = 256
"""From so many on an encoding says how fast the encoder is."""
