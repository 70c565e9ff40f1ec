"""The command `graft`: teach, ask, measure, promote and export models on a Graft server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._transport.retry import HTTP_STATUS
from graft._transport.unreachable import NAME_ANOTHER
from graft._version import __version__
from graft.cli.arguments import add_connection
from graft.cli.interrupts import INTERRUPTED, Interrupts
from graft.cli.spoken import spoken
from graft.cli.standard_streams import flushed, open_closed_streams
from graft.cli.verbs import VERBS
from graft.errors import (
    GraftError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

if TYPE_CHECKING:
    from graft.cli.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  graft adapt support/intents train.csv --input text --label intent
  graft predict support/intents "where is my parcel?" "I want my money back"
  graft evaluate support/intents test.csv --input text --label intent
  graft report support/intents --version 3
  graft report support/intents --html report.html
  graft promote support/intents 2
  graft export support/intents bundle/

'graft COMMAND --help' describes a command. --server, --timeout and --json may stand before
the command or after it.
"""

_REMEDY_BY_CLASS: Final[dict[type[Exception], str]] = {
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

_NO_RICH: Final = (
    "graft: the command line needs the package 'rich', which is not installed.\n"
    "Install it with: pip install 'graft-serve[cli]'"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    open_closed_streams()
    try:
        args = build_parser().parse_args(argv)
        args.given = list(sys.argv[1:] if argv is None else argv)
        with Interrupts() as interrupts:
            code = _run(args, interrupts)
    except SystemExit as left:  # of the parser, or of rich, whose reader has gone
        raise SystemExit(flushed(left.code if isinstance(left.code, int) else 1)) from None
    return flushed(code)


def _run(args: argparse.Namespace, interrupts: Interrupts) -> int:
    try:
        from graft.cli.terminal import Terminal  # noqa: PLC0415  (needs rich, which only the command line does)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        print(_NO_RICH, file=sys.stderr)
        return 1
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


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="graft",
        description="Teach, ask, measure, promote and export models on a Graft server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graft {__version__}")
    add_connection(parser)
    parser.set_defaults(grammar=parser)  # for what describes it
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for verb in VERBS:
        verb.add(verbs)
    return parser


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
