"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from graft._progress import words
from graft._progress.display import LogLines
from graft._progress.view import AdaptView, View, WatchView
from graft._records.adapting.told import AdaptProgress
from graft._records.records import Progress

_FRAMES_PER_S: Final = 5
_WIDEST_BAR: Final = 40
_NARROWEST_BAR: Final = 8
_NARROW: Final = 60
"""Columns below which the time that is left is left out."""


class Bar:
    """Shows a view for as long as it is entered, and its clock runs. What is printed meanwhile stands above it."""

    def __init__(self, view: View, console: Console, say: Callable[[str], None]) -> None:
        """Makes it; `say` writes a line where there is no terminal."""
        self._view = view
        self._over = False
        self._live: Live | None = None
        self._log: LogLines | None = None
        if console.is_terminal:
            self._spinner = Spinner("dots")
            self._console = console
            self._live = Live(
                console=console,
                get_renderable=self._drawn,
                refresh_per_second=_FRAMES_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        else:
            self._log = LogLines(view, say)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        if self._log is not None:
            self._log.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            self._log.__exit__(kind, error, trace)

    def hide(self) -> None:
        """Makes room for a question."""
        if self._live is not None:
            self._live.stop()

    def unhide(self) -> None:
        """Shows it again, unless it is over."""
        if self._live is not None and not self._over:
            self._live.start()

    def _drawn(self) -> RenderableType:
        view = self._view
        narrow = self._console.width < _NARROW
        clock = words.span(view.elapsed_s) if narrow else view.clock
        share = f"{view.share:.1%}" if view.share is not None else ""
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        others = len(clock) + len(share) + 6
        line.add_column(no_wrap=True, overflow="ellipsis", max_width=max(self._console.width - others, 1))
        width = min(self._console.width - others - len(view.what), _WIDEST_BAR)
        cells: list[RenderableType] = [self._spinner, Text(view.what)]
        if width >= _NARROWEST_BAR:
            line.add_column(no_wrap=True)
            total = 1.0 if view.share is not None else None
            cells.append(ProgressBar(total=total, completed=view.share or 0.0, width=width))
        for cell in (share, clock):
            line.add_column(no_wrap=True)
            cells.append(Text(cell, "cyan" if cell is clock else ""))
        line.add_row(*cells)
        return line


class AdaptBar(Bar):
    """Shows how far an adaptation is."""

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        self._adapt = AdaptView()
        self._say = say
        self._quiet = not console.is_terminal
        self._troubled = False
        super().__init__(self._adapt, console, say)

    def reading(self, fraction: float) -> None:
        """Notes which share of the data has been read, 0 to 1."""
        self._adapt.reading(fraction)

    def show(self, progress: AdaptProgress) -> None:
        """Shows progress; that there is no connection is said at once."""
        self._adapt.show(progress)
        troubled = progress.trouble is not None
        if self._quiet and troubled and not self._troubled:
            self._say(self._adapt.what)
        self._troubled = troubled


class WatchBar(Bar):
    """Shows how far an adaptation is that somebody else feeds."""

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        self._watch = WatchView()
        super().__init__(self._watch, console, say)

    def show(self, progress: Progress) -> None:
        """Shows progress."""
        self._watch.show(progress)

    def rest(self, what: str) -> None:
        """Shows that nothing is being done."""
        self._watch.busy = False
        self._watch.tell(what)


class CountBar(Bar):
    """Shows a count that grows."""

    def __init__(self, console: Console, say: Callable[[str], None], what: str) -> None:
        self._what = what
        self._count = View(what)
        self._share = 0.0
        super().__init__(self._count, console, say)

    def reading(self, fraction: float) -> None:
        """Notes which share is done, 0 to 1; 0 where that is not known."""
        self._share = fraction
        self._tell(self._count.what)

    def show(self, text: str) -> None:
        """Shows the count."""
        self._tell(f"{self._what} {text}")

    def _tell(self, what: str) -> None:
        # All may have been sent long before it is answered: how long that takes, nobody says.
        share = self._share if 0 < self._share < 1 else None
        self._count.tell(what, share, self._count.left_at(share or 0.0))
