"""What Ctrl-C means while an adaptation is fed, or trained: what is said of it is what the server says.

As long as examples are sent, it ends the command: what is stored stays, and the same command goes on with it. Once
the commit is durable the server trains whether or not the command goes on. So on a terminal a person is asked whether
to stop that; elsewhere it goes on. A second Ctrl-C ends the command at once, and changes nothing on the server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from graft._client.sync import Client
from graft._records.adapting.told import AdaptProgress
from graft._records.records import Adaptation, CancelledAdaptation
from graft._transport.targets import default_target
from graft.errors import GraftError, NotFoundError

if TYPE_CHECKING:
    from graft.cli.showing.bars import AdaptBar
    from graft.cli.showing.terminal import Terminal

_ANSWER_S: Final = 5.0
"""How long the server is waited for that is asked how things stand."""
_UNFINISHED: Final = {"queued", "training"}
_QUESTION: Final = (
    "The server is training. [s]top that, [l]eave it running and end here, or [w]ait on? "
    "(Ctrl-C again: leave at once) "
)
_CHOICES: Final = ("leave", "stop", "wait")
"""What may be answered, or the beginning of it; nothing at all is the first."""


class Stopping:
    """What Ctrl-C does to one adaptation, while this is entered."""

    def __init__(
        self,
        args: argparse.Namespace,
        client: Client,
        terminal: Terminal,
        bar: AdaptBar,
        go_on: Callable[[AdaptProgress | None], str],
    ) -> None:
        """Makes it.

        Args:
            args: The command's arguments, with the model and the adaptation's id.
            client: Asks the server.
            terminal: Where a person is asked, and told.
            bar: What has to make room for that.
            go_on: Says what is stored, and how to go on, where nothing is being trained; by how far the adaptation is,
                None before that is known.
        """
        self._args = args
        self._client = client
        self._terminal = terminal
        self._bar = bar
        self._going_on = go_on
        self._progress: AdaptProgress | None = None
        self._ended, self._end = os.pipe()
        self._over = self._pressed = False
        self._asking = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._terminal.interrupts.hint = self._go_on()
        self._asking.enter_context(self._terminal.interrupts.asking(self.pressed))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        os.write(self._end, b"\0")
        self._asking.close()
        for end in (self._ended, self._end):
            os.close(end)

    def show(self, progress: AdaptProgress) -> None:
        """Shows and notes how far it is."""
        self._bar.show(progress)
        self._progress = progress
        if not self._pressed:
            self._terminal.interrupts.hint = self._runs_on() if progress.commit_id else self._go_on()

    def pressed(self) -> bool:
        """Finds out what Ctrl-C is meant to do, and does it; whether the command ends."""
        self._pressed = True
        if not self._trains():
            self._terminal.interrupts.hint = self._go_on()
            return True
        self._terminal.interrupts.hint = self._runs_on()
        with _tty(self._terminal) as tty:
            if tty is None:
                self._terminal.interrupts.hint = self._left()
                return True
            self._bar.hide()
            choice = self._chosen(tty)
        if choice == "stop":
            return self._stop()
        if choice == "leave":
            self._terminal.interrupts.hint = self._left()
            return True
        if choice == "wait":
            self._bar.unhide()
        self._pressed = False
        return False

    def _trains(self) -> bool:
        """Whether a commit of the adaptation is being carried out, by the server's word if it gives it."""
        if self._progress is None:
            return False
        if self._progress.trouble is None:
            with contextlib.suppress(GraftError):
                found = self._client.adaptation(self._args.model, self._args.adaptation_id, timeout=_ANSWER_S)
                return any(it.state in _UNFINISHED for it in found.publications)
        return bool(self._progress.commit_id)

    def _chosen(self, tty: int) -> str:
        """What the person chooses; "" where the training ended before the answer."""
        while not self._over:
            self._terminal.prompt(_QUESTION)
            ready, _, _ = select.select([tty, self._ended], [], [])
            if self._ended in ready:
                break
            answer = os.read(tty, 1024).decode(errors="replace").strip().lower()
            if (choice := next((it for it in _CHOICES if it.startswith(answer)), None)) is not None:
                return choice
        self._terminal.say("\nthe training ended meanwhile:")
        return ""

    def _stop(self) -> bool:
        """Cancels the adaptation, and says what came of it."""
        interrupts, args = self._terminal.interrupts, self._args
        interrupts.pressed = True  # that the adaptation ends is what was asked for
        try:
            found = self._client.cancel(args.model, args.adaptation_id, timeout=_ANSWER_S)
        except GraftError as error:
            interrupts.hint = f"it could not be stopped: {error.message} — {self._runs_on()}"
            return True
        if (version := _published(found)) and not found.given_up:
            self._terminal.say(f"it was too late to stop: version {version} is published")
            interrupts.pressed = False
            return False
        interrupts.hint = _stopped(found, version)
        return True

    def _left(self) -> str:
        """Says that the training goes on, and whether its version will be live."""
        args = self._args
        live = ""
        if getattr(args, "promote", True):
            try:
                model = self._client.model(args.model, timeout=_ANSWER_S)
                live = ", which is then live" if model.live_pinned_time is None else ""
            except NotFoundError:
                live = ", which is then live"
            except GraftError:
                live = ""
        return self._runs_on(live)

    def _runs_on(self, live: str = "") -> str:
        args = self._args
        which = f"{shlex.quote(args.model)} {args.adaptation_id}{self._server()}"
        return (
            f"the server goes on training, and publishes the version when it is done{live}\n"
            f"  follow it: graft watch {which}\n  stop it:   graft cancel {which}"
        )

    def _go_on(self) -> str:
        return self._going_on(self._progress)

    def _server(self) -> str:
        named = self._args.server
        return "" if named == default_target() else f" --server {shlex.quote(named)}"


def same_command(args: argparse.Namespace, *, resumed: bool) -> Callable[[AdaptProgress | None], str]:
    """What to say where the command, given once more, goes on.

    Args:
        args: The command's arguments.
        resumed: Whether the adaptation's id was given.
    """
    given = [*args.given, *([] if resumed else ["--adaptation-id", args.adaptation_id])]
    same = ", with the same input," if args.data == "-" and not args.follow else ""

    def go_on(progress: AdaptProgress | None) -> str:
        stored = "nothing was sent"
        if progress is not None:
            stored = f"{progress.acknowledged:,} examples are stored, and nothing is being trained on them"
        return f"{stored}; go on{same} with:\n  graft {shlex.join(given)}"

    return go_on


def _published(adaptation: Adaptation) -> int:
    """The newest version that came of an adaptation; 0: none."""
    return max((it.version for it in adaptation.publications), default=0)


def _stopped(found: CancelledAdaptation, version: int) -> str:
    before = f"; version {version}, which came of it before, stays" if version else ""
    nothing = "" if version else ", and nothing was published"
    return f"adaptation {found.adaptation_id} is cancelled: it takes no more examples{nothing}{before}"


@contextlib.contextmanager
def _tty(terminal: Terminal) -> Iterator[int | None]:
    """Where a person types; None where there is nobody to ask."""
    if os.name != "posix" or not terminal.err.is_terminal:
        yield None
    elif sys.stdin.isatty():
        yield sys.stdin.fileno()
    else:
        try:
            fd = os.open("/dev/tty", os.O_RDONLY)
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)
