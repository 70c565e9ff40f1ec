"""Runs a verb against its server, and says what went wrong where it fails."""

from __future__ import annotations

import argparse
from typing import Final

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._transport.retry import HTTP_STATUS
from graft._transport.unreachable import NAME_ANOTHER
from graft.cli.interrupts import INTERRUPTED, Interrupts
from graft.cli.showing.spoken import spoken
from graft.cli.showing.terminal import Terminal
from graft.errors import (
    DeadlineExceededError,
    GraftError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

_REMEDY_BY_CLASS: Final[dict[type[Exception], str]] = {
    DeadlineExceededError: "the server is busy or hangs: try again, or wait longer with --timeout SECONDS",
    NotFoundError: "'graft models' lists the models, 'graft versions MODEL' their versions",
    UnauthenticatedError: "the server wants credentials",
    UnimplementedError: "the server is older than this command",
}
_REMEDY_BY_REASON: Final = {
    "START_MISMATCH": "repeat the settings of the first call, or leave --adaptation-id away",
    "ALIAS_NOT_FOUND": "'graft alias MODEL' lists the aliases",
    "ALIAS_REQUIRED": "'graft promote MODEL VERSION' moves live, 'graft delete MODEL' deletes the model",
    "BACKBONE_NOT_FOUND": "'graft backbones' lists them",
}

_CONNECT_TIMEOUT_S: Final = 10.0
"""People wait less patiently for a first answer than programs do."""


def run(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Does what the arguments ask for, and returns the exit code."""
    terminal = Terminal(interrupts)
    try:
        with Client(args.server, timeout=args.timeout, connect_timeout=_CONNECT_TIMEOUT_S) as client:
            interrupts.cancels(client.close)
            return args.run(args, client, terminal) or 0
    except KeyboardInterrupt:
        return _interrupted(terminal)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if interrupts.pressed:  # its calls were cancelled, and this is how it took that
            return _interrupted(terminal)
        if isinstance(error, GraftError | DataError | OSError | ValueError):
            return _fail(error, args, terminal)
        raise


def _interrupted(terminal: Terminal) -> int:
    hint = terminal.interrupts.hint
    terminal.say(f"interrupted: {hint}" if hint else "interrupted")
    return INTERRUPTED


def _fail(error: Exception, args: argparse.Namespace, terminal: Terminal) -> int:
    remedy = _remedy(error, args)
    message = spoken(str(error)) if isinstance(error, GraftError) else str(error)
    message = " ".join(message.split()).replace(NAME_ANOTHER, f"{NAME_ANOTHER} with --server", 1)
    if "'graft " in message and remedy in _REMEDY_BY_CLASS.values():
        remedy = ""  # the server says it better
    terminal.error(f"{message}{' — ' if remedy else ''}{remedy}")
    return 1


def _remedy(error: Exception, args: argparse.Namespace) -> str:
    if isinstance(error, UnavailableError) and error.reason != HTTP_STATUS and args.command == "adapt":
        return f"go on with --adaptation-id {args.adaptation_id}"
    if isinstance(error, ResourceExhaustedError) and error.retry_after is not None:
        return f"try again in {error.retry_after:.0f} s"
    if isinstance(error, GraftError) and error.reason in _REMEDY_BY_REASON:
        return _REMEDY_BY_REASON[error.reason]
    return _REMEDY_BY_CLASS.get(type(error), "")
