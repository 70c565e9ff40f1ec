"""The command `graft`: teach, ask, measure, promote and export models on a Graft server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from graft._version import __version__
from graft.cli.arguments import add_connection
from graft.cli.interrupts import INTERRUPTED, Interrupts
from graft.cli.standard_streams import flushed, open_closed_streams, spell_what_cannot_be_encoded
from graft.cli.verbs import SUMMARIES, module_of

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

_NO_RICH: Final = (
    "graft: the command line needs the package 'rich', which is not installed.\n"
    "Install it with: pip install 'graft-serve[cli]'"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    open_closed_streams()
    spell_what_cannot_be_encoded()
    try:
        args = build_parser(_Deferred).parse_args(argv)
        args.given = list(sys.argv[1:] if argv is None else argv)
        with Interrupts() as interrupts:
            from graft.cli.running import run  # noqa: PLC0415  (help needs neither a client nor rich)

            code = run(args, interrupts)
    except KeyboardInterrupt:  # before the command began
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        print(_NO_RICH, file=sys.stderr)
        code = 1
    except SystemExit as left:  # of the parser, or of rich, whose reader has gone
        raise SystemExit(flushed(left.code if isinstance(left.code, int) else 1)) from None
    return flushed(code)


class _Deferred(argparse.ArgumentParser):
    """The grammar of a verb whose module is imported when the verb is used."""

    def __init__(self, *, prog: str, **_: Any) -> None:
        super().__init__(prog=prog, add_help=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parses the arguments of the verb."""
        name = self.prog.rpartition(" ")[2]
        known = argparse.ArgumentParser(prog="graft").add_subparsers()
        module_of(name).add(known)
        return known.choices[name].parse_known_args(args, namespace)


def build_parser(of_verb: type[argparse.ArgumentParser] | None = None) -> argparse.ArgumentParser:
    """The command line's grammar.

    Args:
        of_verb: The class of the verbs' parsers, where their grammar is not to be added; None: it is.
    """
    parser = argparse.ArgumentParser(
        prog="graft",
        description="Teach, ask, measure, promote and export models on a Graft server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graft {__version__}")
    add_connection(parser)
    parser.set_defaults(grammar=build_parser)  # for what describes it
    verbs = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=of_verb or argparse.ArgumentParser
    )
    for name, summary in SUMMARIES.items():
        if of_verb is None:
            module_of(name).add(verbs)
        else:
            verbs.add_parser(name, help=summary)
    return parser
