"""What there is to show of a piece of work at any moment: its clock runs on between two messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from graft._progress import words
from graft._records.adapting.told import AdaptProgress
from graft._records.records import Progress

SETTLED_S: Final = 10.0
"""From when on what even work took says what it will take."""


class View:
    """What was told of a piece of work last, and when.

    Attributes:
        what: What is being done.
        share: How much of it is done, 0 to 1; None where that is not known.
        busy: Whether something is being done, and not only waited for.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins the clock."""
        self.what = what
        self.share: float | None = None
        self.busy = True
        self._clock = clock
        self._began = self._told = clock()
        self._left_s: float | None = None
        self._shown: tuple[str, float | None] | None = None

    def line_is_new(self) -> bool:
        """Whether there is more to say than when this was asked last; the time alone counts while something is done."""
        shown, self._shown = self._shown, (self.what, self.share)
        return self.busy or shown != self._shown

    def tell(self, what: str, share: float | None = None, left_s: float | None = None) -> None:
        """Takes in what is being done, and how long the rest will take, in seconds, if that is known."""
        self.what, self.share = what, share
        self._left_s, self._told = left_s, self._clock()

    def left_at(self, share: float) -> float | None:
        """How long the rest takes of even work of which a share is done, in seconds; None where little is."""
        elapsed_s = self.elapsed_s
        if share <= 0 or elapsed_s < SETTLED_S:
            return None
        return elapsed_s * (1 - share) / share

    def began(self, elapsed_s: float) -> None:
        """Sets the clock to what another one says."""
        self._began = self._clock() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """How long it has been going on, in seconds."""
        return self._clock() - self._began

    @property
    def left_s(self) -> float | None:
        """How long the rest will take, in seconds; None where that is not known."""
        return None if self._left_s is None else max(self._left_s - (self._clock() - self._told), 0.0)

    @property
    def clock(self) -> str:
        """The time that it took, and that it will take, in words."""
        return words.clock(self.elapsed_s, self.left_s)

    @property
    def line(self) -> str:
        """All of it on one line."""
        share = f" {self.share:.0%}" if self.share is not None else ""
        return f"{self.what}{share} · {self.clock}"


class AdaptView(View):
    """A view of an adaptation: first the examples are sent, then a version is trained."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("connecting", clock)
        self._read = 0.0

    def reading(self, share: float) -> None:
        """Notes which share of the data has been read, 0 to 1."""
        self._read = share

    def show(self, progress: AdaptProgress) -> None:
        """Takes in how far the adaptation is."""
        self.busy = progress.stage != "streaming"
        training = bool(progress.commit_id) and progress.trouble is None
        share = progress.fraction if training or progress.stage == "published" else self._read or None
        self.tell(words.doing(progress), share, progress.eta_s if progress.trouble is None else None)


class WatchView(View):
    """A view of an adaptation that somebody watches. Its clock is the server's: of the commit, or of the stream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("watching", clock)

    def show(self, progress: Progress) -> None:
        """Takes in how far the adaptation is."""
        self.busy = bool(progress.commit_id)
        self.tell(words.doing(progress), progress.fraction if progress.commit_id else None, progress.eta_s)
        if progress.elapsed_s is not None:
            self.began(progress.elapsed_s)
