"""Ctrl-C, seen at once and raised at a place of our choosing.

Python notes a signal and raises KeyboardInterrupt when its main thread looks next. A signal that comes after the
last look before a wait (a read of standard input, a lock) is seen when that wait ends, which may be never; and one
that is seen just after a lock was taken, before the block that gives it back, leaves the lock taken. So a signal
raises nothing here. The interpreter's handler, which runs at once whatever the main thread does, writes the signal's
number into a pipe; a thread that reads the pipe ends what the command waits for: standard input, and its calls.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Final, Self, TextIO

INTERRUPTED: Final = 130
"""The exit code of a command that Ctrl-C ended: 128 and SIGINT's number."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_DONE: Final = 0
"""In the pipe: there is no more to wait for. No signal has this number."""


class Interrupts:
    """What Ctrl-C does to a command while this is entered, in the main thread.

    The first Ctrl-C ends the command: standard input raises KeyboardInterrupt, and `cancel` is called; or, within
    `asking`, it asks first what is meant. The second one ends the process. Where the process was started with SIGINT
    ignored, as shells start what runs in the background, it stays ignored. Elsewhere than on POSIX systems and in the
    main thread, Ctrl-C is Python's.

    Attributes:
        pressed: Whether the command is to end.
        hint: How to go on after that; "" where there is nothing to say.
    """

    def __init__(self) -> None:
        self.pressed = False
        self.hint = ""
        self._lock = threading.Lock()
        self._cancel: Callable[[], None] | None = None
        self._ending: _Ending | None = None
        self._stdin: TextIO | None = None
        self._input_first = False
        self._question: Callable[[], bool] | None = None
        self._asker: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if os.name == "posix" and threading.current_thread() is threading.main_thread():
            self._signals, self._noted = os.pipe()
            os.set_blocking(self._noted, False)
            self._ending = _Ending()
            self._previous = signal.set_wakeup_fd(self._noted, warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, name="graft-interrupts", daemon=True)
            self._watcher.start()
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._mind(signal.SIGINT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not from Python
        signal.set_wakeup_fd(self._previous)
        os.write(self._noted, bytes([_DONE]))
        self._watcher.join()
        for end in (self._signals, self._noted):
            os.close(end)
        if self._ending is not None:
            self._ending.release()

    @property
    def stdin(self) -> TextIO:
        """Standard input, which a signal ends."""
        if self._ending is None:
            return sys.stdin
        if self._stdin is None:
            source = _Source(sys.stdin.fileno(), self._ending)
            self._stdin = io.TextIOWrapper(
                io.BufferedReader(source), encoding=sys.stdin.encoding, errors=sys.stdin.errors
            )
        return self._stdin

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[BinaryIO | None]:
        """Standard input for "-", and a pipe that has a name, both of which a signal ends; None for other files."""
        if path == "-":
            yield self.stdin.buffer
        elif self._ending is None or not Path(path).is_fifo():
            yield None
        else:
            # Whoever opens a pipe to read from it waits for somebody to write, and no signal is to be missed there.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                yield io.BufferedReader(_Source(fd, self._ending))
            finally:
                os.close(fd)

    @property
    def input_ended(self) -> bool:
        """Whether a signal ended standard input, and not the command."""
        return self._ending is not None and self._ending.ended

    def cancels(self, cancel: Callable[[], None]) -> None:
        """Has the first Ctrl-C that is to end the command call `cancel`, in a thread of its own."""
        with self._lock:
            self._cancel = cancel
            if not self.pressed:
                return
        cancel()

    @contextlib.contextmanager
    def ending_input_first(self) -> Iterator[None]:
        """Meanwhile the first Ctrl-C (or SIGTERM) ends standard input alone, and the next one the command."""
        if self._watcher is None:
            yield
            return
        for number in _SIGNALS:
            self._mind(number)
        self._input_first = True
        try:
            yield
        finally:
            self._input_first = False

    @contextlib.contextmanager
    def asking(self, question: Callable[[], bool]) -> Iterator[None]:
        """Meanwhile the first Ctrl-C that is to end the command calls `question`, which says whether it does.

        It is called in a thread of its own, and over when the block is.
        """
        self._question = question
        try:
            yield
        finally:
            with self._lock:
                self._question, asker = None, self._asker
            if asker is not None:
                asker.join()

    def _mind(self, number: signal.Signals) -> None:
        previous = signal.signal(number, _note)
        self._handlers.setdefault(number, previous)

    def _watch(self) -> None:
        while (number := os.read(self._signals, 1)[0]) != _DONE:
            if number in _SIGNALS:
                self._press()

    def _press(self) -> None:
        with self._lock:
            if self._ending is not None and self._input_first and not self._ending.ended:
                self._ending.end()
                return
            again = self.pressed or self._asker is not None
            question = None if again else self._question
            if question is not None:
                self._asker = threading.Thread(
                    target=self._ask, args=(question,), name="graft-question", daemon=True
                )
                self._asker.start()
                return
            self.pressed = True
        if again:
            _end_at_once(self.hint)
        self._end()

    def _ask(self, question: Callable[[], bool]) -> None:
        ends = question()
        with self._lock:
            self._asker = None
            self.pressed = ends
        if ends:
            self._end()

    def _end(self) -> None:
        if self._ending is not None:
            self._ending.interrupt()
        if self._cancel is not None:
            # In a thread of its own, so that another Ctrl-C is seen whatever this one waits for.
            threading.Thread(target=self._cancel, name="graft-cancel", daemon=True).start()


class _Ending:
    """What ends reading, from another thread: wakes those who wait for input."""

    def __init__(self) -> None:
        self.ended = False
        self._interrupted = False
        self._wakes, self._waker = os.pipe()

    def end(self) -> None:
        """Lets readers see the end of the input, from here on."""
        self.ended = True
        os.write(self._waker, b"\0")

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt where input is read, from here on."""
        self._interrupted = True
        os.write(self._waker, b"\0")

    def wait_for(self, fd: int) -> bool:
        """Waits until there is something to read; whether there is, or reading was ended."""
        ready, _, _ = select.select([fd, self._wakes], [], [])
        if self._interrupted:
            raise KeyboardInterrupt
        return fd in ready and not self.ended

    def release(self) -> None:
        """Gives its pipe back; nothing is to be read any more."""
        for end in (self._wakes, self._waker):
            os.close(end)


class _Source(io.RawIOBase):
    """Something to read whose reading another thread can end."""

    def __init__(self, fd: int, ending: _Ending) -> None:
        self._fd = fd
        self._ending = ending

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return os.readv(self._fd, [buffer]) if self._ending.wait_for(self._fd) else 0


def _note(_: int, __: FrameType | None) -> None:
    """Nothing: that there is a handler is enough for the signal to be written into the pipe."""


def _end_at_once(hint: str) -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h")  # a bar hides the cursor
    os.write(2, f"\ninterrupted: {hint}\n".encode() if hint else b"interrupted\n")
    os._exit(INTERRUPTED)
