"""Pieces of the command line's grammar that several verbs share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from graft._records.list_cells import list_of
from graft._transport.targets import default_target

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (no public name)


def add_verb(verbs: Verbs, name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    """Adds a verb with the arguments that all of them take."""
    parser: argparse.ArgumentParser = verbs.add_parser(
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
        "--timeout", type=positive, default=60.0, metavar="SECONDS", help="deadline of a single request (60)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def add_selector(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds how to choose a version."""
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument("--version", type=int, metavar="N", help="the version (the one that is live)")
    selector.add_argument("--alias", metavar="ALIAS", help="the version that this alias points at")
    return selector


def add_full(parser: argparse.ArgumentParser) -> None:
    """Adds whether long lists are shown as a whole."""
    parser.add_argument("--full", action="store_true", help="show every class, confusion and candidate")


def positive(text: str) -> float:
    """Reads a number above 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def names(text: str) -> list[str]:
    """Reads names: separated by commas, or a list in JSON."""
    if isinstance(listed := list_of(text), list):  # a list in JSON, for labels that contain commas
        return [str(name) for name in listed if name is not None]
    return [name.strip() for name in text.split(",") if name.strip()]
