"""Progress on standard error: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from graft._records.told import AdaptProgress
from graft.cli import phrases

_QUIET_S: Final = 2.0
"""Without a terminal, a line of progress is written no more often than this."""


class AdaptBar:
    """Shows how far an adaptation is: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        self._terminal = console.is_terminal
        self._write = say
        self._bar = _progress(console)
        self._task = self._bar.add_task("connecting", total=None)
        self._read = 0.0
        self._last_line = time.monotonic()
        self._said = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def reading(self, fraction: float) -> None:
        """Notes which share of the data has been read, 0 to 1."""
        self._read = fraction

    def show(self, progress: AdaptProgress) -> None:
        """Shows progress."""
        what, done = _stage(progress, self._read)
        self._bar.update(self._task, description=escape(what), total=1.0 if done else None, completed=done)
        self._say(progress, what)

    def _say(self, progress: AdaptProgress, what: str) -> None:
        if self._terminal or progress.stage == self._said:
            return
        if time.monotonic() - self._last_line >= _QUIET_S or progress.trouble is not None:
            self._write(what)
            self._last_line = time.monotonic()
            self._said = progress.stage


class CountBar:
    """Shows a count that grows."""

    def __init__(self, console: Console, what: str) -> None:
        self._bar = _progress(console)
        self._what = what
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def reading(self, fraction: float) -> None:
        """Notes which share is done, 0 to 1; 0 where that is not known."""
        if fraction:
            self._bar.update(self._task, total=1.0, completed=fraction)

    def show(self, text: str) -> None:
        """Shows the count."""
        self._bar.update(self._task, description=escape(f"{self._what} {text}"))


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _stage(progress: AdaptProgress, read: float) -> tuple[str, float]:
    if progress.trouble is not None:
        return f"no connection, trying again: {progress.trouble.message:.80}", 0.0
    refused = f", {progress.rejected:,} refused" if progress.rejected else ""
    if progress.stage == "streaming":
        version = f", version {progress.version}" if progress.version else ""
        return (
            f"streaming: {progress.acknowledged:,} examples stored{refused}{phrases.learned(progress)}{version}",
            read,
        )
    if progress.stage == "published":
        return f"published: {progress.acknowledged:,} examples{refused}", 1.0
    eta = f", {progress.eta_s:.0f} s to go" if progress.eta_s else ""
    return f"{progress.stage}{eta}", progress.fraction
