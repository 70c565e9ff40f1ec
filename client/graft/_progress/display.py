"""A view that is shown again and again while work goes on: on a line of a terminal, in a log, in a notebook."""

from __future__ import annotations

import contextvars
import html
import shutil
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TextIO

from graft._progress.view import View

TICK_S: Final = 0.5
"""Between two looks at the clock."""
LOG_S: Final = 10.0
"""Between two lines of a log, and before the first."""
NOTEBOOK_S: Final = 2.0
"""How long work takes before a notebook shows it."""


class Display(ABC):
    """Shows a view for as long as it is entered, every `every_s`, from a thread of its own."""

    every_s: float = TICK_S

    def __init__(self, view: View) -> None:
        self.view = view
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # Where output goes may be known to the context alone, as in a notebook's cell.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=lambda: run(self._tick), name="graft-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.end()

    @abstractmethod
    def draw(self) -> None:
        """Shows the view as it is."""

    @abstractmethod
    def end(self) -> None:
        """Takes away what should not stay."""

    def _tick(self) -> None:
        while not self._over.wait(self.every_s):
            self.draw()


class LogLines(Display):
    """A line every LOG_S: for what has no terminal. Work that takes less is not mentioned."""

    every_s = LOG_S

    def __init__(self, view: View, write: Callable[[str], None]) -> None:
        super().__init__(view)
        self._write = write

    def draw(self) -> None:
        """Writes a line, if there is anything new to say."""
        if self.view.line_is_new():
            self._write(self.view.line)

    def end(self) -> None:
        """Does nothing: what was written stays."""


class TerminalLine(Display):
    """One line of a terminal, written again and again."""

    def __init__(self, view: View, stream: TextIO) -> None:
        super().__init__(view)
        self._stream = stream
        self._width = 0

    def draw(self) -> None:
        """Writes the line over what it was."""
        columns = shutil.get_terminal_size().columns
        line = self.view.line[: max(columns - 1, 1)]
        self._stream.write(f"\r{line.ljust(min(self._width, columns - 1))}")
        self._stream.flush()
        self._width = len(line)

    def end(self) -> None:
        """Clears the line."""
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()


class NotebookLine(Display):
    """A bar in the output of a notebook's cell, which changes in place; nothing of what takes less than NOTEBOOK_S."""

    def __init__(self, view: View, publish: Callable[..., Any]) -> None:
        """Makes it; `publish` is IPython's `publish_display_data`."""
        super().__init__(view)
        self._publish = publish
        self._id = uuid.uuid4().hex
        self._shown = False

    def draw(self) -> None:
        """Shows the bar, or changes it."""
        if not self._shown and self.view.elapsed_s < NOTEBOOK_S:
            return
        share = self.view.share
        value = f' value="{share:.4f}"' if share is not None else ""
        bar = f'<progress style="width:16em;vertical-align:middle"{value} max="1"></progress>'
        text = html.escape(f"{self.view.what} · {self.view.clock}")
        self._show({"text/plain": self.view.line, "text/html": f"<div>{bar} {text}</div>"})

    def end(self) -> None:
        """Leaves the last line, without the bar."""
        if self._shown:
            line = f"{self.view.what} · {self.view.clock}"
            self._show({"text/plain": line, "text/html": f"<div>{html.escape(line)}</div>"})

    def _show(self, data: dict[str, str]) -> None:
        self._publish(data, {}, transient={"display_id": self._id}, update=self._shown)
        self._shown = True


def notebook() -> Callable[..., Any] | None:
    """What publishes the output of a notebook's cell; None elsewhere. Imports nothing that is not imported yet."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    display: Any = getattr(shell, "display_pub", None)
    publish: Callable[..., Any] | None = getattr(display, "publish", None)
    return publish


def display_of(view: View, wanted: bool | None) -> Display | None:
    """How work is shown to whoever runs a script or a notebook; None: not at all.

    Args:
        view: The work.
        wanted: None: in a notebook alone.
    """
    if wanted is False:
        return None
    publish = notebook()
    if publish is not None:
        return NotebookLine(view, publish)
    if wanted is None:
        return None
    if sys.stderr.isatty():
        return TerminalLine(view, sys.stderr)
    return LogLines(view, lambda line: print(line, file=sys.stderr, flush=True))
