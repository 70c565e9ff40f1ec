"""What a person answers: keys on a terminal, lines elsewhere."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rich.cells import cell_len
from rich.markup import escape

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

CTRL_C: Final = "ctrl-c"
TAB: Final = "tab"
ENTER: Final = "enter"
BACKSPACE: Final = "backspace"
ESCAPE: Final = "escape"
_NAMED: Final = {
    "\x03": CTRL_C,
    "\x04": CTRL_C,  # the end of the input, as a terminal has it
    "\t": TAB,
    "\r": ENTER,
    "\n": ENTER,
    "\x7f": BACKSPACE,
    "\b": BACKSPACE,
    "\x1b": ESCAPE,
}
_SEQUENCE: Final = re.compile(r"\x1b(?:\[\[?[0-?]*[ -/]*[@-~]|O[0-9;]*[ -~]|[^\x1b])", re.DOTALL)
"""What a terminal sends for a key without a character, or with Alt: at once, which no person types."""
_READ_BYTES: Final = 4096
_SHOWN: Final = 12
"""Labels that are listed at once."""


class Keys:
    """Standard input, key by key on a terminal, and line by line elsewhere.

    On a terminal Ctrl-C is a key like others while this is entered. A signal ends the input.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._stdin = terminal.interrupts.stdin
        self.single = terminal.err.is_terminal and self._stdin.isatty() and _termios() is not None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ahead: deque[str] = deque()
        self._ended = False
        self._before: Any = None

    def __enter__(self) -> Self:
        termios = _termios()
        if self.single and termios is not None:
            fd = self._stdin.fileno()
            self._before = termios.tcgetattr(fd)
            wanted = termios.tcgetattr(fd)
            wanted[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
            termios.tcsetattr(fd, termios.TCSADRAIN, wanted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios = _termios()
        if self._before is not None and termios is not None:
            termios.tcsetattr(self._stdin.fileno(), termios.TCSADRAIN, self._before)

    def command(self, question: str) -> str | None:
        """Asks, and returns a key, or without a terminal a line; None where the input has ended.

        A key that has no letter is returned by its name. Of a line the space around it is left out.
        """
        self._print(f"[bold]{escape(question)}[/] ")
        if not self.single:
            return self._line()
        key = self._key()
        while key == ENTER:  # of people who end each answer with it
            key = self._key()
        self._print(f"{escape(key)}\n" if key is not None and len(key) == 1 else "\n")
        return key

    def text(self, question: str, words: Sequence[str]) -> str | None:
        """Asks for a text, which Tab completes to one of some words; None if there is none after all."""
        self._print(f"[bold]{escape(question)}[/] ")
        if not self.single:
            return self._line()
        typed = ""
        while True:
            key = self._key()
            if key in (None, CTRL_C, ESCAPE):
                self._print("\n")
                return None
            if key == ENTER:
                self._print("\n")
                return typed.strip()
            if key == BACKSPACE:
                if typed:
                    self._take_back(typed[-1])
                    typed = typed[:-1]
            elif key == TAB:
                typed = self._completed(question, typed, words)
            elif key is not None and len(key) == 1 and key.isprintable():
                typed += key
                self._print(escape(key))

    def _completed(self, question: str, typed: str, words: Sequence[str]) -> str:
        """What is typed, as far as the words that fit agree on it; where they do not, they are listed."""
        fitting = matching(typed, words)
        beginning = [it for it in fitting if it.casefold().startswith(typed.casefold())]
        common = _common(beginning)
        if len(fitting) == 1:
            common = fitting[0]
        if len(common) <= len(typed):
            more = f" and {len(fitting) - _SHOWN:,} more" if len(fitting) > _SHOWN else ""
            self._print(f"\n[dim]{escape('  '.join(fitting[:_SHOWN]) or 'no label is like that')}{more}[/]\n")
            self._print(f"[bold]{escape(question)}[/] {escape(typed)}")
            return typed
        self._take_back(typed)
        self._print(escape(common))
        return common

    def _take_back(self, typed: str) -> None:
        """Takes what was typed last off the screen; rich would leave the backspaces out."""
        file = self._terminal.err.file
        file.write("\b \b" * cell_len(typed))
        file.flush()

    def _key(self) -> str | None:
        while not self._ahead:
            data = b"" if self._ended else self._stdin.buffer.read1(_READ_BYTES)  # type: ignore[attr-defined]
            if not data:
                self._ended = True
                return None
            # An arrow, a function key or the like is no answer.
            self._ahead.extend(_SEQUENCE.sub("", self._decoder.decode(data)))
        key = self._ahead.popleft()
        return _NAMED.get(key, key)

    def _line(self) -> str | None:
        line = self._stdin.readline()
        self._print("\n")
        return line.strip() if line else None

    def _print(self, markup: str) -> None:
        self._terminal.err.print(markup, end="", highlight=False, soft_wrap=True)


def _common(words: Sequence[str]) -> str:
    """The beginning that all words have; "" of none."""
    first, last = min(words, default=""), max(words, default="")
    same = (n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(same, min(len(first), len(last)))]


def matching(typed: str, words: Sequence[str]) -> list[str]:
    """The words that begin as typed, then those that have it within, whatever the case."""
    wanted = typed.strip().casefold()
    within = [it for it in words if wanted in it.casefold()]
    return sorted(within, key=lambda it: not it.casefold().startswith(wanted))


def _termios() -> Any:
    try:
        import termios  # noqa: PLC0415 (POSIX alone has it)
    except ModuleNotFoundError:
        return None
    return termios
