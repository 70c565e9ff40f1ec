"""The command `graft`: teach, ask, measure, promote and export models on a Graft server."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._records.list_cells import list_of
from graft._transport.retry import HTTP_STATUS
from graft._transport.targets import DEFAULT_TARGET, default_target
from graft._version import __version__
from graft.cli.data_options import DATA_FILES, add_data
from graft.cli.interrupts import INTERRUPTED, Interrupts
from graft.cli.standard_streams import flushed, open_closed_streams
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

The server is --server, or the environment variable GRAFT_SERVER, or the one here that listens as GRAFT_LISTEN
says, or {default}.
"""

_ADAPT_EXAMPLES: Final = """\
examples:
  graft adapt support/intents train.csv --input text --label intent
  graft adapt support/intents train.jsonl.gz --group customer --split part
  graft adapt shop/products photos/ --backbone resnet
  graft adapt shop/products photos.csv --path file --label product --backbone resnet
  graft adapt support/intents train.xlsx --sheet 2024 --label Category
  graft adapt support/intents export.tsv --quote none --encoding cp1252
  zcat *.jsonl.gz | graft adapt support/intents -
  graft adapt support/intents train.csv --check
  tail -f labels.jsonl | graft adapt support/intents - --follow --publish-every 500 --publish-seconds 60
  graft adapt support/answers train.csv --input question --second answer --label fits
  graft adapt support/topics train.csv --label topics --label-separator ';'
  graft adapt support/tone train.csv --labels-from toxic,insult,threat
  graft adapt support/hours train.csv --value hours

{data_files}

A broken connection is resumed by itself; an interrupted command goes on with the same
--adaptation-id. With --follow, a line is {{"id": …, "text": …, "label": …}} or {{"delete": ID}}; the end of the input
and Ctrl-C commit, and leave the adaptation open.
"""

_PREDICT_EXAMPLES: Final = """\
examples:
  graft predict support/intents "where is my parcel?"
  graft predict support/intents - < lines.txt > answers.tsv
  graft predict support/intents --json --top-k 3 "where is my parcel?"

On a terminal the answer is a table; elsewhere lines of label, probability and text, separated by tabs, with what is to
be minded behind: "abstained: ...", "truncated: ...", or "error: ..." where there is no answer. Each line of standard
input has its line, also a blank one. The exit code is 1 where no input could be answered.
"""

_REMEDY_BY_CLASS: Final[dict[type[Exception], str]] = {
    NotFoundError: "'graft models' lists the models, 'graft versions MODEL' their versions",
    UnauthenticatedError: "the server wants credentials",
    UnimplementedError: "the server is older than this command",
}
_REMEDY_BY_REASON: Final = {
    "START_MISMATCH": "repeat the settings of the first call, or leave --adaptation-id away",
    "ADAPTATION_NOT_FOUND": "'graft adapt' prints the adaptation's id when it starts",
    "BACKBONE_NOT_FOUND": "'graft backbones' lists them",
}

_FORGET_EXAMPLES: Final = """\
examples:
  graft forget support/intents --subject customer-4711
  graft forget support/intents --id ticket-12 --id ticket-19 --delete-versions

Versions that were trained on what is erased stay until they are deleted. To go on without a pause: forget, adapt
again with --base-version, then repeat forget with --delete-versions.
"""

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
        with Interrupts() as interrupts:
            code = _run(args, interrupts)
    except SystemExit as left:  # of the parser, or of rich, whose reader has gone
        raise SystemExit(flushed(left.code if isinstance(left.code, int) else 1)) from None
    return flushed(code)


def _run(args: argparse.Namespace, interrupts: Interrupts) -> int:
    try:
        from graft.cli import commands  # noqa: PLC0415  (needs rich, which only the command line does)
        from graft.cli.terminal import Terminal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        print(_NO_RICH, file=sys.stderr)
        return 1
    terminal = Terminal(interrupts)
    try:
        with Client(args.server, timeout=args.timeout, connect_timeout=_CONNECT_TIMEOUT_S) as client:
            interrupts.cancels(client.close)
            getattr(commands, args.command)(args, client, terminal)
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
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="graft",
        description="Teach, ask, measure, promote and export models on a Graft server.",
        epilog=_EXAMPLES.format(default=DEFAULT_TARGET),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graft {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_adapt(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_lists(commands)
    _add_report(commands)
    _add_promote(commands)
    _add_examples(commands)
    _add_forget(commands)
    _add_export(commands)
    _add_watch(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (no public name)


def _add(commands: _Commands, name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    server = default_target()
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=server,
        help=f"the server, or unix:PATH (GRAFT_SERVER, or where GRAFT_LISTEN has one listen; now {server})",
    )
    parser.add_argument(
        "--timeout", type=_positive, default=60.0, metavar="SECONDS", help="deadline of a single request (60)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def _add_adapt(commands: _Commands) -> None:
    parser = _add(
        commands,
        "adapt",
        "stream labelled examples in and get a served version",
        _ADAPT_EXAMPLES.format(data_files=DATA_FILES),
    )
    parser.add_argument("model", metavar="MODEL", help="the model to publish to, for example support/intents")
    add_data(parser)
    settings = parser.add_argument_group("how to adapt")
    settings.add_argument(
        "--id-repeats",
        default="",
        choices=["replace", "keep"],
        help="of rows with the same id, let later ones replace earlier ones, or keep the first (ask, or refuse)",
    )
    settings.add_argument(
        "--backbone", default="", metavar="NAME", help="the backbone (the server's default)"
    )
    settings.add_argument(
        "--task",
        default="",
        choices=["single-label", "multi-label", "regression"],
        help="what the model answers with (what the targets are for)",
    )
    settings.add_argument(
        "--method", default="auto", metavar="METHOD", help="auto, frozen, partial or full (auto)"
    )
    settings.add_argument(
        "--layers", type=int, default=0, metavar="N", help="tune so many upper layers (a third of them)"
    )
    settings.add_argument(
        "--epochs", type=int, default=0, metavar="N", help="see each example at most so often in tuning (4)"
    )
    settings.add_argument(
        "--learning-rate", type=float, default=0.0, metavar="R", help="of the uppermost layer (0.0001)"
    )
    settings.add_argument(
        "--time-budget",
        type=float,
        metavar="S",
        help="tune for at most so many seconds; the method auto does not tune without one",
    )
    settings.add_argument("--seed", type=int, default=0, help="what every random choice is derived from (0)")
    settings.add_argument(
        "--labels", type=_names, metavar="A,B,C", help="classes known in advance, in output order"
    )
    settings.add_argument(
        "--closed-labels", action="store_true", help="refuse examples with labels that are not in --labels"
    )
    settings.add_argument(
        "--base-version", type=int, default=0, metavar="N", help="go on from the examples of this version"
    )
    settings.add_argument(
        "--adaptation-id",
        default=uuid.uuid4().hex,
        metavar="ID",
        help="names this adaptation; repeat it to go on where an interrupted command was (a new one)",
    )
    settings.add_argument(
        "--publish-every",
        type=int,
        default=0,
        metavar="N",
        help="have the server publish after every N examples (only at the end)",
    )
    settings.add_argument(
        "--publish-seconds",
        type=_positive,
        default=0.0,
        metavar="S",
        help="have it publish what is new after S seconds (only at the end)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="only say which examples would be refused")
    how.add_argument(
        "--follow", action="store_true", help="read standard input for as long as lines come, then commit"
    )
    settings.add_argument(
        "--writer-id", default="", metavar="ID", help="which of several feeders of one adaptation this is"
    )
    _add_full(parser)


def _add_predict(commands: _Commands) -> None:
    parser = _add(commands, "predict", "classify texts, images or clips", _PREDICT_EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("text", metavar="TEXT", nargs="+", help="texts, or - for the lines of standard input")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--files", action="store_true", help="the texts, or lines, are names of image or audio files"
    )
    kind.add_argument(
        "--pairs",
        action="store_true",
        help="the texts are pairs, each first one with the second behind it; of a line, behind a tab",
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="how many labels a text (5)")
    _add_selector(parser).add_argument(
        "--adaptation", metavar="ID", help="the interim head of this open adaptation"
    )


def _add_evaluate(commands: _Commands) -> None:
    parser = _add(commands, "evaluate", "measure a version on labelled examples", DATA_FILES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    add_data(parser)
    _add_selector(parser)
    _add_full(parser)


def _add_lists(commands: _Commands) -> None:
    models = _add(commands, "models", "list models")
    models.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only names that start so")
    versions = _add(commands, "versions", "list a model's versions, newest first")
    versions.add_argument("model", metavar="MODEL", help="the model")
    _add(commands, "backbones", "list the pre-trained models that the server can adapt")


def _add_report(commands: _Commands) -> None:
    parser = _add(commands, "report", "show what a version was trained on and how good it is")
    parser.add_argument("model", metavar="MODEL", help="the model")
    _add_selector(parser)
    parser.add_argument("--html", metavar="FILE", help="write it as one self-contained page instead")
    _add_full(parser)


def _add_promote(commands: _Commands) -> None:
    parser = _add(commands, "promote", "make a version the live one; also rolls back")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("version", metavar="VERSION", type=int, help="the version's number")
    parser.add_argument("--alias", default="live", help="move another alias than live")
    parser.add_argument(
        "--expected-version",
        type=int,
        metavar="N",
        help="refuse if the alias does not point at this version now",
    )


def _add_export(commands: _Commands) -> None:
    parser = _add(commands, "export", "write a self-contained bundle: ONNX graph, labels, tokenizer, runner")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("directory", metavar="DIR", help="where to write")
    _add_selector(parser)


def _add_examples(commands: _Commands) -> None:
    parser = _add(commands, "examples", "list what is stored of a model's examples")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("--subject", default="", metavar="WHO", help="only the examples of this subject")
    parser.add_argument("--adaptation-id", default="", metavar="ID", help="only those of this adaptation")
    parser.add_argument("--inputs", action="store_true", help="show the texts, too")


def _add_forget(commands: _Commands) -> None:
    parser = _add(commands, "forget", "erase examples for good, with their features", _FORGET_EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("--subject", default="", metavar="WHO", help="erase all examples of this subject")
    parser.add_argument(
        "--id", dest="ids", action="append", default=[], metavar="ID", help="erase this example; repeatable"
    )
    parser.add_argument(
        "--delete-versions",
        action="store_true",
        help="also delete the versions that may have been trained on erased examples",
    )


def _add_watch(commands: _Commands) -> None:
    parser = _add(commands, "watch", "follow an adaptation until nothing more can happen to it")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("adaptation", metavar="ADAPTATION", help="the adaptation's id")
    parser.add_argument("--from-event", type=int, default=0, metavar="N", help="begin with this event (all)")


def _add_selector(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument("--version", type=int, metavar="N", help="the version (the one that is live)")
    selector.add_argument("--alias", metavar="ALIAS", help="the version that this alias points at")
    return selector


def _add_full(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="show every class, confusion and candidate")


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _names(text: str) -> list[str]:
    if isinstance(listed := list_of(text), list):  # a list in JSON, for labels that contain commas
        return [str(name) for name in listed if name is not None]
    return [name.strip() for name in text.split(",") if name.strip()]


def _interrupted(terminal: Terminal) -> int:
    hint = terminal.interrupts.hint
    terminal.say(f"interrupted: {hint}" if hint else "interrupted")
    return INTERRUPTED


def _fail(error: Exception, args: argparse.Namespace, terminal: Terminal) -> int:
    remedy = _remedy(error, args)
    message = " ".join(str(error).split())
    terminal.error(f"{message}{' — ' if remedy else ''}{remedy}")
    return 1


def _remedy(error: Exception, args: argparse.Namespace) -> str:
    if isinstance(error, UnavailableError) and error.reason != HTTP_STATUS:
        resume = f"; go on with --adaptation-id {args.adaptation_id}" if args.command == "adapt" else ""
        return f"is a server at {args.server}? Start one with 'graft-server serve', or name it with --server{resume}"
    if isinstance(error, ResourceExhaustedError) and error.retry_after is not None:
        return f"try again in {error.retry_after:.0f} s"
    if isinstance(error, GraftError) and error.reason in _REMEDY_BY_REASON:
        return _REMEDY_BY_REASON[error.reason]
    return _REMEDY_BY_CLASS.get(type(error), "")
